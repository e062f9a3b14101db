"""Open the image files that Pillow reads: which formats, and what an unreadable file gives."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from errors import UserError

# Pillow has more, some of which start an interpreter (EPS) or lose bits silently (PPM, JPEG 2000)
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "GIF", "WEBP")
READ_ERRORS = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of reading an image file into UserError."""
    try:
        yield
    except READ_ERRORS as error:
        reason = str(error).split("\n")[0][:80]
        raise UserError(
            f"{path} is not a readable image ({reason}); replace or remove it"
        ) from error


def refuse_stack(path: Path) -> None:
    """Raise UserError for a file of several images."""
    raise UserError(
        f"{path} holds more than one image (pages, frames); allowed is one image a file, so "
        "save each as a file of its own"
    )


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file that Pillow reads; its pixels are read on first use.

    Raises UserError if the file cannot be read, also within the context, and if it holds several
    images.
    """
    with readable(path), Image.open(path, formats=FORMATS) as image:
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a JPEG with previews
            refuse_stack(path)
        yield image
