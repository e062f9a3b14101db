"""What a reader of image files hands on: pixels, and what their numbers mean.

Letters: H height, W width in pixels.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pixels:
    """The pixels of an image and what they are.

    Args:
        values: [H, W] or [H, W, 3] (red, green, blue); uint8 exactly as the file has them, else
            wider integers or floating point, of DICOM after the modality step.
        bits: bits of a stored value: 8, 12, 16, 32 ...
        full: smallest and largest value of the type, which "full" maps to black and white.
        window: (low, high) of a DICOM file's first window; None if there is none.
        inverted: small values are bright (MONOCHROME1, white is zero): the 8-bit values are
            subtracted from 255 as the last step.
        modality: DICOM's, such as "CT"; "" for other files.

    """

    values: np.ndarray
    bits: int
    full: tuple[float, float]
    window: tuple[float, float] | None = None
    inverted: bool = False
    modality: str = ""

    @property
    def wide(self) -> bool:
        """Whether values have to be scaled to become 8 bit."""
        return self.values.dtype != np.uint8
