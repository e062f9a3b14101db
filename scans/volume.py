"""A volume, its slices as a viewer shows them, and maps of slices put back where they belong.

Letters: I, J, K the volume's own indices; n slices of H rows and W columns. Millimetres are in LPS,
DICOM's directions: x grows to the patient's left, y to the back, z upwards.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataset.extras import need
from dataset.pixel_values import Pixels
from errors import UserError

Values = npt.NDArray[np.float32]

AXES = ("axial", "coronal", "sagittal", "acquired")
NIFTI = "nifti"
DICOM = "dicom"
DEFAULT_AXIS = {NIFTI: "axial", DICOM: "acquired"}
# which way slice numbers, rows and columns grow: Left, Posterior, Superior, Inferior
SHOWN = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
MOST_VALUES = 2**31  # of a volume, 8 GiB of float32


@dataclass(frozen=True)
class Volume:
    """A scan and where it lies.

    Args:
        values: [I, J, K] float32 in the file's own order of indices (DICOM: column, row, slice,
            the slices sorted along their normal), finite; [I, J, K, 3] for colour.
        affine: [4, 4] float64, from indices to millimetres in LPS.
        kind: "nifti" (any format that nibabel reads) or "dicom".
        paths: the files, of a DICOM series in the order of the slices.
        modality: DICOM's, such as "CT"; "" for other files.
        window: (low, high) of a DICOM file's first window; None if there is none.
        inverted: small values are bright (MONOCHROME1).
        full: smallest and largest value of the stored type; of floating point, of the volume.
        bits: bits of a stored value.
        notes: what should be said about it: oblique, gantry tilt, uneven spacing ...
        frames: of one DICOM file of several frames, the number from 0 of the frame at each k; empty
            for others.

    """

    values: Values
    affine: npt.NDArray[np.float64]
    kind: str
    paths: tuple[Path, ...]
    modality: str = ""
    window: tuple[float, float] | None = None
    inverted: bool = False
    full: tuple[float, float] = (0.0, 1.0)
    bits: int = 32
    notes: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of indices I, J, K."""
        i, j, k = self.values.shape[:3]
        return i, j, k

    def in_frames(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn values [I, J, K] into frames [K, J, I] (rows, columns) in the order of the files.

        That is the order of `paths`, or of the frames in the one file.
        """
        frames = values.transpose(2, 1, 0)
        if self.frames:
            frames = frames[np.argsort(self.frames)]
        return np.ascontiguousarray(frames)

    @property
    def bytes_as_stored(self) -> bool:
        """Whether the values are the unsigned bytes of the files."""
        return self.bits <= 8 and self.full == (0.0, 2.0**self.bits - 1)


def ras(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turn an affine from LPS to RAS, nibabel's directions, or back."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def finite_values(path: Path, values: Values) -> tuple[Values, str]:
    """Replace NaN and infinite values by the smallest finite one; return that and a note.

    The note is "" where all are finite. Raises UserError if none is.
    """
    good = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(good))
    if not bad:
        return values, ""
    if bad == values.size:
        raise UserError(f"{path} has no finite value; leave it out")
    least = values[good].min()
    return np.where(good, values, least), (
        f"{bad} values are NaN or infinite; they are read as the smallest finite value, {least:g}"
    )


class Slices:
    """The slices of a volume along an axis, as a viewer shows them.

    Which index of the file comes nearest to which direction of the patient is read from the affine;
    nothing is interpolated. Slice numbers, rows and columns grow:

        axial      up; to the back; to the patient's left
        coronal    to the back; down; to the patient's left
        sagittal   to the patient's left; down; to the back
        acquired   along the last index; the second; the first (DICOM: as the files are)

    Args:
        volume: the volume.
        axis: one of AXES; None: axial for NIfTI, acquired for DICOM.

    """

    def __init__(self, volume: Volume, axis: str | None = None) -> None:
        axis = axis or DEFAULT_AXIS[volume.kind]
        if axis not in AXES:
            raise UserError(f"axis {axis!r}; allowed are {', '.join(AXES)}")
        orientations = need("nibabel.orientations", "scans")
        self.axis = axis
        self._apply = orientations.apply_orientation
        own = orientations.io_orientation(ras(volume.affine))
        if axis == "acquired":
            there = back = np.array([[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])  # its own inverse
        else:
            shown = orientations.axcodes2ornt(SHOWN[axis])
            there = orientations.ornt_transform(own, shown)
            back = orientations.ornt_transform(shown, own)
        self._back = back
        self._stack = self._apply(volume.values, there)  # [n, H, W(, 3)], a view

    def __len__(self) -> int:
        return int(self._stack.shape[0])

    def __getitem__(self, k: int) -> Values:
        """Return slice k: [H, W] float32, or [H, W, 3] for colour."""
        return np.ascontiguousarray(self._stack[k])

    def place(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Put maps [n, H, W] of the slices back into the volume's own order: [I, J, K]."""
        if maps.shape != self._stack.shape[:3]:
            raise ValueError(f"maps of shape {maps.shape} for slices {self._stack.shape[:3]}")
        return np.ascontiguousarray(self._apply(maps, self._back))


def slice_pixels(volume: Volume, slices: Slices, k: int) -> Pixels:
    """Return slice k of a volume as the pixels of an image.

    A volume of unsigned bytes gives uint8, which stays as it is; others give float32.
    """
    values = slices[k]
    return Pixels(
        values.astype(np.uint8) if volume.bytes_as_stored else values,
        volume.bits,
        volume.full,
        volume.window,
        volume.inverted,
        volume.modality,
    )
