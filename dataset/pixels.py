"""The one door for the pixels of an image file: what they are, and how they become 8 bit.

Files of 8 bit are read as they are. Wider ones (integers of 16, 32 or 64 bit, floating point) are
never clipped: `--intensity` says which values become black and white. PNG, JPEG, BMP, TIFF, GIF
and WebP are told apart by content, DICOM by its suffix. A file holds one image: stacks are refused.

Letters: H height, W width in pixels, S side of a square.
"""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from dataset.files import opened, readable, refuse_stack
from dataset.intensity import AUTO, FULL, Intensity, to_bytes
from dataset.layout import is_dicom_name, refuse_special
from dataset.pixel_values import Pixels
from dataset.wide import path_is_png, wide_format, wide_values
from errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def read_pixels(path: Path) -> Pixels:
    """Read an image file: PNG, JPEG, BMP, TIFF, GIF, WebP or DICOM.

    Files of 8 bit give uint8: [H, W] for grey, else RGB [H, W, 3], as Pillow converts them. Raises
    UserError if the file cannot be read, holds several images, or has values that are not finite.
    """
    refuse_special(path)
    if is_dicom_name(path):
        pixels = dicom_pixels(path)
    elif (wide := wide_format(path)) is None:
        with opened(path) as image:
            grey = image.mode in ("1", "L")
            values = np.array(image.convert("L" if grey else "RGB"))
        return Pixels(values, 8, (0.0, 255.0))
    else:
        if path_is_png(path):
            with opened(path):  # refuses animations
                pass
        with readable(path):
            pixels = Pixels(wide_values(path, wide), wide.bits, wide.full, inverted=wide.inverted)
    if pixels.values.dtype.kind == "f" and not np.isfinite(pixels.values).all():
        raise UserError(
            f"{path} has values that are not finite (NaN or infinite); replace them by numbers"
        )
    return pixels


def dicom_pixels(path: Path) -> Pixels:
    """Read a DICOM file of one frame. UserError."""
    from dataset.dicom import iter_frames

    frames = list(islice(iter_frames(path), 2))
    if len(frames) > 1:
        refuse_stack(path)
    return frames[0]


def pixels_to_rgb(pixels: Pixels, spec: Intensity) -> Image.Image:
    """Convert pixels to an image of mode RGB.

    Values of 8 bit stay as they are, except for a DICOM window that `spec` "auto" asks for; wider
    values are scaled by `spec`. Fewer than 8 bit fill the range from black to white.
    """
    values = pixels.values
    if pixels.bits < 8 and not pixels.wide:
        values = to_bytes(values, Intensity(FULL), full=pixels.full)
    elif pixels.wide or (pixels.window is not None and spec.kind == AUTO):
        values = to_bytes(values, spec, full=pixels.full, window=pixels.window)
    if pixels.inverted:
        values = 255 - values
    if values.ndim == 2:  # grey
        values = np.repeat(values[..., None], 3, axis=-1)
    return Image.fromarray(np.ascontiguousarray(values))


def read_rgb(path: Path, spec: Intensity) -> Image.Image:
    """Read an image file as an image of mode RGB; wide values are scaled by `spec`.

    A file of 8 bit is `Image.open(path).convert("RGB")`. Raises UserError if it cannot be read.
    """
    if is_dicom_name(path) or wide_format(path) is not None:
        return pixels_to_rgb(read_pixels(path), spec)
    with opened(path) as image:
        return image.convert("RGB")


class Head(NamedTuple):
    """What the header of an image file says."""

    size: tuple[int, int]  # width and height in pixels, as they are read
    wide: bool  # more than 8 bit


def check_file(path: Path) -> Head:
    """Check that an image file can be read, by its header; of DICOM and floating point by all.

    Raises UserError.
    """
    if is_dicom_name(path):
        pixels = read_pixels(path)
        height, width = pixels.values.shape[:2]
        return Head((width, height), pixels.wide)
    wide = wide_format(path)
    if wide is None or path_is_png(path):
        with opened(path) as image:
            return Head(image.size, wide is not None)
    if wide.dtype.kind == "f":
        read_pixels(path)
    return Head(wide.size, wide=True)


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


def square(image: Image.Image, side: int) -> "Tensor":
    """Resize an image of mode RGB to a tensor [3, S, S] uint8, S = `side`.

    Pillow's antialiased bicubic filter, ignoring the aspect ratio.
    """
    import torch  # slow; not every user of this module needs it

    pixels = np.array(resize(image, side, Image.Resampling.BICUBIC))  # [S, S, 3]
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # [3, S, S]
