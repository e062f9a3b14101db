"""One object's folder: which images there are, and how they become tensors (SPEC section 1)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dataset.catalog import ObjectInfo
from dataset.items import Item, pack_mask
from errors import UserError

SUFFIXES = (".png", ".jpeg", ".jpg", ".bmp", ".tif", ".tiff")
LABELS = {"good": 0, "Ungood": 1}  # in test order
WIDE_MODES = ("I", "F")  # Pillow's one-channel modes of more than 8 bit: I, I;16, I;16B ..., F
FOREGROUND = 127  # a mask pixel is foreground above this grey value of 255 (above 0.5)


@dataclass(frozen=True, slots=True)
class Record:
    """One image on disk. It is told by names in a folder that many share, as a path takes five times their memory."""

    folder: Path  # .../<split>/<good or Ungood>/img
    name: str
    mask_name: str | None
    label: int
    object: ObjectInfo

    @property
    def image(self) -> Path:
        """Its file."""
        return self.folder / self.name

    @property
    def mask(self) -> Path | None:
        """The file of its mask, None where every mask pixel is background or where the object has no masks."""
        return None if self.mask_name is None else mask_folder(self.folder) / self.mask_name


def object_folder(data_path: Path, info: ObjectInfo) -> Path:
    """The folder of an object. UserError if it is not there."""
    folder = data_path / f"{info.name}_AD"
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}; unpack the archive of {info.name} into {data_path} or pass --data_path DIR"
        )
    return folder


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder, sorted by name; none if the folder is missing. Hidden files are left out.

    Raises UserError, naming the first of them, for images that are there but would be left out: links that lead
    nowhere, images in subfolders, a folder that cannot be read.
    """
    if not folder.is_dir():
        if (broken := broken_link(folder)) is not None:
            raise UserError(
                f"{broken} is a link that leads nowhere; restore what it points to or remove it"
            )
        if folder.exists():
            raise UserError(f"{folder} is a file, not a folder of images; replace it")
        return []
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for path in entries:
            check_entry(path)
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror}); change its permissions"
        ) from error
    return [path for path in entries if is_image(path) and path.is_file()]


def is_image(path: Path) -> bool:
    """Return whether a file's name is that of an image."""
    return path.suffix.lower() in SUFFIXES


def check_entry(path: Path) -> None:
    """Raise UserError if an entry of a folder of images is, or hides, an image that would be left out."""
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            nested = sorted(
                name for name in names if not name.startswith(".") and is_image(Path(name))
            )
            if nested:
                raise UserError(
                    f"{Path(folder, nested[0])} is an image in a subfolder; move it into {path.parent}"
                )
    elif is_image(path) and not path.is_file():
        kind = "a link that leads nowhere" if path.is_symlink() else "not a regular file"
        raise UserError(f"{path} is {kind}; restore the image or remove it")


def broken_link(path: Path) -> Path | None:
    """Return the path or the first of its parents that is a link without a target, None if there is none."""
    return next((p for p in (path, *path.parents) if p.is_symlink() and not p.exists()), None)


def mask_folder(folder: Path) -> Path:
    """Where the masks of a folder of images lie."""
    return folder.with_name("anomaly_mask")


def record(info: ObjectInfo, folder: Path, name: str) -> Record:
    """The record of an image in .../<split>/<good or Ungood>/img. UserError if its mask is missing."""
    label = LABELS[folder.parent.name]
    if not (info.masks and label):
        return Record(folder, name, None, label, info)
    masks = mask_folder(folder)
    if (masks / name).is_file():
        return Record(folder, name, name, label, info)
    same_stem = sorted(path.name for path in masks.glob("*") if path.stem == Path(name).stem)
    if not same_stem:
        raise UserError(
            f"no mask {masks / name} for {folder / name}; a mask has its image's file name"
        )
    return Record(folder, name, same_stem[0], label, info)


def list_split(data_path: Path, info: ObjectInfo, split: str) -> list[Record]:
    """Records of `valid` or `test`: good, then Ungood, each sorted by name. UserError if there are none."""
    top = object_folder(data_path, info) / split
    folders = [top / state / "img" for state in LABELS]
    records = [
        record(info, folder, image.name) for folder in folders for image in list_images(folder)
    ]
    if not records:
        raise UserError(
            f"no images below {top}; expected {' '.join(SUFFIXES)} files in {', '.join(map(str, folders))}"
        )
    return records


def resize(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """Pillow's resize to a square, one axis at a time.

    Each pass rounds to 8 bit, so their order shows in the result, and it changed with Pillow 13. The order of version
    13, which the reference figures were measured with, is spelled out so that no score depends on the installed one.
    """
    width, height = image.size
    vertical_first = height > side and height - side > 2 * (width - side)
    middle = (width, side) if vertical_first else (side, height)
    return image.resize(middle, resample).resize((side, side), resample)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image whose values are of 8 bit; its pixels are read when they are used.

    Raises UserError if the file cannot be read, then or within, or if Pillow would clip its values to 8 bit.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(WIDE_MODES):
                raise UserError(
                    f"{path} has more than 8 bit a pixel (Pillow mode {image.mode}), which would be clipped; "
                    f"allowed are 8-bit images: scale the values to 0..255 and save it again"
                )
            yield image
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise UserError(
            f"{path} is not a readable image ({str(error)[:80]}); replace or remove it"
        ) from error


def open_image(path: Path, mode: str, side: int, resample: Image.Resampling) -> np.ndarray:
    """Read a file as an 8-bit array [side, side] or [side, side, 3]. Raises UserError if it cannot be read."""
    with opened(path) as image:
        return np.array(resize(image.convert(mode), side, resample))


def load_image(path: Path, side: int) -> Tensor:
    """RGB image [3, side, side] uint8, resized by Pillow's antialiased bicubic filter, aspect ratio not kept."""
    return (
        torch.from_numpy(open_image(path, "RGB", side, Image.Resampling.BICUBIC))
        .permute(2, 0, 1)
        .contiguous()
    )


def load_mask(record: Record, side: int) -> Tensor:
    """Grey mask [side, side] uint8, nearest resize; all zero where the record has none. Foreground > FOREGROUND."""
    if record.mask is None:
        return torch.zeros(side, side, dtype=torch.uint8)
    return torch.from_numpy(open_image(record.mask, "L", side, Image.Resampling.NEAREST))


class ImageSet:
    """Records as items of streams.ImageSource: image [3, S, S] uint8, packed mask, index."""

    def __init__(self, records: list[Record], side: int) -> None:
        self.records, self.side = records, side
        self.labels = torch.tensor([float(r.label) for r in records])
        self.masked = torch.tensor([r.object.masks for r in records])
        self.nouns = [r.object.noun for r in records]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        return Item(
            load_image(self.records[index].image, self.side), pack_mask(self.mask(index)), index
        )

    def mask(self, index: int) -> Tensor:
        """Mask [S, S] bool of an image, empty where it has none."""
        return load_mask(self.records[index], self.side) > FOREGROUND
