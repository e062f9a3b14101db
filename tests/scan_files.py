"""DICOM files made for tests: single frames, series, enhanced files of several frames."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

AXIAL = [1, 0, 0, 0, 1, 0]  # columns to the left, rows to the back


def dicom_dataset(values: np.ndarray, **attributes) -> Dataset:
    """Return an image of values [H, W], [F, H, W] or [.., H, W, 3] with attributes set over it."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    dataset.Modality = "CT"
    colour = values.shape[-1] == 3
    rows, columns = values.shape[-3:-1] if colour else values.shape[-2:]
    dataset.Rows = rows
    dataset.Columns = columns
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    if values.ndim > (3 if colour else 2):
        dataset.NumberOfFrames = values.shape[0]
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    bits = 8 * values.dtype.itemsize
    dataset.BitsAllocated = bits
    dataset.BitsStored = attributes.get("BitsStored", bits)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write_dicom_file(path: Path, values: np.ndarray, **attributes) -> Path:
    """Write such an image."""
    dataset = dicom_dataset(values, **attributes)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_series(folder: Path, values: np.ndarray, positions, **attributes) -> list[Path]:
    """Write slices [K, H, W] at positions [K, 3] as one series, named in an order of no meaning."""
    folder.mkdir(exist_ok=True)
    attributes = {"ImageOrientationPatient": AXIAL, "PixelSpacing": [2, 1], **attributes}
    names = np.random.default_rng(0).permutation(len(values))
    return [
        write_dicom_file(
            folder / f"{name}.dcm",
            slice_values,
            ImagePositionPatient=[float(number) for number in position],
            **attributes,
        )
        for name, slice_values, position in zip(names, values, positions, strict=True)
    ]


def group(**attributes) -> Dataset:
    """Return a sequence item."""
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def write_enhanced(path: Path, values: np.ndarray, positions, scales, windows) -> Path:
    """Write frames [F, H, W] as an enhanced MR file with each frame's own place and numbers.

    `scales`: slope and intercept of each frame; `windows`: center and width of each frame.
    """
    frames = [
        group(
            PlanePositionSequence=[group(ImagePositionPatient=[float(n) for n in position])],
            PixelValueTransformationSequence=[
                group(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")
            ],
            FrameVOILUTSequence=[group(WindowCenter=center, WindowWidth=width)],
        )
        for position, (slope, intercept), (center, width) in zip(
            positions, scales, windows, strict=True
        )
    ]
    shared = group(
        PlaneOrientationSequence=[group(ImageOrientationPatient=AXIAL)],
        PixelMeasuresSequence=[group(PixelSpacing=[2, 1], SliceThickness=3)],
    )
    return write_dicom_file(
        path,
        values,
        SOPClassUID=EnhancedMRImageStorage,
        Modality="MR",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )
