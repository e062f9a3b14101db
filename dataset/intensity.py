"""How pixel values of more than 8 bit become 8 bit. Needs neither torch nor numpy to read flags.

The network was trained on 8-bit images. Values that do not fit are mapped linearly, low to 0 and
high to 255; what low and high are is the user's choice (`--intensity`).
"""

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

AUTO = "auto"
MINMAX = "minmax"
FULL = "full"
RANGE = "range"
KINDS = (AUTO, MINMAX, FULL)  # words; a range is written LOW:HIGH


@dataclass(frozen=True)
class Intensity:
    """Which values become 0 and 255.

    Args:
        kind: "auto": a DICOM file's first window, else "minmax": the image's own smallest and
            largest value, as BMAD scales slice by slice; "full": the range of the file's type;
            "range": `low` and `high`.
        low: value that becomes 0, of "range".
        high: value that becomes 255, of "range".

    """

    kind: str = AUTO
    low: float = 0.0
    high: float = 0.0

    def __str__(self) -> str:
        """Return the flag's text: auto, minmax, full or LOW:HIGH."""
        return f"{plain(self.low)}:{plain(self.high)}" if self.kind == RANGE else self.kind

    def words(self, dicom: bool) -> str:
        """Say how values are scaled; `dicom`: whether DICOM files are among the images."""
        if self.kind == RANGE:
            return f"from {plain(self.low)} (black) to {plain(self.high)} (white)"
        if self.kind == FULL:
            return "by the full range of their type"
        window = ", DICOM by its window" if dicom and self.kind == AUTO else ""
        return f"by each image's own range{window}"


DEFAULT = Intensity()


def plain(value: float) -> str:
    """Return a number as short text that gives the same number back."""
    return str(int(value)) if value.is_integer() else repr(value)


def intensity(text: str) -> Intensity:
    """Convert auto, minmax, full or LOW:HIGH, a flag's value.

    Raises argparse.ArgumentTypeError for anything else, and unless LOW is below HIGH.
    """
    if text in KINDS:
        return Intensity(text)
    low_text, _, high_text = text.partition(":")
    try:
        low = float(low_text)
        high = float(high_text)
    except ValueError as error:
        allowed = f"{', '.join(KINDS)} and LOW:HIGH, such as -200:250"
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed are {allowed}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise argparse.ArgumentTypeError(f"got {text!r}; LOW must be below HIGH, both finite")
    return Intensity(RANGE, low, high)


def limits(
    values: "np.ndarray",
    spec: Intensity,
    full: tuple[float, float],
    window: tuple[float, float] | None,
) -> tuple[float, float]:
    """Return the values that become 0 and 255."""
    if spec.kind == RANGE:
        return spec.low, spec.high
    if spec.kind == FULL:
        return full
    if spec.kind == AUTO and window is not None:
        return window
    return float(values.min()), float(values.max())


def to_bytes(
    values: "np.ndarray",
    spec: Intensity,
    *,
    full: tuple[float, float],
    window: tuple[float, float] | None = None,
) -> "np.ndarray":
    """Map values linearly to 8 bit: rint(255 * clip((v - low) / (high - low), 0, 1)).

    Args:
        values: [H, W] or [H, W, 3], finite numbers; colours share one low and one high.
        spec: which values become 0 and 255.
        full: those of "full".
        window: those of "auto"; None: the smallest and the largest value.

    Returns:
        uint8 of the same shape; all 0 where high is not above low, as in a constant image.

    """
    import numpy as np

    low, high = limits(values, spec, full, window)
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
