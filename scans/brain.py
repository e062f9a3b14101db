"""FLAIR volumes as BMAD's pictures of Brain show them (docs/slices.md)."""

import numpy as np
import numpy.typing as npt

from scans.bmad import brain_picture
from scans.grids import Turned, is_millimetric, resample, spacing
from scans.volume import Values, Volume

SIDE = 240  # of a picture, mm
BRATS = (240, 240, 155)  # voxels of 1 mm of the volumes that BMAD took
BRATS_SLICES = (60, 99)  # first and last that BMAD took
EMPTY_SHARE = 0.3  # of a skull-stripped volume, at least, has its smallest value


class Brain:
    """Slices of 1 mm, 240 x 240, in the colour map "bone".

    A slice is not transposed: rows run from the patient's right to the left, columns from front to
    back. A volume of 1 mm is turned, others are interpolated; the middle is cut out of wider ones.

    Args:
        volume: [I, J, K], FLAIR, skull-stripped.

    """

    def __init__(self, volume: Volume) -> None:
        turned = Turned(volume)
        self.is_exact = is_millimetric(turned.affine)
        self.grid = turned if self.is_exact else resample(volume)
        self.values: Values = self.grid.values  # [X, Y, Z]
        self.count = self.values.shape[2]
        self.low = volume.values.min()
        self.is_brats = self.is_exact and self.values.shape == BRATS
        self.chosen = BRATS_SLICES if self.is_brats else (0, self.count - 1)
        self.notes = (*self.grid_notes(volume), *self.content_notes(volume))

    def grid_notes(self, volume: Volume) -> list[str]:
        """Return what should be said about how the slices are made."""
        notes = []
        if not self.is_exact:
            edges = " x ".join(f"{edge:.3g}" for edge in spacing(volume.affine))
            notes.append(f"interpolated from voxels of {edges} mm to 1 mm along the patient's axes")
        if max(self.values.shape[:2]) > SIDE:
            size = " x ".join(map(str, self.values.shape[:2]))
            notes.append(f"of {size} mm the middle {SIDE} x {SIDE} is scored")
        if self.is_brats:
            first, last = BRATS_SLICES
            notes.append(
                f"slices {first} to {last} of {self.count} as in BMAD; --slices for others"
            )
        else:
            notes.append(
                "all slices are scored; BMAD's are of the middle of the brain, 60 to 99 mm above "
                "the lowest of 155: choose such by --slices FIRST:LAST"
            )
        return notes

    def content_notes(self, volume: Volume) -> list[str]:
        """Return why a volume seems not to be what the pictures were made of."""
        notes = []
        if np.mean(volume.values == self.low) < EMPTY_SHARE:
            notes.append(
                "it seems not to be skull-stripped, as BMAD's volumes are (one value around the "
                "brain): strip it first, for example with HD-BET or SynthStrip"
            )
        if volume.modality not in ("", "MR"):
            notes.append(f"modality {volume.modality}: BMAD's pictures of Brain are FLAIR MR")
        return notes

    def middle(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return which part of a slice [X, Y] is where in the picture: its middle."""
        taken = []
        put = []
        for size in self.values.shape[:2]:
            length = min(size, SIDE)
            cut = (size - length) // 2
            pad = (SIDE - length) // 2
            taken.append(slice(cut, cut + length))
            put.append(slice(pad, pad + length))
        return (taken[0], taken[1]), (put[0], put[1])

    def section(self, k: int) -> Values:
        """Return slice k, [240, 240], the volume's smallest value around it."""
        taken, put = self.middle()
        section = np.full((SIDE, SIDE), self.low, np.float32)
        section[put] = self.values[(*taken, k)]
        return section

    def is_empty(self, k: int) -> bool:
        """Return whether slice k has one value only."""
        section = self.section(k)
        return bool(section.min() == section.max())

    def picture(self, k: int) -> npt.NDArray[np.uint8]:
        """Return slice k: RGB [240, 240, 3]."""
        return brain_picture(self.section(k))

    def place(self, maps: Values, numbers: list[int]) -> Values:
        """Return maps [n, 240, 240] of the slices of these numbers as [I, J, K], else NaN."""
        taken, put = self.middle()
        values = np.full(self.values.shape, np.nan, np.float32)
        for number, one in zip(numbers, maps, strict=True):
            values[(*taken, number)] = one[put]
        return self.grid.back(values)
