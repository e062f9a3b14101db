"""Pictures of slices as the benchmark BMAD made them: the arithmetic (docs/slices.md).

BMAD wrote its pictures with matplotlib's colour maps "bone" (Brain) and "gray" (Liver), whose bytes
depend on the order of operations: they are computed here in the same order, without matplotlib.

Letters: H rows and W columns of a picture. Rows follow a slice's first index, as BMAD's do.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

Slice = npt.NDArray[np.floating]
Bytes = npt.NDArray[np.uint8]
Knots = tuple[tuple[float, float], ...]

GREYS = 256  # of a byte
STRAIGHT: Knots = ((0.0, 0.0), (1.0, 1.0))
GRAY = (STRAIGHT,)
BONE = (  # red, green, blue
    ((0.0, 0.0), (0.746032, 0.652778), (1.0, 1.0)),
    ((0.0, 0.0), (0.365079, 0.319444), (0.746032, 0.777778), (1.0, 1.0)),
    ((0.0, 0.0), (0.365079, 0.444444), (1.0, 1.0)),
)
HU = (-200.0, 250.0)  # the liver's range of Hounsfield units
DARK = 150  # greys below it are lifted after equalisation


def table(knots: Knots) -> Bytes:
    """Return the bytes [256] of a piecewise linear colour channel through (x, y) in [0, 1].

    The steps and their order are matplotlib's: interpolation in 255ths, then truncation.
    """
    x, y = np.array(knots, np.float64).T
    x = 255 * x
    at = 255 * np.linspace(0, 1, GREYS)
    k = np.searchsorted(x, at)[1:-1]
    share = (at[1:-1] - x[k - 1]) / (x[k] - x[k - 1])
    inner = share * (y[k] - y[k - 1]) + y[k - 1]
    return np.asarray(255 * np.concatenate([y[:1], inner, y[-1:]])).astype(np.uint8)


@cache
def colours(channels: tuple[Knots, ...]) -> Bytes:
    """Return the bytes [256, C] of a colour map of C channels."""
    return np.stack([table(knots) for knots in channels], axis=-1)


def indices(values: Slice) -> npt.NDArray[np.intp]:
    """Return the colour map's index, 0 to 255, of each value of a slice, by its own range.

    int(256 v) with v in [0, 1]; 255 where v is 1. A slice of one value gives 0.
    """
    wide = np.asarray(values, np.float64)
    low = wide.min()
    span = wide.max() - low
    if span == 0:
        return np.zeros(wide.shape, np.intp)
    return np.minimum((wide - low) / span * GREYS, GREYS - 1).astype(np.intp)


def brain_picture(values: Slice) -> Bytes:
    """Return the picture of a slice [H, W] of a FLAIR volume: RGB [H, W, 3]."""
    return colours(BONE)[indices(values)]


def equalise(grey: Bytes) -> Bytes:
    """Equalise the histogram of all but black, [H, W], as BMAD does for Liver.

    Black stays black, the lowest other greys become about 30, the highest 254 or 255.
    """
    counts = np.bincount(grey.ravel(), minlength=GREYS)
    counts[0] = 0
    if not counts.any():
        return grey.copy()
    shares = counts / np.linalg.norm(counts)  # twice, as BMAD: it decides the last digit
    shares = shares / shares.sum()
    mapped = np.floor(255 * np.cumsum(shares)).astype(np.int64)
    dark = (mapped > 0) & (mapped < DARK)
    mapped[dark] = 4 * mapped[dark] // 5 + 30  # 0.8 m + 30, rounded down
    return mapped.astype(np.uint8)[grey]


def liver_picture(values: Slice, liver: npt.NDArray[np.bool_] | None = None) -> Bytes:
    """Return the picture of a CT slice [H, W] in HU: RGB [H, W, 3], upside down.

    liver: [H, W], what is not black; None: all of the slice.
    """
    clipped = np.clip(values, *HU)
    grey = colours(GRAY)[indices(clipped), 0]
    if liver is not None:
        grey = grey * liver.astype(np.uint8)
    return np.repeat(equalise(grey[::-1])[..., None], 3, axis=-1)
