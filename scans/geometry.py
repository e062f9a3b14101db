"""Where the frames of DICOM files lie, and the affine of a stack of them.

Millimetres are in LPS: x grows to the patient's left, y to the back, z upwards. Source: DICOM PS3.3
C.7.6.2.1.1 (a frame's position, orientation and spacing), C.8.8.3.2 (offsets of dose grids).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.dicom_values import first_number, groups, item

Vector = npt.NDArray[np.float64]

ORIENTATION_TOLERANCE = 1e-3  # of direction cosines, about 0.06 degrees
NOT_SQUARE = 1e-2  # of the products of direction cosines
SAME_PLACE = 1e-3  # millimetres along the normal
UNEVEN = 0.01  # of the mean spacing
ROUNDED = 0.02  # millimetres that positions may be rounded by
TILT = 0.1  # degrees


@dataclass(frozen=True)
class Plane:
    """Where a frame lies.

    Args:
        position: [3] the centre of its first pixel, in millimetres.
        along_row: [3] unit vector in which columns are counted.
        along_column: [3] unit vector in which rows are counted.
        spacing: millimetres between rows, between columns.
        thickness: millimetres to the next frame where there is none to measure.

    """

    position: Vector
    along_row: Vector
    along_column: Vector
    spacing: tuple[float, float]
    thickness: float

    @property
    def normal(self) -> Vector:
        """Unit vector across the frame."""
        return np.cross(self.along_row, self.along_column)

    def turned_from(self, other: "Plane") -> bool:
        """Return whether two frames are not parallel and alike in orientation."""
        first = np.concatenate([self.along_row, self.along_column])
        second = np.concatenate([other.along_row, other.along_column])
        return bool(np.abs(first - second).max() > ORIENTATION_TOLERANCE)

    def spaced_unlike(self, other: "Plane") -> bool:
        """Return whether two frames have pixels of different size."""
        return not np.allclose(self.spacing, other.spacing, rtol=1e-3, atol=0)


def numbers(value: Any, count: int | None) -> Vector | None:
    """Return an attribute as a vector of finite numbers; None if it is not that.

    `count`: how many there must be; None: any number.
    """
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return None
    if count is not None and len(value) != count:
        return None
    try:
        vector = np.array([float(number) for number in value])
    except (TypeError, ValueError):
        return None
    return vector if np.isfinite(vector).all() else None


def find(dataset: Any, k: int, sequence: str, keyword: str, count: int) -> Vector | None:
    """Return an attribute of frame k: from a functional group, else from the file itself."""
    for place in groups(dataset, k):
        inner = item(place, sequence) or place
        vector = numbers(inner.get(keyword), count)
        if vector is not None:
            return vector
    return None


def read_plane(dataset: Any, k: int = 0) -> Plane | None:
    """Return where frame k, from 0, lies; None if the file does not say it.

    Pixels without a size are taken as 1 mm, frames without a distance as 1 mm apart.
    """
    position = find(dataset, k, "PlanePositionSequence", "ImagePositionPatient", 3)
    cosines = find(dataset, k, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    if position is None or cosines is None:
        return None
    along_row = cosines[:3]
    along_column = cosines[3:]
    products = [along_row @ along_row, along_column @ along_column, along_row @ along_column]
    if not np.allclose(products, [1, 1, 0], rtol=0, atol=NOT_SQUARE):
        return None
    along_row = along_row / np.linalg.norm(along_row)
    along_column = along_column / np.linalg.norm(along_column)
    offsets = numbers(dataset.get("GridFrameOffsetVector"), None)  # of dose grids
    if offsets is not None and k < len(offsets):
        position = position + np.cross(along_row, along_column) * (offsets[k] - offsets[0])
    spacing = find(dataset, k, "PixelMeasuresSequence", "PixelSpacing", 2)
    if spacing is None or spacing.min() <= 0:
        spacing = np.ones(2)
    return Plane(
        position,
        along_row,
        along_column,
        (float(spacing[0]), float(spacing[1])),
        read_thickness(dataset, k),
    )


def read_thickness(dataset: Any, k: int) -> float:
    """Return the millimetres from frame k, from 0, to the next as the file states them, else 1."""
    for place in groups(dataset, k):
        inner = item(place, "PixelMeasuresSequence") or place
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            number = first_number(inner.get(keyword))
            if number is not None and 0 < number < np.inf:
                return number
    return 1.0


def heights(planes: Sequence[Plane]) -> Vector:
    """Return how far each frame lies along the normal of the first, in millimetres."""
    return np.array([plane.position @ planes[0].normal for plane in planes])


def stack_affine(planes: Sequence[Plane]) -> Vector:
    """Return the affine [4, 4] from column, row and frame number to millimetres in LPS.

    The last index steps from the first frame to the last in equal parts: exact for even spacing,
    also with a tilted gantry, and the mean otherwise.
    """
    first = planes[0]
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.spacing[1]
    affine[:3, 1] = first.along_column * first.spacing[0]
    affine[:3, 2] = first.normal * first.thickness
    if len(planes) > 1:
        affine[:3, 2] = (planes[-1].position - first.position) / (len(planes) - 1)
    affine[:3, 3] = first.position
    return affine


def stack_notes(planes: Sequence[Plane]) -> list[str]:
    """Return what should be said of a stack of frames: a tilted gantry, uneven spacing."""
    if len(planes) < 2:
        return []
    notes = []
    step = stack_affine(planes)[:3, 2]
    cosine = float(abs(step @ planes[0].normal) / np.linalg.norm(step))
    tilt = float(np.degrees(np.arccos(min(cosine, 1.0))))
    if tilt > TILT:
        notes.append(f"tilted gantry: the slices are sheared by {tilt:.1f} degrees")
    gaps = np.abs(np.diff(heights(planes)))
    mean = gaps.mean()
    if gaps.max() - gaps.min() > max(UNEVEN * mean, ROUNDED):
        notes.append(
            f"uneven spacing: slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart; the "
            f"geometry has the mean, {mean:.4g} mm"
        )
    return notes
