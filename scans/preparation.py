"""Slices of one's own scans, prepared as the benchmark BMAD's pictures were made (docs/slices.md).

A model that was trained on BMAD's pictures reads another scan well only if that is prepared alike.

Letters: I, J, K a volume's own indices; n slices, each a picture of H rows and W columns.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from errors import UserError
from scans.volume import Values, Volume

PREPARATIONS = ("none", "Brain", "Liver")


class Preparation(Protocol):
    """How slices of a volume become pictures, and maps of the pictures values of the volume.

    notes: what should be said; count: number of slices; chosen: first and last slice by default.
    """

    notes: tuple[str, ...]
    count: int
    chosen: tuple[int, int]

    def is_empty(self, k: int) -> bool:
        """Return whether nothing is to be seen on slice k."""

    def picture(self, k: int) -> npt.NDArray[np.uint8]:
        """Return slice k: RGB [H, W, 3]."""

    def place(self, maps: Values, numbers: list[int]) -> Values:
        """Return maps [n, H, W] of the slices of these numbers as [I, J, K], else NaN."""


def preparation(name: str, volume: Volume, liver_mask: Volume | None) -> Preparation:
    """Return the preparation of a name for a volume. Raises UserError."""
    if name not in PREPARATIONS[1:]:
        raise UserError(f"--prepare {name}: allowed here are {', '.join(PREPARATIONS[1:])}")
    if volume.values.ndim != 3:
        raise UserError(f"--prepare {name}: {volume.paths[0]} is in colour; pass a grey volume")
    if name == "Brain":
        from scans.brain import Brain

        if liver_mask is not None:
            raise UserError("--liver_mask is for --prepare Liver; leave it out for Brain")
        return Brain(volume)
    from scans.liver import Liver

    return Liver(volume, liver_mask)


class Prepared:
    """The slices of a volume that are scored, as pictures.

    Args:
        name: "Brain" or "Liver".
        volume: the scan.
        liver_mask: for Liver: a volume on the scan's grid, above 0 in the liver; a NIfTI file of a
            DICOM series may have its axes swapped and reversed.
        slices: first and last slice, from 0, of the prepared volume; None: of Brain BMAD's 60 to 99
            of a BraTS volume, else all. Slices without content (Liver: without liver) are left out.

    Attributes:
        indices: numbers of the slices.
        notes: what should be said about the scan.

    Raises:
        UserError: a wrong name or range, a mask that does not fit, or nothing left to score.

    """

    def __init__(
        self,
        name: str,
        volume: Volume,
        liver_mask: Volume | None = None,
        slices: tuple[int, int] | None = None,
    ) -> None:
        self._kind = preparation(name, volume, liver_mask)
        first, last = slices or self._kind.chosen
        if not 0 <= first <= last < self._kind.count:
            raise UserError(
                f"--slices {first}:{last}: {volume.paths[0]} has {self._kind.count} slices as "
                f"prepared, 0 to {self._kind.count - 1}"
            )
        self.indices = [k for k in range(first, last + 1) if not self._kind.is_empty(k)]
        if not self.indices:
            what = "have one value only" if liver_mask is None else "show no liver"
            raise UserError(f"{volume.paths[0]}: slices {first} to {last} {what}; choose others")
        self.notes = self._kind.notes
        empty = last - first + 1 - len(self.indices)
        if empty:
            self.notes = (*self.notes, f"{empty} slices show nothing and are not scored")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, k: int) -> npt.NDArray[np.uint8]:
        """Return the picture of slice indices[k]: RGB [H, W, 3]."""
        return self._kind.picture(self.indices[k])

    def place(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Put maps [n, H, W] of the pictures back: [I, J, K] float32, NaN where none is.

        Exact where nothing was interpolated, else linear.
        """
        if len(maps) != len(self) or maps.shape[1:] != self[0].shape[:2]:
            raise ValueError(f"maps of shape {maps.shape} for {len(self)} of {self[0].shape[:2]}")
        return self._kind.place(np.asarray(maps, np.float32), self.indices)
