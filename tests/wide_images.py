"""Files of more than 8 bit. PNG and TIFF are written byte by byte, independent of the readers."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

GREY = 0
COLOUR = 2
GREY_ALPHA = 4
COLOUR_ALPHA = 6
PLANAR = 284  # number of a TIFF tag
FORMATS = {"u": 1, "i": 2, "f": 3}


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk."""
    code = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", code)


def write_png(path: Path, values: np.ndarray, kind: int) -> None:
    """Write [H, W] or [H, W, channels] uint16 as a PNG file of 16 bit."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def write_tiff(
    path: Path,
    values: np.ndarray,
    *,
    photometric: int = 1,
    order: str = "<",
    pages: int = 1,
    more: Iterable[tuple[int, int]] = (),
) -> None:
    """Write [H, W] or [H, W, channels] as a TIFF file of one strip, not compressed.

    `order` is the byte order, `more` are further tags of one short number each.
    """
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = 8 * values.dtype.itemsize
    kind = FORMATS[values.dtype.kind]
    content = bytearray(b"II*\0" if order == "<" else b"MM\0*")
    content += struct.pack(f"{order}I", 8 + len(data)) + data
    for page in range(pages):
        entries = {256: [width], 257: [height], 258: [bits] * channels, 259: [1]}
        entries |= {262: [photometric], 273: [8], 277: [channels], 278: [height]}
        entries |= {279: [len(data)], 339: [kind] * channels}
        entries |= {tag: [value] for tag, value in more}
        after = len(content) + 2 + 12 * len(entries) + 4
        table = b""
        tail = b""
        for tag, numbers in sorted(entries.items()):
            long = tag in (273, 279)
            packed = struct.pack(f"{order}{len(numbers)}{'I' if long else 'H'}", *numbers)
            if len(packed) > 4:
                offset = after + len(tail)
                tail += packed
                packed = struct.pack(f"{order}I", offset)
            head = struct.pack(f"{order}HHI", tag, 4 if long else 3, len(numbers))
            table += head + packed.ljust(4, b"\0")
        following = after + len(tail) if page + 1 < pages else 0
        content += struct.pack(f"{order}H", len(entries)) + table
        content += struct.pack(f"{order}I", following) + tail
    path.write_bytes(content)


def write_dicom(path: Path, values: np.ndarray, **more: object) -> None:
    """Write [H, W] uint8 or uint16 as a DICOM file of 8 or 12 bit; `more` are further attributes.

    A computed radiography image without a window. Needs pydicom.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    image = Dataset()
    image.SOPClassUID = ComputedRadiographyImageStorage
    image.SOPInstanceUID = generate_uid()
    image.StudyInstanceUID = generate_uid()
    image.SeriesInstanceUID = generate_uid()
    image.Modality = "CR"
    image.Rows, image.Columns = values.shape
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelRepresentation = 0
    image.BitsAllocated = 8 * values.dtype.itemsize
    image.BitsStored = 8 if values.dtype.itemsize == 1 else 12
    image.HighBit = image.BitsStored - 1
    image.PixelData = values.tobytes()
    for name, value in more.items():
        setattr(image, name, value)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.save_as(path, enforce_file_format=True)


# 8-bit grey values [H, W] saved as wider files: the suffix, and how
WIDE_COPIES = {
    "12 bit in 16": (".png", lambda path, grey: write_png(path, grey.astype("u2") << 4, GREY)),
    "floats to 1": (".tif", lambda path, grey: write_tiff(path, (grey / 255).astype("f4"))),
    "floats to 4095": (".tif", lambda p, grey: write_tiff(p, (grey * (4095 / 255)).astype("f4"))),
    "DICOM": (".dcm", lambda path, grey: write_dicom(path, grey.astype("u2") << 4)),
    "DICOM, window": (
        ".dcm",
        lambda path, grey: write_dicom(
            path,
            grey.astype("u2") << 4,
            RescaleSlope=2,
            RescaleIntercept=-1000,
            RescaleType="US",
            WindowCenter=[3080.5, 100],  # from -1000 to 7160; the second is not taken
            WindowWidth=[8161, 50],
        ),
    ),
}
