"""Grids of volumes: axes swapped and reversed, resampled to 1 mm, and all of that undone.

Letters: I, J, K a volume's own indices; X, Y, Z those of a grid. Affines go from indices to
millimetres in LPS: x grows to the patient's left, y to the back, z upwards.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.extras import need
from scans.volume import Values, Volume, ras

Affine = npt.NDArray[np.float64]
Shape = tuple[int, ...]

LPS = "LPS"
TOLERANCE = 1e-3  # of 1 mm and of direction cosines
SAME_PLACE = 0.1  # voxels by which corners of one grid may differ


def orientations() -> Any:
    """Import nibabel's module of axis orders and directions. Raises UserError without it."""
    return need("nibabel.orientations", "scans")


def axis_codes(volume: Volume) -> str:
    """Return where a volume's indices grow to, such as "LPS": the nearest of L R, P A, S I each."""
    return "".join(orientations().aff2axcodes(ras(volume.affine)))


class Turned:
    """A volume with its axes swapped and reversed; no value is changed.

    Args:
        volume: the volume.
        codes: where the axes grow to, such as "LPS".

    """

    def __init__(self, volume: Volume, codes: str = LPS) -> None:
        module = orientations()
        own = module.io_orientation(ras(volume.affine))
        wanted = module.axcodes2ornt(codes)
        self._there = module.ornt_transform(own, wanted)
        self._back = module.ornt_transform(wanted, own)
        self.affine: Affine = volume.affine @ module.inv_ornt_aff(self._there, volume.shape)
        self.values = self.turn(volume.values)  # [X, Y, Z], a view

    def turn(self, values: Any) -> Any:
        """Return values [I, J, K] as [X, Y, Z], a view."""
        return orientations().apply_orientation(values, self._there)

    def back(self, values: Values) -> Values:
        """Return values [X, Y, Z] as [I, J, K]."""
        return np.ascontiguousarray(orientations().apply_orientation(values, self._back))


@dataclass(frozen=True)
class Resampled:
    """A volume on a grid of 1 mm along the patient's axes, by linear interpolation.

    Args:
        volume: the volume.
        values: [X, Y, Z] float32; the volume's smallest value where the volume does not reach.
        affine: [4, 4] of the grid.

    """

    volume: Volume
    values: Values
    affine: Affine

    def back(self, values: Values) -> Values:
        """Interpolate values [X, Y, Z], NaN where there are none, at the voxels [I, J, K].

        Linearly among those that are there; NaN where they have less than half of the weight.
        """
        matrix = np.linalg.inv(self.affine) @ self.volume.affine
        known = np.isfinite(values)
        weight = interpolate(known.astype(np.float32), matrix, self.volume.shape)
        total = interpolate(np.where(known, values, np.float32(0)), matrix, self.volume.shape)
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight >= 0.5)


def interpolate(values: Values, matrix: Affine, shape: Shape, outside: float = 0.0) -> Values:
    """Interpolate values linearly at `matrix` times the indices of a grid of a shape."""
    from scipy import ndimage

    found: Values = ndimage.affine_transform(
        values,
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=shape,
        order=1,
        mode="grid-constant",
        cval=outside,
    )
    return found


def spacing(affine: Affine) -> list[float]:
    """Return the three edges of a voxel in mm."""
    return [float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0)]


def is_millimetric(affine: Affine) -> bool:
    """Return whether a grid has voxels of 1 mm along the patient's axes, in the order LPS."""
    return bool(np.abs(affine[:3, :3] - np.eye(3)).max() < TOLERANCE)


def corners(affine: Affine, shape: Shape) -> Affine:
    """Return where the centres of the eight corner voxels lie: [8, 3] in mm."""
    ends = np.array(list(product(*((0, size - 1) for size in shape))), np.float64)
    return ends @ affine[:3, :3].T + affine[:3, 3]


def resample(volume: Volume) -> Resampled:
    """Return a volume on the smallest grid of 1 mm along the patient's axes that holds it."""
    places = corners(volume.affine, volume.shape)
    affine = np.eye(4)
    affine[:3, 3] = places.min(axis=0)
    shape = np.ceil(np.ptp(places, axis=0) - TOLERANCE).astype(int) + 1
    matrix = np.linalg.inv(volume.affine) @ affine
    outside = float(volume.values.min())
    values = interpolate(volume.values, matrix, tuple(shape.tolist()), outside)
    return Resampled(volume, values, affine)


def lay_on(mask: Volume, volume: Volume) -> Values | None:
    """Return a mask's values in the volume's own order [I, J, K]; None if the grids differ.

    One may have its axes swapped and reversed against the other, as a NIfTI file has them that was
    made of a DICOM series.
    """
    module = orientations()
    to_volume = np.linalg.inv(volume.affine) @ mask.affine
    order = module.io_orientation(to_volume)
    values: Values = module.apply_orientation(mask.values, order)
    if values.shape != volume.shape:
        return None
    ours = to_volume @ module.inv_ornt_aff(order, mask.shape)
    apart = corners(ours, values.shape) - corners(np.eye(4), values.shape)
    return values if np.abs(apart).max() < SAME_PLACE else None
