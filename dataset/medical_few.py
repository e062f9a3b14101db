"""Few-shot sets: the K + K shots in eleven versions each, and the test split (SPEC sections 1, 4).

Letters: K shots, S image side in pixels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dataset.catalog import ObjectInfo, existing_folder
from dataset.folder import ImageSet, Record, list_split, load_image, load_mask
from dataset.image_cache import ImageCache
from dataset.items import ImageSource, Item, pack_mask
from dataset.layout import LABELS, image_folder, list_images
from dataset.shots import Shots
from utils import augment

THRESHOLD = 0.5  # of a mask after augmentation

# images [K, 3, S, S] and grey masks [K, S, S], float32 in [0, 1], to v versions of each
Versions = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def eleven_versions(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return images [11 K, 3, S, S] and masks [11 K, S, S], transform by transform."""
    return augment(images), augment(masks[:, None])[:, 0]


class SupportSource(ImageSource, Protocol):
    """Shots in `versions` versions each, version by version within a group of one label."""

    versions: int

    @property
    def normal(self) -> list[int]:
        """Indices of the normal versions, which the memory bank is built from."""
        ...

    @property
    def abnormal(self) -> list[int]:
        """Indices of the abnormal versions."""
        ...


class Support:
    """Training images as an ImageSource: v K abnormal versions (if any), then v K normal ones.

    Args:
        shots: the images; there is at least one normal one.
        info: the object.
        side: S, the side in pixels that images are resized to.
        versions: makes the v versions of a group of shots; by default MVFA's eleven.

    Attributes:
        images: [2 v K, 3, S, S] float32 in [0, 1].
        masks: [2 v K, S, S] bool.
        labels: [2 v K] float32, 1 abnormal.
        versions: v.

    """

    def __init__(
        self, shots: Shots, info: ObjectInfo, side: int, versions: Versions = eleven_versions
    ) -> None:
        self.side = side
        images = []
        masks = []
        labels = []
        for label, records in ((1.0, shots.abnormal), (0.0, shots.normal)):
            if not records:
                continue
            group, group_masks = versions(*stack_shots(records, side))
            images.append(group)  # [v K, 3, S, S]
            masks.append(group_masks > THRESHOLD)  # [v K, S, S]
            labels.append(torch.full((len(images[-1]),), label))
        self.images = torch.cat(images)
        self.masks = torch.cat(masks)
        self.labels = torch.cat(labels)
        self.masked = torch.full((len(self.images),), info.masks)
        self.nouns = [info.noun] * len(self.images)
        self.versions = len(self.images) // (len(shots.normal) + len(shots.abnormal))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return Item(self.images[index], pack_mask(self.masks[index]), index)

    @property
    def normal(self) -> list[int]:
        """Indices of the normal versions, which the memory bank is built from."""
        return (self.labels == 0).nonzero().squeeze(1).tolist()

    @property
    def abnormal(self) -> list[int]:
        """Indices of the abnormal versions."""
        return (self.labels == 1).nonzero().squeeze(1).tolist()


def stack_shots(records: list[Record], side: int) -> tuple[Tensor, Tensor]:
    """Read images [K, 3, S, S] and grey masks [K, S, S], float32 in [0, 1]."""
    images = torch.stack([load_image(r.image, side, r.object.intensity) for r in records]) / 255
    masks = torch.stack([load_mask(r, side) for r in records]) / 255
    return images, masks


def validation_set(
    data_path: Path,
    info: ObjectInfo,
    side: int,
    shots: Shots | None = None,
    cache: ImageCache | None = None,
) -> ImageSet | None:
    """Return the images of `valid` that are not shots, to choose a checkpoint by.

    None unless an AUROC can be computed of them: both labels must occur, and with masks at least
    one pixel must be foreground. Raises UserError if the object's folder is missing.
    """
    existing_folder(data_path, info.name)
    folders = [image_folder(data_path, info.name, "valid", state) for state in LABELS]
    if not any(list_images(folder) for folder in folders):
        return None
    taken = {r.image for r in (*shots.normal, *shots.abnormal)} if shots else set()
    records = [r for r in list_split(data_path, info, "valid") if r.image not in taken]
    images = ImageSet(records, side, cache)
    if {r.label for r in records} != {0, 1}:
        return None
    abnormal = [i for i, r in enumerate(records) if r.label]
    if info.masks and not any(images.mask(i).any() for i in abnormal):
        return None
    return images


def evaluation_set(
    data_path: Path, info: ObjectInfo, side: int, cache: ImageCache | None = None
) -> ImageSet:
    """Return the test split of an object. Raises UserError if images or a mask are missing."""
    return ImageSet(list_split(data_path, info, "test"), side, cache)
