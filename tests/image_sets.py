"""Random images, text features and adapters that tests of the loops share."""

import torch
from torch import nn

from CLIP.adapter import MVFA
from CLIP.model import CLIP
from dataset.items import Item, pack_mask
from mvfa.features import FeatureLoader
from mvfa.methods.base import Method
from mvfa.methods.mvfa import Mvfa
from mvfa.recipe import Recipe
from tests.conftest import released_form
from tests.methods import mvfa_method

LEVELS = (1, 2, 4)  # blocks with adapters, of the four blocks of the tiny CLIP
CPU = torch.device("cpu")


class Pictures:
    """Random images of two nouns, one with masks; abnormal ones have a marked square.

    `masked`: "mixed" (the first half of the images has masks), "all" or "none".
    """

    def __init__(self, count: int = 8, side: int = 32, masked: str = "mixed") -> None:
        g = torch.Generator().manual_seed(10)
        self.side = side
        self.images = torch.rand(count, 3, side, side, generator=g)
        self.labels = (torch.arange(count) % 2).float()
        self.pixels = torch.zeros(count, side, side, dtype=torch.bool)
        self.pixels[1::2, 4:14, 4:14] = True
        if masked == "mixed":
            self.masked = torch.arange(count) < count // 2
        else:
            self.masked = torch.full((count,), masked == "all")
        self.nouns = ["Brain" if m else "Chest" for m in self.masked.tolist()]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return Item(self.images[index], pack_mask(self.pixels[index]), index)


def drawn_adapters(clip: CLIP, seed: int = 0, **form) -> MVFA:
    """Return a model whose adapters are drawn by a seed, in the released form with changes."""
    generator = torch.Generator().manual_seed(seed)
    return MVFA(clip.visual, 64, LEVELS, released_form(**form), generator)


def drawn_text() -> dict[str, torch.Tensor]:
    """Return random text features [64, 2] of the two nouns, of norm 1."""
    g = torch.Generator().manual_seed(11)
    return {
        noun: nn.functional.normalize(torch.randn(64, 2, generator=g), dim=0)
        for noun in ("Brain", "Chest")
    }


def drawn_method(
    clip: CLIP,
    seed: int = 0,
    *,
    noun: str = "Brain",
    masks: bool = True,
    recipe: Recipe | None = None,
    side: int = 32,
) -> Mvfa:
    """Return MVFA with `drawn_adapters` and `drawn_text`."""
    model = drawn_adapters(clip, seed)
    return mvfa_method(model, drawn_text(), noun=noun, masks=masks, recipe=recipe, side=side)


def loader(method: Method, source: Pictures, batch_size: int = 4, **settings) -> FeatureLoader:
    """Return a feature loader on the CPU."""
    return FeatureLoader(source, method, device=CPU, batch_size=batch_size, **settings)
