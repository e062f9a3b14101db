"""Files with pixels of more than 8 bit: PNG of 16 bit, TIFF of 9 to 64 bit or floating point.

Pillow drops the low byte of wide colours, and Pillow and OpenCV each get some layouts wrong. What
they get right is read as it is, all else is refused.

Letters: H height, W width in pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from dataset.files import FORMATS, readable, refuse_stack
from errors import UserError

PILLOW = "Pillow"
OPENCV = "OpenCV"
MOST_PIXELS = 178_956_970  # where Pillow stops
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
HEADER = 32  # bytes
PNG_WIDTH = 16  # position of the width, followed by the height
PNG_DEPTH = 24  # position of the bit depth, followed by the colour type
PNG_GREY = (0, 4)  # colour types without and with alpha
# numbers of TIFF tags, and of their values
TIFF_WIDTH = 256
TIFF_HEIGHT = 257
TIFF_BITS = 258
TIFF_COMPRESSION = 259
TIFF_PHOTOMETRIC = 262
TIFF_ORIENTATION = 274
TIFF_SAMPLES = 277
TIFF_PLANAR = 284
TIFF_FORMAT = 339
TIFF_KINDS = {1: "u", 2: "i", 3: "f"}  # sample format to numpy's kind of number
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange rows and columns
WHITE_IS_ZERO = 0
PHOTOMETRICS = (WHITE_IS_ZERO, 1, 2)  # white is zero, black is zero, RGB
SAMPLES = (1, 3, 4)  # grey, RGB, RGB with alpha, which is dropped


@dataclass(frozen=True)
class Wide:
    """How a file stores pixels of more than 8 bit.

    `dtype` is the type of its numbers, `bits` may be fewer than that has (12 of 16), `colour`
    whether it has RGB, `readers` are those that get it right, the first that can is taken.
    """

    dtype: np.dtype[Any]
    bits: int
    size: tuple[int, int]  # width and height in pixels
    colour: bool
    readers: tuple[str, ...]
    inverted: bool = False

    @property
    def full(self) -> tuple[float, float]:
        """The smallest and the largest value of the type; 0 and 1 of floating point."""
        if self.dtype.kind == "f":
            return 0.0, 1.0
        if self.dtype.kind == "i":
            return -(2.0 ** (self.bits - 1)), 2.0 ** (self.bits - 1) - 1
        return 0.0, 2.0**self.bits - 1


def path_is_png(path: Path) -> bool:
    """Return whether a file is PNG, by content."""
    with path.open("rb") as file:
        return file.read(len(PNG)) == PNG


def wide_format(path: Path) -> Wide | None:
    """Return how a file stores pixels of more than 8 bit, by its header; None if they have 8 bit.

    Raises UserError if it cannot be read, and for layouts that no installed reader gets right.
    """
    with readable(path):
        with path.open("rb") as file:
            header = file.read(HEADER)
        if header.startswith(PNG):
            depth, kind = header[PNG_DEPTH : PNG_DEPTH + 2]
            readers = (PILLOW, OPENCV) if kind == PNG_GREY[0] else (OPENCV,)
            size = (
                int.from_bytes(header[PNG_WIDTH : PNG_WIDTH + 4]),
                int.from_bytes(header[PNG_WIDTH + 4 : PNG_WIDTH + 8]),
            )
            wide = Wide(np.dtype(np.uint16), 16, size, kind not in PNG_GREY, readers)
            return wide if depth == 16 else None
        if header.startswith(TIFF):
            return wide_tiff(path, header)
    return None


def wide_tiff(path: Path, header: bytes) -> Wide | None:
    """Return how a TIFF file stores pixels of more than 8 bit; None if they have 8 bit.

    Raises UserError for several pages of them, and for layouts that cannot be read.
    """
    tags = ImageFileDirectory_v2(header[: 16 if 0x2B in header[:4] else 8])  # BigTIFF: 43
    with path.open("rb") as file:
        file.seek(tags.next)
        tags.load(file)
    depths = tags.get(TIFF_BITS, (1,))
    bits = max(depths)
    if tags.get(TIFF_ORIENTATION, 1) in SIDEWAYS and (
        bits > 8 or tags.get(TIFF_COMPRESSION, 1) == 1
    ):  # neither Pillow nor OpenCV gets these right
        raise UserError(
            f"{path} is a TIFF file to be shown turned by a quarter (its tag Orientation); "
            "turn its pixels and save it without the tag"
        )
    if bits <= 8:
        return None
    if tags.next:
        refuse_stack(path)
    kinds = {TIFF_KINDS.get(kind, "?") for kind in tags.get(TIFF_FORMAT, (1,))}
    samples = tags.get(TIFF_SAMPLES, 1)
    photometric = tags.get(TIFF_PHOTOMETRIC, 1)
    number = next((count for count in (2, 4, 8) if bits <= 8 * count), 0)  # bytes
    size = (tags.get(TIFF_WIDTH, 0), tags.get(TIFF_HEIGHT, 0))
    if size[0] * size[1] > MOST_PIXELS:
        raise UserError(f"{path} has more than {MOST_PIXELS} pixels; save a smaller one")
    if (
        not number
        or len(kinds) > 1
        or "?" in kinds
        or len(set(depths)) > 1
        or samples not in SAMPLES
        or photometric not in PHOTOMETRICS
        or (samples > 1 and tags.get(TIFF_PLANAR, 1) != 1)
    ):
        raise UserError(
            f"{path} is a TIFF file of {samples} x {bits} bit in a layout that cannot be read "
            "without loss; save it as grey or RGB of 8, 16 or 32 bit, colours interleaved"
        )
    kind = kinds.pop()
    readers = (OPENCV,) if bits == 8 * number else ()  # packed bits: Pillow
    swapped = kind != "u" and header.startswith(b"MM")  # by Pillow, if they are compressed
    if samples == 1 and not swapped:
        readers = (*readers, PILLOW)
    return Wide(
        np.dtype(f"{kind}{number}"),
        bits,
        size,
        samples > 1,
        readers,
        inverted=photometric == WHITE_IS_ZERO,
    )


def wide_values(path: Path, wide: Wide) -> np.ndarray:
    """Read the pixels of a wide file as they are: [H, W] or [H, W, 3]. UserError."""
    values = None
    for reader in wide.readers:
        if values is None:
            values = READERS[reader](path, wide)
    if values is None or (values.ndim == 3) != wide.colour:
        raise UserError(
            f"{path} has more than 8 bit and is damaged, or in a layout that cannot be read without"
            " loss; save it as grey or RGB of 8, 16 or 32 bit, not compressed, or by deflate or LZW"
        )
    if values.dtype.itemsize == wide.dtype.itemsize:
        return values.view(wide.dtype)  # the file's bits, whatever sign the reader gave them
    return values.astype(wide.dtype)


def pillow_values(path: Path, _: Wide) -> np.ndarray | None:
    """Read grey pixels [H, W] with Pillow, turned as the file says; None if it cannot."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if not image.mode.startswith(("I", "F")):
                return None
            values = np.array(image)
    except UnidentifiedImageError:
        return None
    return values.astype(values.dtype.newbyteorder("="))


def opencv_values(path: Path, wide: Wide) -> np.ndarray | None:
    """Read pixels with OpenCV: [H, W] or [H, W, 3] (red, green, blue).

    None if it cannot.
    """
    import cv2

    data = np.frombuffer(path.read_bytes(), np.uint8)
    log = cv2.utils.logging  # its messages would stand beside the one line of a UserError
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        log.setLogLevel(level)
    if values is None:
        return None
    same_size = values.dtype.itemsize == wide.dtype.itemsize
    if not same_size or (values.dtype.kind == "f") != (wide.dtype.kind == "f"):
        return None  # a type that it does not know comes back narrower
    if values.ndim == 3:  # blue, green, red (and alpha)
        values = values[..., 2::-1] if wide.colour else values[..., 0]
    return np.ascontiguousarray(values)


READERS = {PILLOW: pillow_values, OPENCV: opencv_values}
