"""What a detector says of one image.

Letters: S side of the scored map, H and W of the image, in pixels.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from dataset.pixels import Pixels
from errors import UserError

Array = npt.NDArray[Any]
Range = tuple[float, float]


@dataclass(frozen=True)
class Raw:
    """Maps [S, S] and scores of one image before fusion.

    Those of a branch that the method does not have are None; the scores also where the image score
    is the maximum of the fused map.
    """

    text_map: Tensor | None
    memory_map: Tensor | None
    text_score: Tensor | None
    memory_score: Tensor | None

    @property
    def has_score(self) -> bool:
        """Whether the image has a score of its own."""
        return self.text_score is not None or self.memory_score is not None


@dataclass(frozen=True)
class Result:
    """What a detector says of one image.

    Args:
        score: anomaly score, not clipped; higher is more abnormal.
        p_value: share of normal images that score at least as high, conformal (C3).
        rank: how many of the calibration's normal scores it is above, and how many there are.
        threshold: scores above it are flagged.
        scored_map: [S, S] float32, the fused map as it was scored.
        image: the scored image, at its own size.
        span: lowest and highest value of the maps of the calibration set, for display.
        masks: whether the score is the maximum of the map, so that the threshold serves both.

    """

    score: float
    p_value: float
    rank: tuple[int, int]
    threshold: float
    scored_map: npt.NDArray[np.float32]
    image: Image.Image
    span: Range
    masks: bool

    @property
    def flagged(self) -> bool:
        """Whether the score is above the threshold."""
        return self.score > self.threshold

    @cached_property
    def map(self) -> npt.NDArray[np.float32]:
        """The anomaly map at the image's own size, [H, W] float32, not clipped."""
        from mvfa.overlays import native_map

        return native_map(self.scored_map, self.image.size)

    @cached_property
    def boxes(self) -> list[Any]:
        """Boxes (left, top, right, bottom) around what is above the threshold, largest first.

        Empty for objects without masks, whose threshold is not one of pixels.
        """
        if not (self.masks and self.flagged):
            return []
        from mvfa.overlays import boxes

        return boxes(self.scored_map > self.threshold, self.image.size)

    def overlay(self) -> Image.Image:
        """Return the image with the map in colours over it, at its own size.

        For objects with masks a line surrounds what is above the threshold.
        """
        from mvfa.overlays import draw_overlay

        middle = self.threshold if self.masks else sum(self.span) / 2
        return draw_overlay(self.image, self.scored_map, middle, self.span, contour=self.masks)


def array_pixels(values: Array) -> Pixels:
    """Return an array as pixels. Raises UserError for another shape or type."""
    values = np.asarray(values)
    colour = values.ndim == 3 and values.shape[2] == 3
    if not (values.ndim == 2 or colour) or values.dtype.kind not in "uif" or not values.size:
        raise UserError(
            f"an array of shape {list(values.shape)} and type {values.dtype} is no image; allowed "
            "are [H, W] and [H, W, 3] of integers or floats"
        )
    if values.dtype.kind == "f":
        full = (0.0, 1.0)
    else:
        limits = np.iinfo(values.dtype)
        full = (float(limits.min), float(limits.max))
    if not np.isfinite(values).all():
        raise UserError("an array holds values that are not finite; replace them")
    return Pixels(
        values=values,
        bits=8 * values.dtype.itemsize,
        full=full,
        window=None,
        inverted=False,
        modality="",
    )
