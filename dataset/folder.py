"""One object's folder: its images, and how they become tensors (SPEC section 1).

    <data>/<name>_AD/<split>/<state>/img            images
    <data>/<name>_AD/<split>/Ungood/anomaly_mask    masks, for objects that have them

A split is valid or test, a state good (normal) or Ungood (abnormal).

Letters: n images of a set, S image side in pixels.
"""

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
LABELS = {"good": 0, "Ungood": 1}  # by state, in the order of the test set
IMAGES = "img"  # folder of a state's images
MASKS = "anomaly_mask"  # folder of a state's masks
WIDE_MODES = ("I", "F")  # Pillow's one-channel modes of more than 8 bit: I, I;16, I;16B ..., F
FOREGROUND = 127  # a mask pixel is foreground above this grey value of 255 (above 0.5)


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
    def mask(self) -> Path | None:
        """The mask file; None for a normal image and for an object without masks."""
        return None if self.mask_name is None else mask_folder(self.folder) / self.mask_name


def object_folder(data_path: Path, name: str) -> Path:
    """Return the folder of an object, which need not exist."""
    return data_path / f"{name}_AD"


def existing_folder(data_path: Path, name: str) -> Path:
    """Return the folder of an object. Raises UserError if there is none."""
    folder = object_folder(data_path, name)
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}; unpack the archive of {name} into {data_path} "
            "or pass --data_path DIR"
        )
    return folder


def image_folder(data_path: Path, name: str, split: str, state: str) -> Path:
    """Return the folder of the images of an object, a split (valid, test) and a state (LABELS)."""
    return object_folder(data_path, name) / split / state / IMAGES


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder, sorted by name; none if the folder does not exist.

    Hidden files are skipped. Raises UserError for the first image that exists but could not be
    listed: a broken link, an image in a subfolder, a folder that cannot be read.
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
    """Return whether a file name has one of SUFFIXES, in upper or lower case."""
    return path.suffix.lower() in SUFFIXES


def check_entry(path: Path) -> None:
    """Raise UserError if an entry of a folder is, or contains, an image that cannot be listed."""
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            nested = sorted(
                name for name in names if not name.startswith(".") and is_image(Path(name))
            )
            if nested:
                image = Path(folder, nested[0])
                raise UserError(f"{image} is an image in a subfolder; move it into {path.parent}")
    elif is_image(path) and not path.is_file():
        kind = "a link that leads nowhere" if path.is_symlink() else "not a regular file"
        raise UserError(f"{path} is {kind}; restore the image or remove it")


def broken_link(path: Path) -> Path | None:
    """Return the first of a path and its parents that is a link without a target, else None."""
    return next((p for p in (path, *path.parents) if p.is_symlink() and not p.exists()), None)


def mask_folder(folder: Path) -> Path:
    """Return the folder of the masks that belong to a folder of images."""
    return folder.with_name(MASKS)


def record(info: ObjectInfo, folder: Path, name: str) -> Record:
    """Return the record of an image in a folder `.../<split>/<state>/img`.

    Raises UserError if the object has masks, the image is abnormal and its mask is missing.
    """
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
    """List the records of `valid` or `test`: good, then Ungood, each sorted by name.

    Raises UserError if there are none, or if the object's folder is missing.
    """
    top = existing_folder(data_path, info.name) / split
    folders = [image_folder(data_path, info.name, split, state) for state in LABELS]
    records = [
        record(info, folder, image.name) for folder in folders for image in list_images(folder)
    ]
    if not records:
        raise UserError(
            f"no images below {top}; expected {' '.join(SUFFIXES)} files "
            f"in {', '.join(map(str, folders))}"
        )
    return records


def resize(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """Resize an image to a square with Pillow, one axis at a time.

    Each pass rounds to 8 bit, so the order of the axes changes the result, and Pillow 13 changed
    that order. The order of version 13, which the reference values were measured with, is fixed
    here, so that no score depends on the installed version.
    """
    width, height = image.size
    vertical_first = height > side and height - side > 2 * (width - side)
    middle = (width, side) if vertical_first else (side, height)
    return image.resize(middle, resample).resize((side, side), resample)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an 8-bit image; its pixels are read on first use.

    Raises UserError if the file cannot be read, also within the context, or if it has more than
    8 bit per pixel, which Pillow would clip.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(WIDE_MODES):
                raise UserError(
                    f"{path} has more than 8 bit a pixel (Pillow mode {image.mode}), which would "
                    "be clipped; allowed are 8-bit images: scale the values to 0..255 and save "
                    "it again"
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
    """Read a file as an array [S, S] (mode "L") or [S, S, 3] ("RGB") uint8, S = `side`.

    Raises UserError if it cannot be read.
    """
    with opened(path) as image:
        return np.array(resize(image.convert(mode), side, resample))


def load_image(path: Path, side: int) -> Tensor:
    """Read an image as RGB [3, S, S] uint8, S = `side`.

    Resized by Pillow's antialiased bicubic filter, ignoring the aspect ratio. Raises UserError.
    """
    pixels = open_image(path, "RGB", side, Image.Resampling.BICUBIC)  # [S, S, 3]
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # [3, S, S]


def load_mask(record: Record, side: int) -> Tensor:
    """Read a grey mask [S, S] uint8, S = `side`, nearest resize; all zero if there is none.

    Pixels above FOREGROUND are foreground. Raises UserError.
    """
    if record.mask is None:
        return torch.zeros(side, side, dtype=torch.uint8)
    return torch.from_numpy(open_image(record.mask, "L", side, Image.Resampling.NEAREST))


class ImageSet:
    """Records as an ImageSource: items of image [3, S, S] uint8, packed mask and index.

    Args:
        records: the images, in the order of the indices.
        side: S, the side in pixels that images and masks are resized to.

    """

    def __init__(self, records: list[Record], side: int) -> None:
        self.records = records
        self.side = side
        self.labels = torch.tensor([float(r.label) for r in records])
        self.masked = torch.tensor([r.object.masks for r in records])
        self.nouns = [r.object.noun for r in records]
        self.empty_masks = 0  # how many a check has counted

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        image = load_image(self.records[index].image, self.side)
        return Item(image, pack_mask(self.mask(index)), index)

    def mask(self, index: int) -> Tensor:
        """Read the mask [S, S] bool of an image, all False if it has none."""
        return load_mask(self.records[index], self.side) > FOREGROUND
