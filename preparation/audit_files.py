"""What the files of a data folder hold: every image and mask is decoded completely, on all cores.

Letters: H height, W width in pixels.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.catalog import HALF
from dataset.files import FORMATS, opened, readable
from dataset.layout import is_dicom_name
from dataset.masks import FOREGROUND, mask_bands, read_mask
from dataset.pixels import Pixels, read_pixels, resize
from errors import UserError

SIDE = 240  # the default side that images and masks are resized to
MOST_GREYS = 256  # of a mask of more than 8 bit, which may have thousands


class Task(NamedTuple):
    """A file to look at; `rule` is the mask rule of a mask, "" for an image."""

    path: Path
    rule: str


@dataclass(frozen=True)
class ImageFacts:
    """What an image file holds.

    Args:
        problem: why it cannot be read; "" if it can, and the rest is meaningful.
        pages: whether the problem is that it holds several images.
        size: width and height in pixels.
        mode: Pillow's mode of 8-bit files; else colour and depth, such as "grey 16 bit".
        wide: whether it has more than 8 bit.
        low: smallest value.
        high: largest value.
        digest: SHA-256 of the decoded pixels, the same for every file format that keeps them, and
            for grey pixels stored as RGB.

    """

    problem: str = ""
    pages: bool = False
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    wide: bool = False
    low: float = 0.0
    high: float = 0.0
    digest: bytes = b""


@dataclass(frozen=True)
class MaskFacts:
    """What a mask file holds.

    Args:
        problem: why it cannot be read; "" if it can, and the rest is meaningful.
        size: width and height in pixels.
        greys: pixels of each grey value.
        foreground: pixels that are foreground by the mask rule.
        above: pixels above 0, which the mask rule "any" counts.
        dropped: those of them that the mask rule "half" leaves out.
        other_channel: whether it is black, with shapes in a channel that grey values do not show.
        vanishes: whether no foreground is left at the size masks are used at.

    """

    problem: str = ""
    size: tuple[int, int] = (0, 0)
    greys: dict[float, int] = field(default_factory=dict)
    foreground: int = 0
    above: int = 0
    dropped: int = 0
    other_channel: bool = False
    vanishes: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing is marked."""
        return not (self.problem or self.foreground or self.other_channel or self.marked)

    @property
    def marked(self) -> int:
        """Pixels that are not black."""
        return sum(count for grey, count in self.greys.items() if grey)


def content_digest(pixels: Pixels) -> bytes:
    """Return a SHA-256 of pixel values, whatever file format and type of number held them."""
    values = pixels.values
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if pixels.wide:
        values = values.astype("<f8")
    digest = hashlib.sha256(f"{values.shape} {values.dtype.str} {pixels.inverted} ".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


def pillow_mode(path: Path) -> str:
    """Return Pillow's mode of an image file of 8 bit."""
    with opened(path) as image:
        return image.mode


def has_pages(path: Path) -> bool:
    """Return whether a file holds several images."""
    try:
        with readable(path), Image.open(path, formats=FORMATS) as image:
            return getattr(image, "n_frames", 1) > 1
    except UserError:
        return False


def look_at_image(path: Path) -> ImageFacts:
    """Decode an image file and say what it holds."""
    try:
        pixels = read_pixels(path)
        dicom = is_dicom_name(path)
        if dicom or pixels.wide:
            colour = "RGB" if pixels.values.ndim == 3 else "grey"
            number = " float" if pixels.values.dtype.kind == "f" else ""
            mode = f"{'DICOM ' * dicom}{colour} {pixels.bits} bit{number}"
        else:
            mode = pillow_mode(path)
    except UserError as error:
        return ImageFacts(problem=reason(error, path), pages=has_pages(path))
    values = pixels.values
    height, width = values.shape[:2]
    return ImageFacts(
        size=(width, height),
        mode=mode,
        wide=pixels.wide,
        low=float(values.min()),
        high=float(values.max()),
        digest=content_digest(pixels),
    )


def look_at_mask(path: Path, rule: str) -> MaskFacts:
    """Decode a mask file and say what it holds; foreground is what the rule takes for it."""
    try:
        grey = read_mask(path, rule)
        half = grey if rule == HALF else read_mask(path, HALF)
        values, bands, _ = mask_bands(path)
    except UserError as error:
        return MaskFacts(problem=reason(error, path))
    foreground = int((np.asarray(grey) > FOREGROUND).sum())
    present, counts = np.unique(values, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MOST_GREYS]
    small = np.asarray(resize(grey, SIDE, Image.Resampling.NEAREST)) > FOREGROUND
    return MaskFacts(
        size=grey.size,
        greys={float(present[i]): int(counts[i]) for i in sorted(most)},
        foreground=foreground,
        above=int((values > 0).sum()),
        dropped=int(((values > 0) & (np.asarray(half) <= FOREGROUND)).sum()),
        other_channel=not values.any() and any((band != band.flat[0]).any() for band in bands),
        vanishes=foreground > 0 and not small.any(),
    )


def reason(error: UserError, path: Path) -> str:
    """Return why a file cannot be read: without its name, and then without the usual remedy."""
    text = str(error)
    return text.removeprefix(f"{path} ").split("; ")[0] if text.startswith(str(path)) else text


def look(task: Task) -> ImageFacts | MaskFacts:
    """Look at one file."""
    return look_at_mask(task.path, task.rule) if task.rule else look_at_image(task.path)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def look_at_all(
    tasks: Sequence[Task], jobs: int, report: Callable[[], object] = lambda: None
) -> list[ImageFacts | MaskFacts]:
    """Look at every file, with `jobs` threads; `report` is called after each file.

    Threads are enough: decoding, comparing and hashing let others run. Returns what was found, in
    the order of the tasks.
    """
    found = []
    with ThreadPoolExecutor(jobs) as pool:
        for facts in pool.map(look, tasks):
            found.append(facts)
            report()
    return found
