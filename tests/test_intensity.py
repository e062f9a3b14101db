"""Values of more than 8 bit become 8 bit by the plain formula."""

import argparse
from fractions import Fraction

import numpy as np
import pytest

from dataset.intensity import Intensity, intensity, to_bytes
from mvfa.options import parse

TEXTS = ["auto", "minmax", "full", "-200:250", "0.5:1.25", "-1000:3095", "1e-07:1"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_rule_gives_its_text_back(text):
    rule = intensity(text)
    assert str(rule) == text
    assert intensity(str(rule)) == rule


@pytest.mark.parametrize(
    "text", ["", "max", "5", "5:", ":5", "5:5", "6:5", "a:b", "nan:1", "0:inf", "1:2:3"]
)
def test_nonsense_is_refused_with_what_is_allowed(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"allowed are auto|LOW must be below"):
        intensity(text)


@pytest.mark.parametrize("flags", [["--intensity=-200:250"], ["--intensity", "-200:250"]])
def test_a_range_may_start_with_a_minus_sign(flags):
    options = parse("train_few", ["--obj", "Brain", *flags])
    assert options.intensity == Intensity("range", -200, 250)
    assert options.as_dict()["intensity"] == "-200:250"


def by_formula(value: float, low: float, high: float) -> int:
    """Return a byte in exact arithmetic, halves to even."""
    share = (Fraction(value) - Fraction(low)) / (Fraction(high) - Fraction(low))
    return round(255 * min(max(share, 0), 1))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("text", ["minmax", "full", "-100:4000.5"])
def test_values_follow_the_formula(dtype, text):
    random = np.random.default_rng(0)
    values = (random.random((13, 17)) * 8000 - 2000 * (dtype[0] != "u")).astype(dtype)
    full = (-5.0, 1000.0)
    found = to_bytes(values, intensity(text), full=full)
    low, high = {"minmax": (values.min(), values.max()), "full": full}.get(text, (-100, 4000.5))
    expected = [[by_formula(float(v), float(low), float(high)) for v in row] for row in values]
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1  # floating point may miss a half
    assert (found == expected).mean() > 0.99


def test_a_window_is_taken_by_auto_only():
    values = np.array([[0, 100, 200, 300]])
    window = (100.0, 200.0)
    assert to_bytes(values, intensity("auto"), full=(0, 1), window=window).tolist() == [
        [0, 0, 255, 255]
    ]
    assert to_bytes(values, intensity("minmax"), full=(0, 1), window=window).tolist() == [
        [0, 85, 170, 255]
    ]
    assert to_bytes(values, intensity("auto"), full=(0, 1)).tolist() == [[0, 85, 170, 255]]


def test_extremes_of_a_type_do_not_overflow():
    ends = np.iinfo(np.int32)
    values = np.array([[ends.min, 0, ends.max]], np.int32)
    assert to_bytes(values, intensity("minmax"), full=(0, 1)).tolist() == [[0, 128, 255]]
    floats = np.array([[-3e38, 0, 3e38]], np.float32)
    assert to_bytes(floats, intensity("minmax"), full=(0, 1)).tolist() == [[0, 128, 255]]


def test_a_constant_image_is_black():
    assert not to_bytes(np.full((3, 4, 3), 7.5), intensity("auto"), full=(0, 1)).any()


def test_colours_share_one_range():
    values = np.zeros((1, 2, 3), np.uint16)
    values[0, 1] = (1000, 2000, 4000)
    found = to_bytes(values, intensity("minmax"), full=(0, 65535))
    assert found[0, 1].tolist() == [64, 128, 255]
