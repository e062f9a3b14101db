"""Anomaly masks: which pixels of a mask file are foreground.

The rule "half", of the released code: grey values above 127 of 255, in wider files above half of
the range of the type. The rule "any": grey values above 0, for masks of labels 0 and 1.

Letters: H height, W width in pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from dataset.catalog import ANY
from dataset.files import opened
from dataset.layout import is_dicom_name
from dataset.pixels import Pixels, read_pixels
from dataset.wide import wide_format

FOREGROUND = 127  # a mask pixel is foreground above this grey value of 255 (above 0.5)
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey value, as Pillow's


def same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes have one aspect ratio, but for rounding to whole pixels.

    That is, whether one is the other scaled by a factor, each side to within a pixel.
    """
    (width, height), (other_width, other_height) = sorted((size, other), reverse=True)
    return (other_width - 1) * height < (other_height + 1) * width and (
        other_height - 1
    ) * width < (other_width + 1) * height


def is_wide(path: Path) -> bool:
    """Return whether a mask has to be read other than by Pillow: DICOM, more than 8 bit."""
    return is_dicom_name(path) or wide_format(path) is not None


def wide_grey(pixels: Pixels) -> np.ndarray:
    """Return grey values [H, W] float64 of a wide mask, small ones dark."""
    values = pixels.values.astype(np.float64)
    if pixels.inverted:
        values = sum(pixels.full) - values
    return values @ np.array(LUMA) if values.ndim == 3 else values


def read_mask(path: Path, rule: str) -> Image.Image:
    """Read a mask as an image of mode L: values above FOREGROUND are foreground by the rule.

    With the rule "half" a file of 8 bit keeps its grey values; all else becomes 0 and 255. Raises
    UserError if it cannot be read.
    """
    if not is_wide(path):
        with opened(path) as image:
            grey = image.convert("L")
        return grey.point([0] + [255] * 255) if rule == ANY else grey
    pixels = read_pixels(path)
    low, high = pixels.full
    foreground = wide_grey(pixels) > (0 if rule == ANY else (max(low, 0) + high) / 2)
    return Image.fromarray(foreground.astype(np.uint8) * np.uint8(255))


def mask_bands(path: Path) -> tuple[np.ndarray, list[np.ndarray], str]:
    """Return a mask's grey values, its channels, each [H, W], and what kind of file it is.

    Nothing is made foreground or background. UserError.
    """
    if is_wide(path):
        pixels = read_pixels(path)
        channels = pixels.values.reshape(*pixels.values.shape[:2], -1)
        return wide_grey(pixels), list(np.moveaxis(channels, -1, 0)), f"{pixels.bits} bit"
    with opened(path) as image:
        bands = [np.asarray(band) for band in image.split()]
        return np.asarray(image.convert("L")), bands, f"mode {image.mode}"
