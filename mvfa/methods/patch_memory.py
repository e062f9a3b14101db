"""Patch memory on DINOv2 (AnomalyDINO): distances to the patches of a few normal images.

Nothing is trained and no text is read (docs/SPEC_patch_memory.md). Letters: B images, H and W
height and width of an image, h and w its patches, R the most patches of an image of a batch, D
token width, M rows of the memory bank, K shots, S side of masks and maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dataset.catalog import ObjectInfo
from dataset.folder import ImageSet
from dataset.items import ImageSource, joined
from dataset.shots import Shots
from mvfa import scoring
from mvfa.detector_description import damaged
from mvfa.detector_settings import Settings
from mvfa.environment import Environment
from mvfa.methods import catalog
from mvfa.methods.base import Images, Method, Source
from mvfa.methods.dinov2 import DinoV2, load_dino
from mvfa.methods.patch_images import (
    ANGLES,
    NativeImages,
    NormalShots,
    checked_pixels,
    prepared,
)
from mvfa.methods.patch_maps import PatchForm, grid_of
from mvfa.options import Options

ROTATED_OBJECTS = ("Histopathology",)  # whose images have no upright


class PatchMemory(Method):
    """Distances of DINOv2's patch tokens to those of normal images.

    Args:
        tower: the backbone.
        side: S.
        masks: whether the object that is scored has masks.
        rotate: whether normal images are also kept in seven rotations.

    """

    name = catalog.PATCH_MEMORY

    def __init__(self, tower: DinoV2, side: int, masks: bool, rotate: bool) -> None:
        super().__init__(PatchForm("mean", "sum"), side, masks, tower.file)
        self.tower = tower
        self.rotate = rotate

    @property
    def device(self) -> torch.device:
        """The device of the backbone."""
        return self.tower.cls_token.device

    @property
    def feature_shape(self) -> None:
        """None: an image's patches depend on its aspect."""
        return

    def source(self, images: ImageSource) -> ImageSource:
        """Return an image set with images of their own size."""
        return NativeImages(images) if isinstance(images, ImageSet) else images

    def fit(self, image: Image.Image) -> Tensor:
        """Return an RGB image at its own size: uint8 [3, H, W]. Raises UserError."""
        return checked_pixels(image, "the image")

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """Compute the tokens of images, uint8 [3, H, W] each: float32 [B, 1 + R, D].

        Row 0 holds H and W in its first two numbers, the next h * w are unit tokens, the rest is
        zero. Images of one size are computed together.
        """
        shapes = [image.shape[1:] for image in images]
        found: dict[int, Tensor] = {}
        for shape in dict.fromkeys(shapes):
            members = [i for i, own in enumerate(shapes) if own == shape]
            batch = torch.stack([prepared(images[i]) for i in members]).to(self.device)
            tokens = F.normalize(self.tower(batch).float(), dim=-1)  # [b, N, D]
            head = tokens.new_zeros(len(members), 1, tokens.shape[-1])
            head[:, 0, :2] = tokens.new_tensor(shape)
            found |= dict(zip(members, torch.cat([head, tokens], dim=1), strict=True))
        return joined([found[i][None] for i in range(len(shapes))])

    def support(
        self,
        shots: Shots,
        target: ObjectInfo,
        generator: torch.Generator,  # noqa: ARG002  # nothing is drawn
    ) -> NormalShots:
        """Return the normal shots, with their rotations if asked."""
        return NormalShots(shots, target, self.side, ANGLES if self.rotate else ())

    @property
    def embed_dim(self) -> int:
        """D, the width of the tokens."""
        return self.tower.width

    @property
    def bank_levels(self) -> int:
        """One: tokens after the last block."""
        return 1

    def bank(self, features: Tensor) -> list[Tensor]:
        """Return all tokens of some images: [B, 1 + R, D] -> one tensor [rows, D]."""
        rows = [
            own[1 : 1 + count] for own, count in zip(features, counts_of(features), strict=True)
        ]
        return [torch.cat(rows)]

    def map_scores(self, *, few: bool) -> bool:  # noqa: ARG002
        """Return False: an image's score is the mean of its largest distances."""
        return False

    def bank_rows(self, image: Tensor) -> int:
        """Return how many rows an image, uint8 [3, H, W], adds to the memory bank."""
        h, w = grid_of(*image.shape[1:])
        return h * w

    def score(
        self, features: Tensor, bank: Sequence[Tensor] | None, *, maps: bool = False
    ) -> dict[str, Tensor]:
        """Return distances [B, R], sizes [B, 2] and memory scores [B] of a batch."""
        assert bank, "patch memory needs normal images"
        sizes = sizes_of(features)
        distance = features.new_zeros(len(features), features.shape[1] - 1)  # [B, R]
        for i, count in enumerate(counts_of(features)):  # one by one: similarities are large
            own = features[i : i + 1, : 1 + count]  # [1, 1 + h * w, D]
            distance[i, :count] = scoring.memory_distance([own], bank)[0]
        values = {"memory_scores": self.form.memory_score(distance, sizes, self.side)}
        if self.masks or maps:
            values |= {"distance": distance, "sizes": sizes.float()}
        return values

    def settings(self) -> dict[str, Any]:
        """Return what `load` needs."""
        return {"rotate": self.rotate}


def sizes_of(features: Tensor) -> Tensor:
    """Return height and width of images, int64 [B, 2], from their features [B, 1 + R, D]."""
    return features[:, 0, :2].round().long()


def counts_of(features: Tensor) -> list[int]:
    """Return the number of patches h * w of each image, from features [B, 1 + R, D]."""
    return [h * w for h, w in map(grid_of, *sizes_of(features).T.tolist())]


def create(
    options: Options,
    env: Environment,
    target: ObjectInfo,
    generator: torch.Generator,  # noqa: ARG001  # nothing is drawn
) -> PatchMemory:
    """Return the method of a script's options. Raises UserError."""
    tower = load_dino(
        options.model_name, options.clip_path, device=env.device, precision=env.precision
    )
    rotate = target.name in ROTATED_OBJECTS if options.rotate is None else options.rotate
    return PatchMemory(tower, options.img_size, target.masks, rotate)


def load(
    settings: Settings,
    tensors: Mapping[str, Tensor],  # noqa: ARG001  # the memory bank is the detector's
    source: Source,
) -> PatchMemory:
    """Return the method of a detector's file. Raises UserError."""
    tower = load_dino(
        settings.model_name,
        source.weights,
        device=source.device,
        precision=source.precision,
        hash_known=True,  # the detector compares it
    )
    rotate = settings.method_settings.get("rotate")
    if not isinstance(rotate, bool) or settings.setting == "zero":
        raise damaged(source.path, "its settings do not say which normal images it has")
    return PatchMemory(tower, settings.img_size, settings.masks, rotate)
