"""Decoding of one frame of a DICOM file, by highdicom where it takes the file, else by pydicom.

Letters: H rows, W columns. Frames are numbered from 0.
"""

from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.extras import need
from dataset.lossless_jpeg import decode

Array = npt.NDArray[Any]

EXTRA = "scans"
JP2 = b"\x00\x00\x00\x0cjP  "  # starts a JPEG 2000 frame with a header of boxes
OTHERS = (  # decoders of pydicom that have more than GDCM to decode with
    "JPEGBaseline8BitDecoder",
    "JPEGExtended12BitDecoder",
    "JPEGLSLosslessDecoder",
    "JPEGLSNearLosslessDecoder",
    "JPEG2000LosslessDecoder",
    "JPEG2000Decoder",
)


def highdicom_image(dataset: Any) -> Any:
    """Return highdicom's view of a dataset; None if it does not take it (big endian, ...)."""
    highdicom = need("highdicom", EXTRA)
    with suppress(Exception):  # what it does not take is left to pydicom
        return highdicom.Image.from_dataset(dataset, copy=False)
    return None


def leave_gdcm_the_rest() -> None:
    """Decode with GDCM only what no other decoder does (lossless JPEG).

    Its copies of libjpeg and OpenJPEG are old, and print what they find wrong.
    """
    decoders = need("pydicom.pixels.decoders", EXTRA)
    for name in OTHERS:
        decoder = getattr(decoders, name)
        if "gdcm" in decoder.available_plugins and len(decoder.available_plugins) > 1:
            decoder.remove_plugin("gdcm")


def stored_bits(dataset: Any) -> int:
    """Return the bits of a stored value."""
    return int(dataset.get("BitsStored") or dataset.BitsAllocated)


def stored_range(dataset: Any) -> tuple[float, float]:
    """Return the smallest and largest value that may be stored; 0 and 1 of floating point."""
    if "PixelData" not in dataset:
        return 0.0, 1.0
    bits = stored_bits(dataset)
    if dataset.PixelRepresentation:
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def stored_frame(dataset: Any, image: Any, k: int) -> Array:
    """Decode frame k: [H, W] as stored, or RGB [H, W, 3].

    Args:
        dataset: of pydicom.
        image: highdicom's view of it, or None.
        k: number of the frame, from 0.

    Raises:
        ValueError: no decoder reads it.

    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if only_gdcm(dataset):
        return decode(encoded_frame(dataset, k), dataset)
    if syntax in need("pydicom.uid", EXTRA).JPEG2000TransferSyntaxes:
        check_boxes(encoded_frame(dataset, k))
    values = highdicom_frame(image, k)
    if values is not None:
        low, high = stored_range(dataset)
        if values.dtype.kind == "f" or (low <= values.min() and values.max() <= high):
            return values
    # pydicom also masks bits that hold no values, such as those of old overlays
    return pydicom_frame(dataset, k)


def only_gdcm(dataset: Any) -> bool:
    """Return whether GDCM alone decodes a dataset: lossless JPEG."""
    decoders = need("pydicom.pixels", EXTRA)
    syntax = dataset.file_meta.TransferSyntaxUID
    return bool(
        syntax.is_compressed and decoders.get_decoder(syntax).available_plugins == ("gdcm",)
    )


def encoded_frame(dataset: Any, k: int) -> bytes:
    """Return the bytes of frame k of compressed pixel data."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    get_frame = need("pydicom.encaps", EXTRA).get_frame
    return bytes(get_frame(dataset.PixelData, k, number_of_frames=frames))


def check_boxes(frame: bytes) -> None:
    """Raise ValueError for a JP2 frame with a box of length 0, which pydicom never gets past."""
    if not frame.startswith(JP2):
        return
    place = len(JP2) + 4
    while place < len(frame) and frame[place + 4 : place + 8] != b"jp2c":
        length = int.from_bytes(frame[place : place + 4], "big")
        if length == 0:
            raise ValueError("a damaged header of its JPEG 2000")
        place += length


def highdicom_frame(image: Any, k: int) -> Array | None:
    """Decode frame k with highdicom; None if it cannot."""
    with suppress(Exception):  # what it does not take is left to pydicom
        return np.asarray(image.get_stored_frame(k, as_index=True))
    return None


def pydicom_frame(dataset: Any, k: int) -> Array:
    """Decode frame k with pydicom. Raises ValueError if no decoder reads it."""
    try:
        values = need("pydicom.pixels", EXTRA).pixel_array(dataset, index=k)
    except RuntimeError as error:  # its message has a line for each decoder
        syntax = dataset.file_meta.TransferSyntaxUID.name
        bits = dataset.get("BitsStored")
        raise ValueError(f"no installed decoder reads its {syntax}, {bits} bit") from error
    return np.asarray(values, values.dtype.newbyteorder("="))
