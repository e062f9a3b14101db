"""What a detector's description may say: each entry, of which type and range. Needs no torch."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from errors import UserError
from mvfa.options import FEW, PRECISIONS, ZERO
from mvfa.recipe import CHOICES, FIELDS

FORMAT = 1
NORMAL = "normal"  # a setting: normal shots with zero-shot adapters

Check = Callable[[Any], bool]


def whole(low: int, high: int) -> Check:
    """Return a check for whole numbers of a range."""
    return lambda value: type(value) is int and low <= value <= high


def one_of(*choices: str) -> Check:
    """Return a check for some words."""
    return lambda value: isinstance(value, str) and value in choices


def text(value: Any) -> bool:
    """Return whether a value is text."""
    return isinstance(value, str)


def truth(value: Any) -> bool:
    """Return whether a value is true or false."""
    return isinstance(value, bool)


def mapping(value: Any) -> bool:
    """Return whether a value is a dictionary."""
    return isinstance(value, dict)


def finite(value: Any) -> bool:
    """Return whether a value is a number that a float can hold."""
    if truth(value) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def levels(value: Any) -> bool:
    """Return whether a value is a list of block numbers."""
    return isinstance(value, list) and all(map(whole(1, 2**10), value))


ENTRIES: Mapping[str, Check] = {
    "object": text,
    "noun": text,
    "masks": truth,
    "setting": one_of(FEW, ZERO, NORMAL),
    "shot": whole(0, 2**20),
    "features_list": levels,
    "embed_dim": whole(1, 2**14),
    "recipe": mapping,
    "img_size": whole(1, 2**12),
    "precision": one_of(*PRECISIONS),
    "model_name": lambda value: value is None or text(value),
    "weights": lambda value: mapping(value) and text(value.get("sha256")),
    "prepare": text,
    "intensity": text,
    "calibration": mapping,
    "map_ranges": mapping,
    "tensors_sha256": text,
}


def damaged(path: Path, reason: str) -> UserError:
    """Return the error for a file that cannot be a detector of this program."""
    return UserError(f"{path} is not a detector ({reason}); make one with calibrate.py")


def check_description(path: Path, about: Any) -> None:
    """Raise UserError unless a description has every entry, each of its type and range."""
    if not isinstance(about, dict):
        raise damaged(path, "its description is not a dictionary")
    if about.get("format") != FORMAT:
        raise UserError(
            f"{path} is a detector of format {about.get('format')!r}, this program reads format "
            f"{FORMAT}; make it again with calibrate.py"
        )
    for name, check in ENTRIES.items():
        if name not in about or not check(about[name]):
            raise damaged(path, f"its entry {name} is missing, or of another type or range")
    check_recipe(path, about["recipe"])


def check_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    """Raise UserError unless a recipe has this program's fields, each of its type or choices."""
    if set(recipe) != set(FIELDS):
        different = sorted(set(recipe) ^ set(FIELDS))
        raise damaged(path, f"its recipe does not have this program's fields: {different[0]}")
    for name, value in recipe.items():
        if name in CHOICES:
            check = one_of(*CHOICES[name])
        else:
            check = truth if truth(FIELDS[name].default) else finite
        if not check(value):
            raise damaged(path, f"its recipe has {name} = {value!r}")
