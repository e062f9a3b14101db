"""Decoded images, cached on disk: 57 kB are read in a fraction of the time that a file decodes in.

An entry is named after a hash of the image file's bytes and of everything else that the pixels
depend on, so a file that changes, moves or has a twin needs no bookkeeping. Its content is a digest
and the pixels as they are. Whatever is wrong with the folder only costs time.

Letters: S image side in pixels.
"""

import hashlib
import json
import platform
import shutil
import stat
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from PIL import features
from torch import Tensor

from dataset.intensity import DEFAULT, Intensity
from dataset.layout import is_dicom_name
from dataset.pixels import read_rgb, square
from utils import part_of

FORMAT = 1  # of entries and of what this program makes of a file; a change makes them stale
SUFFIX = ".pixels"
DIGEST = 32  # bytes of SHA-256, with which an entry begins
LEAST_FREE = 2**30  # bytes that are left on the disk for what a run writes
# what decodes and resizes: packages, and libraries that Pillow comes with
PACKAGES = (
    *("numpy", "pillow", "opencv-python-headless", "opencv-python"),
    *("opencv-contrib-python-headless", "opencv-contrib-python"),
)
DICOM_PACKAGES = (
    *("pydicom", "highdicom", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-libjpeg"),
    *("pylibjpeg-rle", "pyjpegls", "python-gdcm"),
)
LIBRARIES = ("jpg", "libjpeg_turbo", "libtiff", "webp")


class ImageCache:
    """Images as `dataset.folder.load_image` returns them, decoded once.

    Several processes may use one folder at the same time.

    Args:
        folder: what the entries are in, one folder for each first two digits of a name.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, path: Path, side: int, intensity: Intensity = DEFAULT) -> Tensor:
        """Return an image file as RGB [3, S, S] uint8, S = `side`; decode and write what is new.

        Equal to `load_image` to the bit, and raises the same UserError.
        """
        key = entry_key(path, side, intensity)
        entry = self.folder / key[:2] / f"{key}{SUFFIX}"
        image = read_entry(entry, key, side) if key else None
        if image is None:
            image = square(read_rgb(path, intensity), side)
            if key and entry_key(path, side, intensity) == key:  # not replaced meanwhile
                write_entry(entry, key, image)
        return image


@cache
def versions(dicom: bool) -> dict[str, str | None]:
    """Return versions of what decodes and resizes image files, and the kind of processor."""
    found: dict[str, str | None] = {name: features.version(name) for name in LIBRARIES}
    for name in PACKAGES + DICOM_PACKAGES if dicom else PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found | {"machine": platform.machine()}


def entry_key(path: Path, side: int, intensity: Intensity) -> str:
    """Return the name of an entry: a hash of everything that the pixels depend on.

    Empty for a file that cannot be read, or is none: decoding it says what is wrong.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            return ""
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
    dicom = is_dicom_name(path)
    settings = [FORMAT, content, side, str(intensity), dicom, versions(dicom)]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def digest(key: str, pixels: bytes) -> bytes:
    """Return the digest of an entry, which belongs to one key."""
    return hashlib.sha256(key.encode() + pixels).digest()


def read_entry(path: Path, key: str, side: int) -> Tensor | None:
    """Read the image [3, S, S] of a key; None if the entry is missing or not what was written."""
    sizes = [DIGEST + planes * side**2 for planes in (1, 3)]
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size not in sizes:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    pixels = data[DIGEST:]
    if len(data) not in sizes or digest(key, pixels) != data[:DIGEST]:
        return None
    planes = np.frombuffer(pixels, np.uint8).reshape(-1, side, side)  # [1 or 3, S, S]
    return torch.from_numpy(np.repeat(planes, 3 // len(planes), axis=0))  # [3, S, S]


def write_entry(path: Path, key: str, image: Tensor) -> None:
    """Write an image [3, S, S] uint8, a grey one as one plane, unless that is impossible.

    Nothing is written where the disk is nearly full.
    """
    planes = image.numpy()
    if (planes == planes[:1]).all():
        planes = planes[:1]
    pixels = planes.tobytes()
    data = digest(key, pixels) + pixels
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < LEAST_FREE:
            return
        if path.is_dir() and not path.is_symlink():
            path.rmdir()  # only an empty one can be replaced
        with part_of(path) as part:  # not flushed: the digest tells what a power cut left
            part.write_bytes(data)
            part.replace(path)
