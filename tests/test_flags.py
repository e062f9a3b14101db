"""Values of flags are checked where they are read, and errors are one line."""

import argparse

import pytest

from errors import UserError
from mvfa.flags import Flags, Parser, number, truth
from mvfa.options import parse


@pytest.mark.parametrize(
    ("text", "message"),
    [("0", "0 is not at least 1"), ("9", "9 is not at most 8"), ("inf", "inf is not finite")],
)
def test_numbers_have_bounds(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        number(float, 1, top=8)(text)
    assert number(int, 1, top=8)("8") == 8


def test_yes_and_no():
    assert [truth(text) for text in ("yes", "NO")] == [True, False]
    with pytest.raises(argparse.ArgumentTypeError, match="1 is not yes or no"):
        truth("1")


def test_help_shows_defaults_and_examples():
    parser = Parser("script.py", "Do something.", ("--size 3", "--fast no"))
    flags = Flags(parser, "group")
    flags.add("size", "how large, in 100 % of cases", 2, type=int)
    flags.yes_no("fast", "whether to hurry", True)
    flags.add("where", "a place", shown="here")
    text = parser.format_help()
    assert "how large, in 100 % of cases (default: 2)" in text
    assert "whether to hurry (default: yes)" in text
    assert "a place (default: here)" in text
    assert text.endswith("examples:\n  python script.py --size 3\n  python script.py --fast no\n")
    assert parser.parse_args(["--fast", "no"]).fast is False


def test_a_mistake_is_one_line():
    parser = Parser("script.py", "Do something.")
    Flags(parser, "group").add("size", "how large", 2, type=int)
    message = r"^unrecognized arguments: --siz 3 \(see script\.py --help\)$"  # no abbreviations
    with pytest.raises(UserError, match=message):
        parser.parse_args(["--siz", "3"])


def test_an_empty_path_is_refused():
    """As of a shell's variable that is not set: it would be the current folder."""
    for flag in ("--out", "--save_path", "--data_path", "--cache_dir"):
        with pytest.raises(UserError, match=f"argument {flag}: it is empty; name a file or folder"):
            parse("train_few", ["--obj", "Brain", flag, ""])


@pytest.mark.parametrize("value", ["nan", "inf", "1e300"])
def test_numbers_of_the_recipe_are_of_a_size_that_can_be_computed_with(value):
    for flag in ("--keep", "--mix", "--slope"):
        with pytest.raises(UserError, match=f"argument {flag}: {value} is not"):
            parse("train_few", ["--obj", "Brain", flag, value])
