"""What a method is to the loops, the caches, the evaluation and a detector.

A method is one module of this folder with a class derived from `Method` and two functions:

    create(options, env, target, generator) -> Method        for a script
    load(settings, tensors, source) -> Method                for a detector's file (Source)

Nothing outside knows which method runs. Letters: B images of a batch, S side at which maps are
scored, L levels, N patches, M rows of the memory bank, E token width, K shots.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from PIL import Image
from torch import Tensor, nn

from dataset.catalog import ObjectInfo
from dataset.items import ImageSource
from dataset.medical_few import Support, SupportSource
from dataset.pixels import square
from dataset.shots import Shots
from errors import UserError
from mvfa.methods.catalog import METHODS
from mvfa.score_form import ScoreForm

State = dict[str, dict[str, Tensor]]  # of a checkpoint: tensors by group and name
Images = Tensor | list[Tensor]  # [B, 3, S, S], or images of several sizes


@dataclass(frozen=True)
class Source:
    """Where a detector's backbone is read from, and how it runs.

    path: the detector's file, for messages; weights: file of the backbone's weights, None for the
    published file's place; late: for a single image (CLIP.late).
    """

    path: Path
    weights: Path | None
    device: torch.device
    precision: str
    late: bool = False


class Target(Protocol):
    """What is scored: an object, or what a detector says of one."""

    @property
    def noun(self) -> str:
        """What the object is called in sentences."""
        ...

    @property
    def masks(self) -> bool:
        """Whether it has masks."""
        ...


class Method(nn.Module, ABC):
    """A frozen backbone, what is trained on it (if anything), and how its features are scored.

    Args:
        form: how patch values become maps and scores.
        side: S, at which maps are scored.
        masks: whether the object that is scored has masks.
        weights: file of the backbone's weights.

    """

    name: ClassVar[str]  # in mvfa/methods/catalog.py

    def __init__(self, form: ScoreForm, side: int, masks: bool, weights: Path) -> None:
        super().__init__()
        self.form = form
        self.side = side
        self.masks = masks
        self.weights = weights

    @property
    def keys(self) -> tuple[str, ...]:
        """Groups of tensors in its checkpoint; none: nothing is trained."""
        return METHODS[self.name].keys

    def aim(self, target: Target) -> Self:
        """Score images of an object from now on: its noun, and whether it has masks."""
        self.masks = target.masks
        return self

    # ---------------------------------------------------------------- images to features

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the backbone."""

    @property
    @abstractmethod
    def feature_shape(self) -> tuple[int, ...] | None:
        """Shape of one image's features; None: it depends on the image, so none are cached."""

    def source(self, images: ImageSource) -> ImageSource:
        """Return an image set as the method reads it: S x S, unless it wants other sizes."""
        return images

    def fit(self, image: Image.Image) -> Tensor:
        """Return an RGB image as `source` would give it: uint8 [3, S, S]."""
        return square(image, self.side)

    @abstractmethod
    def features(self, images: Images) -> Tensor:
        """Compute what training does not change: images uint8, or float32 in [0, 1], to float32.

        Returns [B, *feature_shape] on the method's device.
        """

    def compile_network(self) -> None:
        """Compile what is computed of the features with torch.compile. Raises UserError."""
        raise UserError(f"--compile yes is not for --method {self.name}; leave the flag out")

    # ---------------------------------------------------------------- training

    def support(
        self, shots: Shots, target: ObjectInfo, generator: torch.Generator
    ) -> SupportSource:
        """Return the augmented shots, which are trained on or fill the memory bank.

        `generator` draws what the augmentation leaves to chance.
        """
        return Support(shots, target, self.side)

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Return the trained parameters by name of the optimizer that steps them."""
        return {}

    @property
    def trained_parameters(self) -> int:
        """The number of trained parameters."""
        return sum(values.numel() for group in self.groups().values() for values in group)

    def stepped(self, masked: bool) -> tuple[str, ...]:
        """Return the groups that a step moves; `masked`: whether an image of it has a mask."""
        return tuple(self.groups())

    def loss(
        self, features: Tensor, labels: Tensor, masks: Tensor | None, nouns: Sequence[str]
    ) -> Tensor:
        """Return the loss of each image [B]; its mean over a batch is what a step lowers.

        features [B, *feature_shape], labels [B] 0 or 1, masks [B, S, S] bool or None where the
        images' object has none, nouns: of each image's object. Only of a method that is trained.
        """
        raise TypeError(f"nothing of {self.name} is trained")

    def moved(self) -> None:
        """Forget what was computed from the trained parameters: a step has moved them."""

    def reason(self, features: Tensor) -> str:
        """Return why a loss is not finite, and what to do."""
        return "lower --learning_rate or use --precision fp32"

    def prepare_scores(self) -> None:
        """Compute once what scores need after the last step of training, such as text features."""

    # ---------------------------------------------------------------- scores

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """E, the width of the tokens that are compared."""

    @property
    def bank_levels(self) -> int:
        """Levels of the memory bank; 0: the method has none."""
        return 0

    def bank(self, features: Tensor) -> list[Tensor]:
        """Return the rows that images add to the memory bank: L times [rows, E] of norm 1.

        In the order of the images. Empty for a method without a memory branch.
        """
        return []

    def map_scores(self, *, few: bool) -> bool:
        """Return whether an image's score is the maximum of its map; `few`: with a memory bank.

        MVFA's rule: few-shot with masks (SPEC section 4), unless the recipe scores by patches.
        """
        return self.masks and few and self.form.image_score == "mean"

    def bank_rows(self, image: Tensor) -> int:
        """Return how many rows an image, as `source` gives it, adds to the memory bank."""
        return 0

    @abstractmethod
    def score(
        self, features: Tensor, bank: Sequence[Tensor] | None, *, maps: bool = False
    ) -> dict[str, Tensor]:
        """Return patch values and branch scores of a batch by their names in Predictions.

        bank: L times [M, E], None without a memory branch. `maps`: patch values also where the
        object has no masks.
        """

    # ---------------------------------------------------------------- files

    def state(self) -> State:
        """Return copies of what is trained, on the CPU, by the `keys` of a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what `state` returned."""

    def check(self, state: Mapping[str, Mapping[str, Tensor]], path: Path) -> State:
        """Return what of a checkpoint's groups is the method's. Raises UserError unless it fits."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a detector's file needs besides the backbone and the memory bank."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Return what `load` needs besides the recipe: plain JSON values."""
        return {}
