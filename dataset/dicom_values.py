"""What the numbers of a DICOM frame mean: modality step, window, value-of-interest table.

The order is the standard's: stored values, modality step (rescale or table), window or table of the
values of interest, and at the end black and white exchanged for MONOCHROME1. Enhanced CT and MR
files state these for each frame: the frame's functional groups come before those that all frames
share, and both before the file's own attributes. Real world values are left alone.

Sources: DICOM PS3.3 C.7.6.16.2 (functional groups), C.11.1 (modality), C.11.2 (values of interest).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from errors import UserError

Array = npt.NDArray[Any]

LINEAR = "LINEAR"
LINEAR_EXACT = "LINEAR_EXACT"
SIGMOID = "SIGMOID"
STEP = 2.0**-40  # least relative width; numbers below 1e-38 may count as zero
FUNCTIONS = (LINEAR, LINEAR_EXACT, SIGMOID)


def window_range(center: float, width: float, function: str = LINEAR) -> tuple[float, float]:
    """Return the values that a window maps to black and to white: (low, high), low below high.

    LINEAR (C.11.2.1.2.1): center - 0.5 -+ (width - 1) / 2, so a width of 1 is a step at
    center - 0.5. LINEAR_EXACT (C.11.2.1.3.2): center -+ width / 2. SIGMOID (C.11.2.1.3.1) is no
    straight line: the range is that of its tangent in the center, which is LINEAR_EXACT's.

    Raises UserError unless both are finite and the width is at least 1 (LINEAR) or above 0.
    """
    if function not in FUNCTIONS:
        raise UserError(f"window function {function!r}; allowed are {', '.join(FUNCTIONS)}")
    wide_enough = width >= 1 if function == LINEAR else width > 0
    if not (math.isfinite(center) and math.isfinite(width) and wide_enough):
        raise UserError(
            f"window center {center:g}, width {width:g}; both must be finite, and the width "
            f"{'at least 1' if function == LINEAR else 'above 0'}"
        )
    if function == LINEAR:
        middle = center - 0.5
        half = (width - 1) / 2
    else:
        middle = center
        half = width / 2
    low = middle - half
    return low, max(middle + half, low + STEP * max(abs(low), 1.0))


def first_number(value: object) -> float | None:
    """Return the first number of an attribute; None if it is absent, empty or no number."""
    if isinstance(value, str) or not hasattr(value, "__getitem__"):
        first = value
    else:
        first = value[0] if len(value) else None  # type: ignore[arg-type]
    try:
        return None if first is None else float(first)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def item(dataset: Any, keyword: str) -> Any:
    """Return the first item of a sequence; None if there is none."""
    sequence = dataset.get(keyword) if dataset is not None else None
    return sequence[0] if sequence else None


def groups(dataset: Any, k: int) -> list[Any]:
    """Return where to look for attributes of frame k, from 0: the most particular place first."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    places = [per_frame[k]] if per_frame and k < len(per_frame) else []
    shared = item(dataset, "SharedFunctionalGroupsSequence")
    return [*places, *([] if shared is None else [shared]), dataset]


@dataclass(frozen=True)
class Table:
    """A lookup table of a DICOM file (C.11.1.1, C.11.2.1.1).

    Args:
        values: its entries.
        first: the input that gets the first entry; inputs outside get the nearest entry.
        bits: bits of an entry.

    """

    values: Array
    first: int
    bits: int

    @property
    def full(self) -> tuple[float, float]:
        """The smallest and largest entry that `bits` allow."""
        return 0.0, 2.0**self.bits - 1

    def __call__(self, stored: Array) -> Array:
        """Return the entries for stored values, of the same shape."""
        last = len(self.values) - 1
        return self.values[(np.rint(stored).astype(np.int64) - self.first).clip(0, last)]


def read_table(sequence_item: Any, *, signed: bool) -> Table:
    """Read a table from its item of a sequence; `signed`: of what kind its inputs are.

    Raises ValueError if its data and its descriptor do not fit.
    """
    count, first, bits = (int(number) for number in sequence_item.LUTDescriptor)
    count = count % 2**16 or 2**16  # 0 stands for 65536
    first %= 2**16
    if signed and first >= 2**15:
        first -= 2**16
    data = sequence_item.LUTData
    if isinstance(data, bytes):
        dtype = np.dtype("<u2" if len(data) >= 2 * count else "u1")
        data = np.frombuffer(data, dtype)
    values = np.asarray(data).astype(np.uint16)
    if not 1 <= bits <= 16 or len(values) < count:
        raise ValueError(f"a lookup table of {len(values)} entries should have {count}")
    return Table(values[:count], first, bits)


@dataclass(frozen=True)
class Modality:
    """The modality step: a table, or slope and intercept (1 and 0: none)."""

    slope: float = 1.0
    intercept: float = 0.0
    table: Table | None = None

    @property
    def identity(self) -> bool:
        """Whether values stay as they are stored."""
        return self.table is None and self.slope == 1 and self.intercept == 0

    def __call__(self, stored: Array) -> Array:
        """Return float64 values of the stored ones; the stored ones themselves for identity."""
        if self.table is not None:
            return self.table(stored)
        return stored if self.identity else stored * np.float64(self.slope) + self.intercept

    def full(self, low: float, high: float) -> tuple[float, float]:
        """Return the range of values of stored values from low to high."""
        if self.table is not None:
            return self.table.full
        ends = sorted((low * self.slope + self.intercept, high * self.slope + self.intercept))
        return ends[0], ends[1]


def read_modality(dataset: Any, k: int) -> Modality:
    """Read the modality step of frame k, from 0. A slope of 0 or none is taken as 1."""
    sequence_item = item(dataset, "ModalityLUTSequence")
    if sequence_item is not None:
        return Modality(table=read_table(sequence_item, signed=bool(dataset.PixelRepresentation)))
    for place in groups(dataset, k):
        inner = item(place, "PixelValueTransformationSequence") or place
        slope = first_number(inner.get("RescaleSlope"))
        intercept = first_number(inner.get("RescaleIntercept"))
        if slope is not None or intercept is not None:
            return Modality(slope or 1.0, intercept or 0.0)
    return Modality()


def read_window(dataset: Any, k: int) -> tuple[float, float] | None:
    """Read the first window of frame k, from 0: (low, high); None without one that is usable."""
    for place in groups(dataset, k):
        inner = item(place, "FrameVOILUTSequence") or place
        center = first_number(inner.get("WindowCenter"))
        width = first_number(inner.get("WindowWidth"))
        if center is not None and width is not None:
            function = str(inner.get("VOILUTFunction") or LINEAR)
            try:
                return window_range(center, width, function)
            except UserError:
                return None
    return None


def interest_item(dataset: Any, k: int) -> Any:
    """Return the item of the first table of the values of interest of frame k; None without."""
    for place in groups(dataset, k):
        inner = item(place, "FrameVOILUTSequence") or place
        found = item(inner, "VOILUTSequence")
        if found is not None:
            return found
    return None


def has_interest(dataset: Any, k: int) -> bool:
    """Return whether frame k, from 0, has a table of the values of interest."""
    return interest_item(dataset, k) is not None


def read_interest(dataset: Any, k: int, *, signed: bool) -> Table | None:
    """Read the first table of the values of interest of frame k, which follows the modality step.

    `signed`: whether its inputs may be negative.
    """
    found = interest_item(dataset, k)
    return None if found is None else read_table(found, signed=signed)
