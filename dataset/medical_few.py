"""Few-shot sets: the K + K shots in eleven versions each, and the test split (SPEC sections 1 and 4)."""

from pathlib import Path

import torch
from torch import Tensor

from dataset.catalog import ObjectInfo
from dataset.folder import (
    LABELS,
    ImageSet,
    Record,
    list_images,
    list_split,
    load_image,
    load_mask,
    object_folder,
)
from dataset.items import Item, pack_mask
from dataset.shots import Shots
from utils import augment

THRESHOLD = 0.5  # of a mask after augmentation


class Support:
    """Training images as an ImageSource: 11 K abnormal versions (if there are any), then 11 K normal ones.

    images [22 K, 3, S, S] float32 in [0, 1]; masks [22 K, S, S] bool; labels [22 K] float32, 1 abnormal.
    """

    def __init__(self, shots: Shots, info: ObjectInfo, side: int) -> None:
        self.side, parts = side, []
        for records in filter(None, (shots.abnormal, shots.normal)):
            images, masks = stack_shots(records, side)
            parts.append((augment(images), augment(masks[:, None])[:, 0] > THRESHOLD))
        self.images, self.masks = (torch.cat(column) for column in zip(*parts, strict=True))
        self.labels = (
            torch.arange(len(self.images)) < len(self.images) - len(parts[-1][0])
        ).float()
        self.masked = torch.full((len(self.images),), info.masks)
        self.nouns = [info.noun] * len(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return Item(self.images[index], pack_mask(self.masks[index]), index)

    @property
    def normal(self) -> list[int]:
        """Indices of the normal versions, which fill the memory bank."""
        return (self.labels == 0).nonzero().squeeze(1).tolist()

    @property
    def abnormal(self) -> list[int]:
        """Indices of the abnormal versions."""
        return (self.labels == 1).nonzero().squeeze(1).tolist()


def stack_shots(records: list[Record], side: int) -> tuple[Tensor, Tensor]:
    """Images [K, 3, S, S] and grey masks [K, S, S], float32 in [0, 1]."""
    images = torch.stack([load_image(r.image, side) for r in records]) / 255
    masks = torch.stack([load_mask(r, side) for r in records]) / 255
    return images, masks


def validation_set(
    data_path: Path, info: ObjectInfo, side: int, shots: Shots | None = None
) -> ImageSet | None:
    """The images of `valid` that are not shots; None unless both labels are among them, of pixels too with masks."""
    if not any(
        list_images(object_folder(data_path, info) / "valid" / state / "img") for state in LABELS
    ):
        return None
    taken = {r.image for r in (*shots.normal, *shots.abnormal)} if shots else set()
    records = [r for r in list_split(data_path, info, "valid") if r.image not in taken]
    found = ImageSet(records, side)
    labels = {r.label for r in records}
    marked = not info.masks or any(
        found.mask(i).any() for i, r in enumerate(records) if r.label
    )  # the first will do
    return found if labels == {0, 1} and marked else None


def evaluation_set(data_path: Path, info: ObjectInfo, side: int) -> ImageSet:
    """The test split of one object; no other object's folder is looked at. UserError if either label is missing."""
    return ImageSet(list_split(data_path, info, "test"), side)
