"""BMAD's pictures, bit for bit: against matplotlib's tables, and plain loops over its steps."""

import math

import numpy as np
import pytest
from PIL import Image

from scans.bmad import BONE, GRAY, brain_picture, colours, equalise, liver_picture

# matplotlib 3.11.2, colormaps["bone"](numpy.arange(256), bytes=True)[::16], and the last one
BONE_BYTES = [
    (0, 0, 0), (14, 13, 19), (28, 27, 38), (42, 41, 58), (56, 55, 77), (70, 69, 97), (84, 84, 115),
    (98, 104, 129), (112, 123, 143), (126, 142, 157), (140, 161, 171), (154, 181, 185),
    (168, 199, 199), (190, 213, 213), (212, 227, 227), (234, 241, 241), (255, 255, 255),
]  # fmt: skip
# the same of "gray": the indices whose byte is one less than the index
GRAY_LESS = [
    33, 37, 41, 45, 49, 53, 57, 61, 66, 74, 82, 90, 98, 106, 114, 122, 132, 148, 164, 180, 196,
    212, 228, 244,
]  # fmt: skip


def test_bone_is_matplotlibs():
    table = colours(BONE)
    assert table.shape == (256, 3)
    assert [tuple(row) for row in table[::16].tolist()] == BONE_BYTES[:-1]
    assert tuple(table[255].tolist()) == BONE_BYTES[-1]


def test_gray_is_matplotlibs_and_not_the_identity():
    table = colours(GRAY)[:, 0].astype(int)
    less = np.arange(256) - table
    assert np.flatnonzero(less).tolist() == GRAY_LESS
    assert set(less.tolist()) == {0, 1}


def plain_index(values: list[list[float]]) -> list[list[int]]:
    """Return min-max times 256, the largest index 255: one number at a time."""
    low = min(min(row) for row in values)
    high = max(max(row) for row in values)
    return [[min(int(256 * ((v - low) / (high - low))), 255) for v in row] for row in values]


def plain_liver(values: np.ndarray, liver: np.ndarray) -> np.ndarray:
    """Return a liver picture [H, W] by BMAD's steps, one number at a time."""
    clipped = [[min(max(float(v), -200.0), 250.0) for v in row] for row in values]
    grey = [[i - (i in GRAY_LESS) for i in row] for row in plain_index(clipped)]
    grey = [
        [g if m else 0 for g, m in zip(*rows, strict=True)]
        for rows in zip(grey, liver.tolist(), strict=True)
    ]
    counts = [0.0] * 256
    for row in grey:
        for g in row:
            counts[g] += 1
    counts[0] = 0
    norm = math.sqrt(sum(c * c for c in counts))
    shares = [c / norm for c in counts]
    total = float(np.sum(shares))
    mapped = []
    running = 0.0
    for share in shares:
        running += share / total
        m = math.floor(255 * running)
        mapped.append(math.floor(m / 150 * 120 + 30) if 0 < m < 150 else m)
    return np.array([[mapped[g] for g in row] for row in reversed(grey)])


def test_a_brain_picture_by_plain_loops():
    values = np.random.default_rng(0).gamma(2, 300, (23, 31)).round()
    table = colours(BONE).tolist()
    expected = [[table[i] for i in row] for row in plain_index(values.tolist())]
    assert np.array_equal(brain_picture(values), np.array(expected))


def test_a_flat_slice_is_black():
    assert not brain_picture(np.full((3, 4), 7.0)).any()
    assert not liver_picture(np.full((3, 4), 7.0)).any()


def test_greys_of_brain_masks():
    """Labels 1, 2, 4 of BraTS went through the same colour map; L as Pillow converts."""
    labels = np.array([[0, 1], [2, 4]])
    grey = np.asarray(Image.fromarray(brain_picture(labels)).convert("L"))
    assert grey.tolist() == [[0, 58], [122, 255]]
    without_4 = np.asarray(Image.fromarray(brain_picture(np.array([[0, 1, 2]]))).convert("L"))
    assert without_4.tolist() == [[0, 122, 255]]


@pytest.mark.parametrize("seed", range(4))
def test_a_liver_picture_by_plain_loops(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(60, 90, (29, 21)).round()
    values[0, :2] = (-1000, 1000)
    liver = rng.random((29, 21)) < 0.4
    got = liver_picture(values, liver)
    assert got.dtype == np.uint8
    assert np.array_equal(got[..., 0], plain_liver(values, liver))
    assert np.array_equal(got, np.repeat(got[..., :1], 3, axis=-1))


def test_equalisation_keeps_black_and_lifts_the_dark():
    grey = np.array([[0, 0, 1], [2, 100, 255]], np.uint8)
    got = equalise(grey)
    # four greys of a quarter each: 63, 127, 191, 255; the two below 150 become 0.8 m + 30
    assert got.tolist() == [[0, 0, 80], [131, 191, 255]]
    assert not equalise(np.zeros((2, 2), np.uint8)).any()
