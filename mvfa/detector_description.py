"""What a detector's description may say: each entry, of which type and range. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import UserError
from mvfa.defaults import FEW, PRECISIONS, ZERO
from mvfa.methods.catalog import METHODS
from mvfa.recipe import CHOICES, FIELDS
from mvfa.schema import (
    Entries,
    Many,
    Schema,
    between,
    finite,
    mapping,
    one_of,
    problem,
    text,
    truth,
)

FORMAT = 1
LARGEST = 1e6  # number of a recipe
NORMAL = "normal"  # a setting: normal shots with zero-shot adapters

RANGE = Many(finite, 2)
CALIBRATION: Mapping[str, Schema] = {
    "source": text,
    "names_sha256": text,
    "lo_hi": Entries({"text": RANGE, "memory": RANGE}, (), ("text", "memory")),
    "by": text,
    "selection_used_it": truth,
}
ENTRIES: Mapping[str, Schema] = {
    "object": text,
    "noun": text,
    "masks": truth,
    "setting": one_of(FEW, ZERO, NORMAL),
    "shot": between(0, 2**20),
    "features_list": Many(between(1, 2**10)),
    "embed_dim": between(1, 2**14),
    "recipe": mapping,
    "img_size": between(1, 2**12),
    "precision": one_of(*PRECISIONS),
    "weights": Entries({"sha256": text}, needed=("sha256",)),
    "prepare": text,
    "intensity": text,
    "calibration": Entries(CALIBRATION, tuple(CALIBRATION)),
    "map_ranges": Entries(
        {"text": RANGE, "memory": RANGE, "fused": RANGE}, ("fused",), ("text", "memory")
    ),
    "tensors_sha256": text,
}
OPTIONAL: Mapping[str, Schema] = {  # older files do not have the last two
    "model_name": text,
    "method": one_of(*METHODS),
    "method_settings": mapping,
}
DESCRIPTION = Entries({**ENTRIES, **OPTIONAL}, tuple(ENTRIES), ("model_name",))


def moderate(value: Any) -> bool:
    """Return whether a value is a number that no product of a few makes infinite."""
    return finite(value) and abs(value) <= LARGEST


def damaged(path: Path, reason: str) -> UserError:
    """Return the error for a file that cannot be a detector of this program."""
    return UserError(f"{path} is not a detector ({reason}); make one with calibrate.py")


def check_description(path: Path, about: Any) -> None:
    """Raise UserError unless a description has every entry, each of its type and range."""
    if not mapping(about):
        raise damaged(path, "its description is not a dictionary")
    if about.get("format") != FORMAT:
        raise UserError(
            f"{path} is a detector of format {about.get('format')!r}, this program reads format "
            f"{FORMAT}; make it again with calibrate.py"
        )
    if found := problem(about, DESCRIPTION):
        raise damaged(path, f"of its description {found}")
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
            check = truth if truth(FIELDS[name].default) else moderate
        if not check(value):
            raise damaged(path, f"its recipe has {name} = {value!r}")
