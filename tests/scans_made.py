"""DICOM files made up for tests: an oblique CT series, one enhanced file, images without place."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from tests.volumes import rotation

FRAMES = 5
SPACING = (0.7, 0.9)  # between rows, between columns
BETWEEN = 3.0  # mm between frames
TURN = rotation(14.0)[:3, :3]
ORIENTATION = [round(float(x), 6) for x in (*TURN[:, 0], *TURN[:, 1])]


def position(frame: int) -> list[float]:
    """Return where the first pixel of a frame lies; along the normal."""
    return [
        round(float(x), 4) for x in np.array([-50.0, -30.0, 12.0]) + frame * BETWEEN * TURN[:, 2]
    ]


def started(path: Path, storage: str, rows: int, columns: int) -> FileDataset:
    """Return a file with patient, study, series and image attributes, without pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = storage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", storage])
    dataset.PatientID = "P1"
    dataset.PatientName = "Made^Up"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyID = "1"
    dataset.StudyDate = "20260101"
    dataset.StudyTime = "120000"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.Manufacturer = "made up"
    dataset.Modality = "CT" if "CT" in storage.name else "OT"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.Rows = rows
    dataset.Columns = columns
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    return dataset


def numbered(frame: int, rows: int, columns: int) -> np.ndarray:
    """Return pixels of a frame; the first one is the frame's number."""
    pixels = np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns)
    pixels[0, 0] = frame
    return pixels


def series_files(folder: Path, rows: int, columns: int) -> list[Path]:
    """Write an oblique CT series, one file a frame."""
    folder.mkdir()
    paths = []
    for frame in range(FRAMES):
        path = folder / f"{frame}.dcm"
        dataset = started(path, CTImageStorage, rows, columns)
        dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
        dataset.PositionReferenceIndicator = ""
        dataset.InstanceNumber = frame + 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImagePositionPatient = position(frame)
        dataset.ImageOrientationPatient = ORIENTATION
        dataset.PixelSpacing = list(SPACING)
        dataset.SliceThickness = BETWEEN
        dataset.RescaleIntercept = 0
        dataset.RescaleSlope = 1
        dataset.PixelData = numbered(frame, rows, columns).tobytes()
        dataset.save_as(path)
        paths.append(path)
    return paths


def item(**attributes: object) -> Dataset:
    """Return an item of a sequence."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def enhanced_file(path: Path, rows: int, columns: int) -> Path:
    """Write the same scan as one enhanced CT file."""
    dataset = started(path, EnhancedCTImageStorage, rows, columns)
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
    dataset.PositionReferenceIndicator = ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = FRAMES
    measures = item(PixelSpacing=list(SPACING), SliceThickness=BETWEEN)
    values = item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[measures],
            PlaneOrientationSequence=[item(ImageOrientationPatient=ORIENTATION)],
            PixelValueTransformationSequence=[values],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=position(frame))])
        for frame in range(FRAMES)
    ]
    organization = generate_uid()
    dataset.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    dataset.DimensionIndexSequence = []
    frames = [numbered(frame, rows, columns) for frame in range(FRAMES)]
    dataset.PixelData = np.stack(frames).tobytes()
    dataset.save_as(path)
    return path


def plain_file(path: Path, rows: int, columns: int, storage: str, frames: int = 1) -> Path:
    """Write an image, or a loop of several frames, without any position."""
    dataset = started(path, storage, rows, columns)
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = b"".join(numbered(n, rows, columns).tobytes() for n in range(frames))
    dataset.save_as(path)
    return path
