"""Checks of values that were read from JSON: what readers of files from elsewhere may rely on.

A schema is a predicate, Entries (a dictionary), Each (a dictionary of any names) or Many (a list).
Needs no torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

MOST_DIGITS = 15  # of a whole number that is counted or chosen


@dataclass(frozen=True)
class Entries:
    """A dictionary; entries that are not named may be anything.

    Args:
        schemas: of its entries by name. They may be missing, or null, which is "not known".
        needed: names of those that are there and not null.
        present: names of those that are there, perhaps null.

    """

    schemas: "Mapping[str, Schema]"
    needed: tuple[str, ...] = ()
    present: tuple[str, ...] = ()

    def missing(self, value: Mapping[str, Any]) -> str:
        """Return the name of an entry that should be there and is not; "" if all are."""
        absent = [name for name in (*self.needed, *self.present) if name not in value]
        absent += [name for name in self.needed if value.get(name) is None]
        return absent[0] if absent else ""


@dataclass(frozen=True)
class Each:
    """A dictionary of any names, whose values follow a schema or are null."""

    schema: "Schema"


@dataclass(frozen=True)
class Many:
    """A list, whose values follow a schema.

    Args:
        schema: of its values.
        length: of the list; None: any.
        least: the least length.

    """

    schema: "Schema"
    length: int | None = None
    least: int = 0


Schema: TypeAlias = Callable[[Any], bool] | Entries | Each | Many


def problem(value: Any, schema: Schema, place: str = "") -> str:
    """Return what is wrong with a value that was read, such as "details.image is missing"; "": ok.

    `place` is its dotted name.
    """
    start = f"{place}." if place else ""
    if not fits(value, schema):
        return f"{place or 'its content'} is of another type or range"
    if isinstance(schema, Entries) and (missing := schema.missing(value)):
        return f"{start}{missing} is missing"
    for name, inner, own in parts(value, schema):
        if inner is not None and (found := problem(inner, own, f"{start}{name}")):
            return found
    return ""


def fits(value: Any, schema: Schema) -> bool:
    """Return whether a value is what a schema asks for, but for the values within."""
    if isinstance(schema, Entries | Each):
        return mapping(value)
    if isinstance(schema, Many):
        of_length = isinstance(value, list) and schema.length in (None, len(value))
        return of_length and len(value) >= schema.least and None not in value
    return schema(value)


def parts(value: Any, schema: Schema) -> list[tuple[str, Any, Schema]]:
    """Return the values within a value, each with its name and its schema."""
    if isinstance(schema, Entries):
        return [(name, value[name], own) for name, own in schema.schemas.items() if name in value]
    if isinstance(schema, Each):
        return [(name, inner, schema.schema) for name, inner in value.items()]
    if isinstance(schema, Many):
        return [(str(number), inner, schema.schema) for number, inner in enumerate(value)]
    return []


# ---------------------------------------------------------------------- predicates


def number(value: Any) -> bool:
    """Return whether a value is a number that a float can hold; NaN is one."""
    if truth(value) or not isinstance(value, int | float):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def finite(value: Any) -> bool:
    """Return whether a value is a number that a float can hold, and finite."""
    return number(value) and abs(float(value)) < float("inf")


def whole(value: Any) -> bool:
    """Return whether a value is a whole number, of a size that occurs."""
    return type(value) is int and abs(value) < 10**MOST_DIGITS


def between(low: int, high: int) -> Callable[[Any], bool]:
    """Return a predicate for whole numbers of a range."""
    return lambda value: whole(value) and low <= value <= high


def one_of(*choices: str) -> Callable[[Any], bool]:
    """Return a predicate for some words."""
    return lambda value: text(value) and value in choices


def text(value: Any) -> bool:
    """Return whether a value is text."""
    return isinstance(value, str)


def truth(value: Any) -> bool:
    """Return whether a value is true or false."""
    return isinstance(value, bool)


def mapping(value: Any) -> bool:
    """Return whether a value is a dictionary."""
    return isinstance(value, dict)
