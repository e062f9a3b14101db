"""Check every image and mask of a run before its first step, so that it does not fail after hours.

Letters: S image side in pixels.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from PIL import Image

from dataset.catalog import ANY, HALF
from dataset.folder import Record
from dataset.masks import FOREGROUND, mask_bands, read_mask, same_shape
from dataset.pixels import check_file, resize
from errors import UserError

THREADS = min(8, os.cpu_count() or 1)
SHOWN = 6  # values of a refused mask that the message lists


class MaskContent(NamedTuple):
    """What a mask file contains."""

    marked: bool  # any foreground pixel at its native size
    foreground: bool  # any foreground pixel at the size it is used at
    size: tuple[int, int]  # width and height in pixels


class Content(NamedTuple):
    """What an image file is, and what its mask contains; None: it has no mask."""

    wide: bool  # more than 8 bit
    mask: MaskContent | None


@dataclass(frozen=True)
class Checked:
    """Numbers of a checked set of images."""

    normal: int  # images
    abnormal: int  # images
    masks: int  # mask files
    empty: int  # masks that mark nothing
    foreground: int  # masks with foreground pixels at the size they are used at
    wide: int = 0  # images of more than 8 bit


def check_labels(abnormal: int, normal: int, unit: str) -> None:
    """Raise UserError unless both labels occur; `unit` names what is counted: images or pixels."""
    if not (abnormal and normal):
        raise UserError(
            f"AUROC needs both labels: got {abnormal} abnormal and {normal} normal {unit}; "
            f"check the test folder{' and its masks' if unit == 'pixels' else ''}"
        )


def mask_content(path: Path, side: int, rule: str = HALF) -> MaskContent:
    """Check a mask at its native size and at S x S pixels, S = `side`.

    Foreground is what `load_mask` takes for it by the rule. Raises UserError if a mask marks
    something that is not foreground, which would silently count as background: labels 0 and 1, dark
    palette colours, red on black, shapes in the alpha channel.
    """
    grey = read_mask(path, rule)
    if (np.asarray(grey) > FOREGROUND).any():
        small = np.asarray(resize(grey, side, Image.Resampling.NEAREST))
        return MaskContent(True, bool((small > FOREGROUND).any()), grey.size)
    values, bands, file = mask_bands(path)
    if not values.any() and all((band == band.flat[0]).all() for band in bands):
        return MaskContent(False, False, grey.size)
    present = np.unique(values if values.any() else bands[-1])
    shown = " ".join(f"{value:g}" for value in present[:SHOWN])
    shown += " ..." if len(present) > SHOWN else ""
    kind = "grey values" if values.any() else "black, with values in another channel:"
    needed = f"above {FOREGROUND}" if rule == HALF else "above 0"
    remedy = "save lesions as 255 and background as 0"
    if values.any() and rule == HALF:
        remedy += f", or pass --mask_rule {ANY}, which takes every grey value above 0"
    raise UserError(
        f"{path} marks something, but no pixel is foreground: got {kind} {shown} "
        f"({file}); foreground is a grey value {needed}, so {remedy}"
    )


def check_image(record: Record, side: int) -> Content:
    """Check an image, by its header where that says enough, and its mask. Raises UserError."""
    size, wide = check_file(record.image)
    if record.mask is None:
        return Content(wide, None)
    mask = mask_content(record.mask, side, record.object.mask_rule)
    if not same_shape(mask.size, size):
        refuse_shape(record, mask.size, size)
    return Content(wide, mask)


def refuse_shape(record: Record, mask: tuple[int, int], image: tuple[int, int]) -> NoReturn:
    """Raise UserError for a mask of another aspect ratio than its image; sizes in pixels."""
    turned = "; it fits the image turned by a quarter, and tags that turn images are not applied"
    raise UserError(
        f"{record.mask} has {mask[0]} x {mask[1]} pixels, and its image {record.image} "
        f"{image[0]} x {image[1]}{turned if same_shape(mask, image[::-1]) else ''}; "
        "allowed are masks of the image's aspect ratio, so replace it"
    )


def check_records(
    records: Sequence[Record], side: int, report: Callable[[], object] = lambda: None
) -> Checked:
    """Check all images and masks of a set; `report` is called after each.

    Raises UserError for the first bad one, in the order of the records.
    """
    contents = []
    with ThreadPoolExecutor(THREADS) as pool:
        for content in pool.map(lambda record: check_image(record, side), records):
            contents.append(content)
            report()
    masks = [content.mask for content in contents if content.mask is not None]
    abnormal = sum(record.label for record in records)
    return Checked(
        normal=len(records) - abnormal,
        abnormal=abnormal,
        masks=len(masks),
        empty=sum(not mask.marked for mask in masks),
        foreground=sum(mask.foreground for mask in masks),
        wide=sum(content.wide for content in contents),
    )


def check_scorable(checked: Checked, masks: bool, side: int) -> None:
    """Raise UserError unless AUROCs can be computed: of images and, with masks, of pixels.

    Each needs both labels.
    """
    check_labels(checked.abnormal, checked.normal, "images")
    if masks and not checked.foreground:
        check_labels(0, (checked.normal + checked.abnormal) * side * side, "pixels")
