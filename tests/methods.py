"""Methods of tests: MVFA of given adapters and sentences, and one with a memory branch only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from CLIP.adapter import MVFA
from mvfa import checkpoint, scoring
from mvfa.methods import catalog
from mvfa.methods.base import Method
from mvfa.methods.mvfa import Mvfa
from mvfa.recipe import RECIPES, Recipe
from mvfa.score_form import ScoreForm

KEYS = catalog.METHODS[catalog.MVFA].keys
NO_FILE = Path("none")


@dataclass(frozen=True)
class Aim:
    """What is scored."""

    noun: str = "Brain"
    masks: bool = True


def recipe_of(name: str = "released", **changes: Any) -> Recipe:
    """Return a recipe with some fields changed."""
    return replace(RECIPES[name], **changes)


def mvfa_method(
    model: MVFA,
    text: Mapping[str, Tensor] | None = None,
    *,
    noun: str = "Brain",
    masks: bool = True,
    recipe: Recipe | None = None,
    side: int = 32,
    weights: Path = NO_FILE,
) -> Mvfa:
    """Return MVFA of a model; without text features it has random ones of one noun."""
    if text is None:
        drawn = torch.randn(model.embed_dim, 2, generator=torch.Generator().manual_seed(11))
        text = {noun: normalize(drawn, dim=0)}
    return Mvfa(model, text, recipe or recipe_of(), Aim(noun, masks), side, weights)


def load_mvfa(path: Path) -> checkpoint.Checkpoint:
    """Read a checkpoint of MVFA."""
    return checkpoint.load(path, KEYS)


class MemoryOnly(Method):
    """A stub: features are mean colours of 4 x 4 cells of an image; only a memory branch scores."""

    name = catalog.PATCH_MEMORY

    def __init__(self, side: int, *, masks: bool, form: ScoreForm | None = None) -> None:
        super().__init__(form or ScoreForm("max", "mean"), side, masks, NO_FILE)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return 16, 3

    @property
    def embed_dim(self) -> int:
        return 3

    @property
    def bank_levels(self) -> int:
        return 1

    def features(self, images: Tensor | list[Tensor]) -> Tensor:
        assert isinstance(images, Tensor)
        values = images.float() / (255 if images.dtype == torch.uint8 else 1)
        cells = torch.nn.functional.adaptive_avg_pool2d(values, 4)  # [B, 3, 4, 4]
        cells[:, 2] = 0.5  # so that greys differ in direction
        return cells.flatten(2).mT  # [B, 16, 3]

    def bank(self, features: Tensor) -> list[Tensor]:
        return [normalize(features.flatten(0, 1), dim=-1)]

    def bank_rows(self, image: Tensor) -> int:  # noqa: ARG002
        return 16

    def map_scores(self, *, few: bool) -> bool:  # noqa: ARG002
        return False

    def score(
        self, features: Tensor, bank: Sequence[Tensor] | None, *, maps: bool = False
    ) -> dict[str, Tensor]:
        assert bank is not None
        cosines = normalize(features, dim=-1) @ bank[0].T  # [B, 16, M]
        distance = scoring.over_levels((1 - cosines.amax(dim=-1))[:, None], "mean")  # [B, 16]
        values = {"memory_scores": self.form.memory_score(distance, None, self.side)}
        if self.masks or maps:
            values["distance"] = distance
        return values
