"""Frames of DICOM files, read with pydicom and highdicom (requirements-scans.txt).

A frame is decoded, goes through the modality step of its own functional groups, and is handed on
with its first window, which is applied later (dataset/pixels.py). Letters: H rows, W columns.
"""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dataset.dicom_frames import (
    EXTRA,
    highdicom_image,
    leave_gdcm_the_rest,
    stored_bits,
    stored_frame,
    stored_range,
)
from dataset.dicom_values import read_interest, read_modality, read_window, window_range
from dataset.extras import need
from dataset.layout import is_dicom_name, is_marked, refuse_special
from dataset.pixel_values import Pixels
from dataset.wording import shortened
from errors import UserError

__all__ = [
    "count_frames",
    "is_dicom",
    "is_multiframe",
    "iter_frames",
    "read_frames",
    "read_header",
    "readable",
    "window_range",
]

META_OFFSET = 144  # where the group length of the file's meta information starts to count
DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
MOST_PIXELS = 178_956_970  # of a frame: as many as Pillow opens
MOST_VALUES = 2**31  # of a file, and bytes that a deflated one may have
MOST_DEFLATED = 1032  # bytes that one byte can stand for
CHUNK = 2**20  # bytes


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of reading a DICOM file into UserError, and keep its warnings back."""
    refuse_special(path)
    invalid = need("pydicom.errors", EXTRA).InvalidDicomError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except invalid as error:
        raise UserError(
            f"{path} is no DICOM file; allowed is what DICOM PS3.10 describes, so leave it out"
        ) from error
    except UserError:
        raise
    except Exception as error:  # pydicom, highdicom and the decoders have many
        reason = shortened(str(error).split(" - ")[0]) or type(error).__name__
        raise UserError(
            f"{path} cannot be read as a DICOM image ({reason}); save it uncompressed or as "
            "JPEG 2000, or leave it out"
        ) from error


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its content, or is named so (.dcm, .dicom, .ima)."""
    return is_dicom_name(path) or is_marked(path)


def refuse_bomb(path: Path) -> None:
    """Raise ValueError if a deflated file has more than MOST_VALUES bytes."""
    size = path.stat().st_size
    if size * MOST_DEFLATED <= MOST_VALUES:
        return
    meta = need("pydicom.filereader", EXTRA).read_file_meta_info(path)
    uid = need("pydicom.uid", EXTRA)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    with path.open("rb") as file:
        file.seek(META_OFFSET + meta.FileMetaInformationGroupLength)
        while data := inflater.unconsumed_tail or file.read(CHUNK):
            total += len(inflater.decompress(data, CHUNK))
            if total > MOST_VALUES:
                raise ValueError(f"it inflates to more than {MOST_VALUES} bytes")


def read_dataset(path: Path, *, pixels: bool) -> Any:
    """Read a pydicom dataset, with or without its pixel data. Raises UserError."""
    pydicom = need("pydicom", EXTRA)
    with readable(path):
        refuse_bomb(path)
        dataset = pydicom.dcmread(path, force=is_dicom_name(path), stop_before_pixels=not pixels)
        if dataset.file_meta.get("TransferSyntaxUID") is None:
            dataset.file_meta.TransferSyntaxUID = plain_syntax(*dataset.original_encoding)
    return dataset


def plain_syntax(implicit: bool | None, little: bool | None) -> str:
    """Return the uncompressed transfer syntax that a file was read by."""
    uid = need("pydicom.uid", EXTRA)
    if implicit:
        return str(uid.ImplicitVRLittleEndian)
    return str(uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian)


def read_header(path: Path) -> Any:
    """Read a pydicom dataset without pixel data. Raises UserError."""
    return read_dataset(path, pixels=False)


def is_multiframe(path: Path) -> bool:
    """Return whether a DICOM file says that it has several frames; False if it is unreadable."""
    try:
        with readable(path):
            return count_frames(read_header(path)) != 1
    except UserError:
        return False


def count_frames(dataset: Any) -> int | None:
    """Return the number of frames, 1 if it is not given; None if what is given is no number."""
    try:
        return int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        return None


def frames_by_length(dataset: Any) -> int:
    """Return the number of uncompressed frames by the length of the data, and correct it.

    Raises ValueError if the data is compressed or has no whole number of frames.
    """
    dataset.NumberOfFrames = 1
    frame = need("pydicom.pixels.utils", EXTRA).get_expected_length(dataset)
    frames, rest = divmod(len(dataset.get("PixelData", b"")), frame)
    if dataset.file_meta.TransferSyntaxUID.is_compressed or rest or not frames:
        raise ValueError("its number of frames is no number")
    dataset.NumberOfFrames = frames
    return frames


def check_image(path: Path, dataset: Any) -> int:
    """Check that a dataset is an image of a size that can be read; return its number of frames.

    Raises UserError.
    """
    needed = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
    missing = [keyword for keyword in needed if not dataset.get(keyword)]
    if missing or not any(keyword in dataset for keyword in DATA):
        name = shortened(getattr(dataset.get("SOPClassUID"), "name", "")) or "of no stated kind"
        raise UserError(
            f"{path} holds no image ({name}; {', '.join(missing) or 'pixel data'} missing); "
            "allowed are DICOM files with pixels, so leave it out"
        )
    photometric = dataset.PhotometricInterpretation
    if photometric not in (*GREY, PALETTE, *COLOURS):
        raise UserError(
            f"{path} has colours of the kind {shortened(photometric)}; allowed are "
            f"{', '.join((*GREY, PALETTE, *COLOURS))}"
        )
    frames = count_frames(dataset) or frames_by_length(dataset)
    values = dataset.Rows * dataset.Columns
    total = values * frames * int(dataset.get("SamplesPerPixel") or 1)
    if values > MOST_PIXELS or total > MOST_VALUES or frames < 1:
        raise UserError(
            f"{path} claims {frames} frames of {dataset.Rows} x {dataset.Columns} pixels; at most "
            f"{MOST_PIXELS} pixels a frame and {MOST_VALUES} values a file are read: cut it up"
        )
    return frames


def grey_pixels(dataset: Any, image: Any, k: int, window: tuple[float, float] | None) -> Pixels:
    """Read frame k, from 0, of an image without colours.

    The values are as stored (uint8, uint16, ...) if the modality step changes nothing, else
    float64.
    """
    modality = read_modality(dataset, k)
    values = modality(stored_frame(dataset, image, k))
    full = modality.full(*stored_range(dataset))
    bits = stored_bits(dataset)
    window = window or read_window(dataset, k)
    if window is None:
        table = read_interest(dataset, k, signed=full[0] < 0)
        if table is not None:
            values = table(values).astype(np.uint8 if table.bits <= 8 else np.uint16)
            bits = table.bits
            full = table.full
            window = full
    if values.ndim != 2:
        raise ValueError(f"grey values of shape {values.shape}")
    return Pixels(
        values,
        bits,
        full,
        window,
        inverted=dataset.PhotometricInterpretation == GREY[0],
        modality=shortened(dataset.get("Modality") or ""),
    )


def colour_pixels(dataset: Any, image: Any, k: int) -> Pixels:
    """Read frame k, from 0, of an image with colours. Palettes give 8 bit."""
    values = stored_frame(dataset, image, k)
    bits = stored_bits(dataset)
    if dataset.PhotometricInterpretation == PALETTE:
        look_up = need("pydicom.pixels", EXTRA).apply_color_lut
        every = look_up(np.arange(2**bits, dtype=values.dtype)[None], dataset)
        wide = every.max() > 255  # 16 bit, whose upper byte is the colour
        values = (look_up(values, dataset)[..., :3] >> (8 if wide else 0)).astype(np.uint8)
        bits = 8
    if values.ndim != 3 or values.shape[-1] != 3:
        raise ValueError(f"colours of shape {values.shape}")
    return Pixels(
        values, bits, (0.0, 2.0**bits - 1), modality=shortened(dataset.get("Modality") or "")
    )


def iter_frames(path: Path, window: tuple[float, float] | None = None) -> Iterator[Pixels]:
    """Read the frames of a DICOM file one by one, as `read_frames` does."""
    with readable(path):
        dataset = read_dataset(path, pixels=True)
        frames = check_image(path, dataset)
        grey = dataset.PhotometricInterpretation in GREY
        leave_gdcm_the_rest()
        image = highdicom_image(dataset)
    for k in range(frames):
        with readable(path):
            pixels = (
                grey_pixels(dataset, image, k, window) if grey else colour_pixels(dataset, image, k)
            )
        yield pixels


def read_frames(path: Path, window: tuple[float, float] | None = None) -> list[Pixels]:
    """Read every frame of a DICOM file.

    Values are those after the modality step (CT: Hounsfield units), which is each frame's own in
    enhanced files. `Pixels.window` is the frame's first window; where there is none, the first
    table of the values of interest is applied, and the window is the table's range. MONOCHROME1 is
    not inverted but said (`Pixels.inverted`). Colours (RGB, YBR, palettes) become RGB. Real world
    values, overlays and colour profiles are left alone.

    Args:
        path: the file.
        window: (low, high) to use instead of the file's window or table.

    Raises:
        UserError: the file is not DICOM, has no pixels, is damaged or too large, or no installed
            decoder reads it.

    """
    return list(iter_frames(path, window))
