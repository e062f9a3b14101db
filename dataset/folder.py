"""Records of an object's images and masks, and how they become tensors (SPEC section 1).

Letters: n images of a set, S image side in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataset.cases import Place
from dataset.catalog import ObjectInfo, existing_folder
from dataset.image_cache import ImageCache
from dataset.intensity import DEFAULT, Intensity
from dataset.items import Item, pack_mask
from dataset.layout import (
    LABELS,
    SUFFIXES,
    image_folder,
    list_images,
    mask_folder,
    name_other_files,
    other_files,
)
from dataset.mask_files import find_masks
from dataset.masks import FOREGROUND, read_mask
from dataset.pixels import read_rgb, resize, square
from errors import UserError


@dataclass(frozen=True, slots=True)
class Record:
    """One image on disk.

    Stored as names in a folder that many records share: a path of its own takes five times as much
    memory.
    """

    folder: Path  # <data>/<name>_AD/<split>/<state>/img
    name: str
    mask_name: str | None
    label: int
    object: ObjectInfo

    @property
    def image(self) -> Path:
        """The image file."""
        return self.folder / self.name

    @property
    def top(self) -> Path:
        """The object's folder."""
        return self.folder.parents[2]

    @property
    def mask(self) -> Path | None:
        """The mask file; None for a normal image and for an object without masks."""
        return None if self.mask_name is None else mask_folder(self.folder) / self.mask_name


def make_records(info: ObjectInfo, folder: Path, names: Sequence[str]) -> list[Record]:
    """Return the records of images in a folder `.../<split>/<state>/img`, in their order.

    Raises UserError if the object has masks, the images are abnormal and one's mask is missing, or
    unclear, see dataset/mask_files.py.
    """
    label = LABELS[folder.parent.name]
    masks: Sequence[str | None] = [None] * len(names)
    if info.masks and label and names:
        masks = find_masks(folder, names)
    return [
        Record(folder, name, mask, label, info) for name, mask in zip(names, masks, strict=True)
    ]


def list_split(data_path: Path, info: ObjectInfo, split: str) -> list[Record]:
    """List the records of `valid` or `test`: good, then Ungood, each sorted by name.

    Raises UserError if there are none, or if the object's folder is missing.
    """
    top = existing_folder(data_path, info.name) / split
    folders = [image_folder(data_path, info.name, split, state) for state in LABELS]
    records = [
        record
        for folder in folders
        for record in make_records(info, folder, [image.name for image in list_images(folder)])
    ]
    if not records:
        others = name_other_files(other_files(folders))
        raise UserError(
            f"no images below {top}; expected {' '.join(SUFFIXES)} files "
            f"in {', '.join(map(str, folders))}{', found ' * bool(others)}{others}"
        )
    return records


def load_image(path: Path, side: int, intensity: Intensity = DEFAULT) -> Tensor:
    """Read an image as RGB [3, S, S] uint8, S = `side`, see `square`.

    Values of more than 8 bit are scaled by `intensity`. Raises UserError.
    """
    return square(read_rgb(path, intensity), side)


def load_mask(record: Record, side: int) -> Tensor:
    """Read a grey mask [S, S] uint8, S = `side`, nearest resize; all zero if there is none.

    Pixels above FOREGROUND are foreground. Raises UserError.
    """
    if record.mask is None:
        return torch.zeros(side, side, dtype=torch.uint8)
    grey = read_mask(record.mask, record.object.mask_rule)
    return torch.from_numpy(np.array(resize(grey, side, Image.Resampling.NEAREST)))


class ImageSet:
    """Records as an ImageSource: items of image [3, S, S] uint8, packed mask and index.

    Args:
        records: the images, in the order of the indices.
        side: S, the side in pixels that images and masks are resized to.
        cache: what keeps decoded images on disk; None: each is decoded whenever it is read.

    """

    def __init__(self, records: list[Record], side: int, cache: ImageCache | None = None) -> None:
        self.records = records
        self.side = side
        self.cache = cache
        self.labels = torch.tensor([float(r.label) for r in records])
        self.masked = torch.tensor([r.object.masks for r in records])
        self.nouns = [r.object.noun for r in records]
        # what a check has counted
        self.empty_masks = 0
        self.wide_images = 0  # of more than 8 bit
        # of a test set one for each image, see dataset/cases.py
        self.places: list[Place] = []

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        record = self.records[index]
        load = load_image if self.cache is None else self.cache.load
        image = load(record.image, self.side, record.object.intensity)
        return Item(image, pack_mask(self.mask(index)), index)

    def mask(self, index: int) -> Tensor:
        """Read the mask [S, S] bool of an image, all False if it has none."""
        return load_mask(self.records[index], self.side) > FOREGROUND
