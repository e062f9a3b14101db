"""The DICOM files that new objects refer to: their headers, made complete, and where frames lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.dicom import count_frames, read_header, readable
from dataset.extras import need
from errors import UserError
from scans.geometry import read_plane

EXTRA = "scans"
NEEDED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "Rows",
    "Columns",
)
OPTIONAL = (  # the standard allows them to be empty, and files leave them out
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
SEXES = ("M", "F", "O", "")
LETTERS = ("LR", "PA", "HF")  # DICOM's directions, growing and shrinking: x, y, z


@dataclass(frozen=True)
class Source:
    """The frames of a scan.

    Args:
        datasets: headers without pixels, of one file a frame, or of one file of any frames.
        count: number of frames.
        shape: rows and columns.

    """

    datasets: list[Any]
    count: int
    shape: tuple[int, int]

    def of(self, frame: int) -> tuple[Any, int]:
        """Return the header of the file that holds a frame, and the frame's number in it."""
        return (self.datasets[frame], 0) if len(self.datasets) > 1 else (self.datasets[0], frame)

    @property
    def is_placed(self) -> bool:
        """Whether highdicom finds where each frame lies, in a patient or on a slide."""
        first = self.datasets[0]
        if "ImageOrientationSlide" in first:
            return True
        if count_frames(first) != 1 and "SharedFunctionalGroupsSequence" not in first:
            return False  # a dose grid, for example, has one position for all
        return "FrameOfReferenceUID" in first and read_plane(first) is not None

    def placement(self, frame: int) -> dict[str, Any]:
        """Return the attributes that say where a frame lies; none if it has no position."""
        dataset, k = self.of(frame)
        plane = read_plane(dataset, k)
        if plane is None or "FrameOfReferenceUID" not in dataset:
            return {}
        return {
            "FrameOfReferenceUID": dataset.FrameOfReferenceUID,
            "PositionReferenceIndicator": dataset.get("PositionReferenceIndicator"),
            "ImagePositionPatient": decimals(plane.position),
            "ImageOrientationPatient": decimals([*plane.along_row, *plane.along_column]),
            "PixelSpacing": decimals(plane.spacing),
        }

    def patient_orientation(self, frame: int) -> list[str] | None:
        """Return the letters of where rows and columns of a frame run to, as its header says."""
        dataset, k = self.of(frame)
        plane = read_plane(dataset, k)
        if plane is None:
            return dataset.get("PatientOrientation") or None
        letters = []
        for direction in (plane.along_row, plane.along_column):
            axis = int(np.abs(direction).argmax())
            letters.append(LETTERS[axis][int(direction[axis] < 0)])
        return letters

    def reference(self, frame: int) -> Any:
        """Return an item that refers to a frame."""
        dataset, k = self.of(frame)
        item = need("pydicom", EXTRA).Dataset()
        item.ReferencedSOPClassUID = dataset.SOPClassUID
        item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
        if count_frames(dataset) != 1:
            item.ReferencedFrameNumber = k + 1
        return item


def decimals(values: Any) -> list[Any]:
    """Return numbers as DICOM's decimal strings, which have at most 16 characters."""
    decimal = need("pydicom.valuerep", EXTRA).DS
    return [decimal(float(value), auto_format=True) for value in values]


def complete(dataset: Any) -> None:
    """Give a header, in memory, the attributes that may be empty, and empty invalid ones."""
    types = need("pydicom.valuerep", EXTRA)
    for keyword in OPTIONAL:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    if dataset.PatientSex not in (*SEXES, None):
        dataset.PatientSex = None
    checks = {"PatientBirthDate": types.DA, "StudyDate": types.DA, "StudyTime": types.TM}
    for keyword, check in checks.items():
        try:
            check(dataset[keyword].value or None)
        except (TypeError, ValueError):
            setattr(dataset, keyword, None)


def read_source(paths: Sequence[Path]) -> Source:
    """Read the headers of the files of a scan.

    Raises UserError if one cannot be read or has not what references need.
    """
    remedy = "DICOM objects that refer to it cannot be made, so leave out --dicom_out"
    datasets = [read_header(path) for path in paths]
    for path, dataset in zip(paths, datasets, strict=True):
        with readable(path):  # values are converted, which may fail, when they are asked for
            missing = [keyword for keyword in NEEDED if not dataset.get(keyword)]
            if missing:
                raise UserError(f"{path} has no {', '.join(missing)}; {remedy}")
            complete(dataset)
    count = count_frames(datasets[0])
    if count is None:
        raise UserError(f"{paths[0]} has a NumberOfFrames that is no number; {remedy}")
    if len(datasets) > 1:
        count = len(datasets)
    return Source(datasets, count, (int(datasets[0].Rows), int(datasets[0].Columns)))
