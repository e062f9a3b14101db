"""CT volumes as BMAD's pictures of Liver show them (docs/slices.md)."""

import numpy as np
import numpy.typing as npt

from errors import UserError
from scans.bmad import HU, liver_picture
from scans.grids import LPS, Turned, axis_codes, lay_on
from scans.volume import Values, Volume

MOST_LABELS = 2  # of a mask: liver and lesion
AXIAL = ("LR", "PA", "SI")  # where the indices of a file grow to whose slices are axial


class Liver:
    """Axial slices, -200 to 250 HU, of the liver alone, equalised, upside down.

    A slice is not transposed, and its two indices run as the file has them, because BMAD looked at
    no affine. Volumes whose slices along the last index are not axial are turned to LPS.

    Args:
        volume: [I, J, K], CT in HU.
        mask: above 0 in the liver, on the volume's grid; None: no liver is cut out.

    Raises:
        UserError: the mask is empty, has many labels or lies on another grid.

    """

    def __init__(self, volume: Volume, mask: Volume | None) -> None:
        codes = axis_codes(volume)
        self.is_axial = all(code in either for code, either in zip(codes, AXIAL, strict=True))
        self.grid = Turned(volume, codes if self.is_axial else LPS)
        self.values: Values = self.grid.values  # [X, Y, Z]
        self.count = self.values.shape[2]
        self.chosen = (0, self.count - 1)
        self.liver: npt.NDArray[np.bool_] | None = None  # [X, Y, Z]
        if mask is not None:
            self.liver = self.grid.turn(liver_of(mask, volume))
        self.notes = (*self.grid_notes(codes), *self.content_notes(volume))

    def grid_notes(self, codes: str) -> list[str]:
        """Return what should be said about how the slices are made."""
        if not self.is_axial:
            return ["turned to LPS, because its slices are not axial"]
        notes = []
        if codes[0] == "R":
            notes.append(
                "its first index runs to the patient's right, in DICOM it runs to the left: the "
                "pictures are mirrored against those of a DICOM series"
            )
        return notes

    def content_notes(self, volume: Volume) -> list[str]:
        """Return why a volume seems not to be what the pictures were made of."""
        notes = []
        if self.liver is None:
            notes.append(
                "no liver mask: nothing will look like the training pictures, which show the liver "
                "alone; make a mask, for example with TotalSegmentator --roi_subset liver, and "
                "pass it by --liver_mask FILE"
            )
        low, high = HU
        if volume.modality not in ("", "CT"):
            notes.append(f"modality {volume.modality}: BMAD's pictures of Liver are CT")
        elif volume.values.min() >= low and volume.values.max() > 2 * high:
            notes.append(f"no value is below {low:g}: it seems not to be in Hounsfield units")
        return notes

    def is_empty(self, k: int) -> bool:
        """Return whether slice k has no liver or, without a mask, one value only."""
        if self.liver is not None:
            return not self.liver[:, :, k].any()
        section = np.clip(self.values[:, :, k], *HU)
        return bool(section.min() == section.max())

    def picture(self, k: int) -> npt.NDArray[np.uint8]:
        """Return slice k: RGB [X, Y, 3]."""
        liver = None if self.liver is None else self.liver[:, :, k]
        return liver_picture(self.values[:, :, k], liver)

    def place(self, maps: Values, numbers: list[int]) -> Values:
        """Return maps [n, X, Y] of the slices of these numbers as [I, J, K], else NaN."""
        values = np.full(self.values.shape, np.nan, np.float32)
        for number, one in zip(numbers, maps, strict=True):
            values[:, :, number] = one[::-1]
        return self.grid.back(values)


def liver_of(mask: Volume, volume: Volume) -> npt.NDArray[np.bool_]:
    """Return where a mask is above 0, in the volume's own order [I, J, K]. Raises UserError."""
    name = f"--liver_mask {mask.paths[0]}"
    values = lay_on(mask, volume)
    if values is None:
        raise UserError(
            f"{name}: its {' x '.join(map(str, mask.shape))} voxels do not lie on the "
            f"{' x '.join(map(str, volume.shape))} of {volume.paths[0]}; make the mask of this "
            "scan, or resample it to the scan's grid"
        )
    liver = values > 0
    labels = np.unique(values[liver])
    if not labels.size:
        raise UserError(f"{name} is empty; it must be above 0 in the liver")
    if labels.size > MOST_LABELS:
        raise UserError(
            f"{name} has {labels.size} different values above 0; allowed are 1 (the liver) or 2 "
            "(liver and lesions): save the liver alone"
        )
    return liver
