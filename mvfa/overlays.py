"""An anomaly map over its image: native size, colours, the contour above a threshold, and boxes.

Letters: S side of the map that was scored, H and W of the image, in pixels.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from mvfa.calibration import display
from mvfa.panels import MARKED_COLOUR, SCALE, Mask, Pixels, border, overlay

Values = npt.NDArray[np.float32]

CONTOUR_SHARE = 300  # the contour is one pixel wide for so many pixels of the image's longer side
LARGEST_BOXES = 50  # boxes of an image: the largest regions


class Box(NamedTuple):
    """A region above the threshold: pixels of the image, `right` and `bottom` exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def native_map(values: Values, size: tuple[int, int]) -> Values:
    """Resize a map [S, S] to the image's (W, H) pixels, bilinearly: [H, W] float32."""
    resized = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def boxes(above: Mask, size: tuple[int, int]) -> list[Box]:
    """Return a box around each connected region, in pixels of the image; largest region first.

    above: [S, S]; size: the image's (W, H). Regions are found at the scored size, so an image has
    a box exactly if a scored pixel is above the threshold.
    """
    count, _, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    rows: Any = sorted(stats[1:count].tolist(), key=lambda row: -row[cv2.CC_STAT_AREA])
    width, height = size
    scale_x = width / above.shape[1]
    scale_y = height / above.shape[0]
    found = []
    for left, top, wide, high, _ in rows[:LARGEST_BOXES]:
        right = left + wide
        bottom = top + high
        found.append(
            Box(
                int(np.floor(left * scale_x)),
                int(np.floor(top * scale_y)),
                int(np.ceil(right * scale_x)),
                int(np.ceil(bottom * scale_y)),
            )
        )
    return found


def display_map(values: Values, threshold: float, span: tuple[float, float]) -> Values:
    """Return a map for display, in [0, 1] with the threshold at 0.5 (docs/calibration.md)."""
    return np.asarray(display(values, threshold, *span), np.float32)


def draw_overlay(
    image: Image.Image,
    values: Values,
    threshold: float,
    span: tuple[float, float],
    *,
    contour: bool = True,
) -> Image.Image:
    """Return the image with a map [S, S] in colours over it, at the image's own size.

    The colours have the threshold in their middle. `contour` draws a line around what is above it.
    """
    pixels: Pixels = np.asarray(image.convert("RGB"))  # [H, W, 3]
    shown = display_map(native_map(values, image.size), threshold, span)  # [H, W]
    mixed = overlay(pixels, shown, SCALE)
    if contour:
        above = (values > threshold).astype(np.uint8)
        region = np.asarray(
            cv2.resize(above, image.size, interpolation=cv2.INTER_NEAREST), np.bool_
        )
        width = max(1, round(max(image.size) / CONTOUR_SHARE))
        mixed[border(region, width)] = MARKED_COLOUR
    return Image.fromarray(mixed)
