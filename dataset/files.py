"""Open the image files that Pillow reads: which formats, and what an unreadable file gives."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dataset.layout import refuse_special
from dataset.wording import shortened
from errors import UserError

# Pillow has more, some of which start an interpreter (EPS) or lose bits silently (PPM, JPEG 2000)
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "GIF", "WEBP")
MOST_REASON = 80  # characters of what a library says about a file


def quiet() -> None:
    """Keep back what Pillow warns of: odd tags, and large images that it reads all the same.

    For the whole process, and so in workers, since settings for one block are not safe in threads.
    """
    for category in (UserWarning, Image.DecompressionBombWarning):
        warnings.filterwarnings("ignore", category=category, module=r"PIL\.")


quiet()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of reading an image file into UserError.

    Every error: what a damaged file makes of a decoder (struct.error, MemoryError, RecursionError,
    DecompressionBombError ...) is not documented, and changes with its version.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} is not a readable image ({reason_of(error)}); replace or remove it"
        ) from error


def reason_of(error: Exception) -> str:
    """Return why an image cannot be read, in a few words without its name."""
    if isinstance(error, UnidentifiedImageError):
        return f"its content is none of {', '.join(FORMATS)}"
    said = error.strerror if isinstance(error, OSError) else None
    return shortened(said or str(error).split("\n")[0])[:MOST_REASON] or type(error).__name__


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
    refuse_special(path)
    with readable(path), Image.open(path, formats=FORMATS) as image:
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a JPEG with previews
            refuse_stack(path)
        yield image
