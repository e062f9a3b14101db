"""Look at every image and mask that a run will read before its first step, so that nothing fails after hours."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.folder import FOREGROUND, Record, opened, resize
from errors import UserError

THREADS = min(8, os.cpu_count() or 1)
SHOWN = 6  # values of a refused mask that its message names


class MaskContent(NamedTuple):
    """What a mask file holds: anything at all, and a foreground pixel at the size it is used at."""

    marked: bool
    foreground: bool


@dataclass(frozen=True)
class Checked:
    """What a checked set of images holds. `empty`: masks without content; `foreground`: masks with lesion pixels."""

    normal: int
    abnormal: int
    masks: int
    empty: int
    foreground: int


def check_labels(abnormal: int, normal: int, unit: str) -> None:
    """Raise UserError unless both labels occur; `unit` says what is counted, "images" or "pixels"."""
    if not (abnormal and normal):
        raise UserError(
            f"AUROC needs both labels: got {abnormal} abnormal and {normal} normal {unit}; "
            f"check the test folder{' and its masks' if unit == 'pixels' else ''}"
        )


def mask_content(path: Path, side: int) -> MaskContent:
    """Read a mask at its native size. Raises UserError if it holds something, but nothing counts as foreground.

    The rule is that of `load_mask`: grey value above FOREGROUND. Anything else that a mask can hold would be taken for
    background without a word: labels 0 and 1, dark palette colours, red on black, shapes in the alpha channel.
    """
    with opened(path) as image:
        grey = image.convert("L")
        values = np.asarray(grey)
        if (values > FOREGROUND).any():
            small = np.asarray(resize(grey, side, Image.Resampling.NEAREST))
            return MaskContent(marked=True, foreground=bool((small > FOREGROUND).any()))
        bands = [np.asarray(band) for band in image.split()]
    if not values.any() and all((band == band.flat[0]).all() for band in bands):
        return MaskContent(marked=False, foreground=False)
    found = np.unique(values if values.any() else bands[-1])
    shown = " ".join(map(str, found[:SHOWN])) + (" ..." if len(found) > SHOWN else "")
    kind = "grey values" if values.any() else "black, with values in another channel:"
    raise UserError(
        f"{path} marks something, but no pixel is foreground: found {kind} {shown} (mode {image.mode}); "
        f"foreground is a grey value above {FOREGROUND}, so save lesions as 255 and background as 0"
    )


def check_image(record: Record, side: int) -> MaskContent | None:
    """Open an image's header and read its mask; None where the record has no mask. Raises UserError."""
    with opened(record.image):
        pass
    return None if record.mask is None else mask_content(record.mask, side)


def check_records(
    records: Sequence[Record], side: int, report: Callable[[], object] = lambda: None
) -> Checked:
    """Look at all images and masks of a set; `report` is called after each. Raises UserError for the first bad one."""
    contents = []
    with ThreadPoolExecutor(THREADS) as pool:
        for content in pool.map(lambda record: check_image(record, side), records):
            contents.append(content)
            report()
    masks = [content for content in contents if content is not None]
    abnormal = sum(record.label for record in records)
    return Checked(
        normal=len(records) - abnormal,
        abnormal=abnormal,
        masks=len(masks),
        empty=sum(not mask.marked for mask in masks),
        foreground=sum(mask.foreground for mask in masks),
    )


def check_scorable(checked: Checked, masks: bool, side: int) -> None:
    """Raise UserError unless AUROCs of a checked set exist: both labels of images and, with masks, of pixels."""
    check_labels(checked.abnormal, checked.normal, "images")
    if masks:
        check_labels(checked.foreground, checked.normal * side * side, "pixels")
