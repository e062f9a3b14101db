"""Cases (patients) and slice numbers of images: the one reader of both, from file names and tables.

In this order, the first that says something about a file:

    <data>/<name>_AD/cases.csv       columns file, case, slice; a file is a path below that folder,
                                     or a name that only one of its files has
    `cases` in object.toml           a regular expression with groups case and slice
    the authors' file names          `names` of dataset/catalog.py
    the general rule                 all before the last `_` or `-` followed by a number is the
                                     case, the number is the slice: 00003_60

The general rule is a guess, so `places` believes it only where it groups a set of images. No torch.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dataset.catalog import ObjectInfo
from dataset.patterns import fullmatch
from dataset.texts import read_text
from dataset.wording import shortened
from errors import UserError

# 00003_60, case_12_slice_40, NORMAL-1017237-1: the case is all but the last number
GENERAL = r"(?P<case>.+)[_\-](?P<slice>\d+)"
TABLE = "cases.csv"
COLUMNS = ("file", "case", "slice")
MOST_DIGITS = 18  # of a slice: it fits into 64 bit


@dataclass(frozen=True)
class Place:
    """Where an image comes from: its case (patient) and the number of its slice; None: unknown."""

    case: str | None = None
    slice: int | None = None


UNKNOWN = Place()


class Located(Protocol):
    """Something with an image file, such as dataset.folder.Record."""

    @property
    def image(self) -> Path:
        """The image file."""
        ...


def match_place(stem: str, pattern: str) -> Place | None:
    """Return what a pattern reads from a file name without its suffix; None: it does not match.

    Raises UserError for a pattern whose search does not end.
    """
    match = fullmatch(pattern, stem)
    if match is None:
        return None
    groups = match.groupdict()
    return Place(groups["case"] or None, slice_number(groups.get("slice") or ""))


def slice_number(text: str) -> int | None:
    """Return the number of a slice; None for what is no whole number, or has too many digits."""
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


def read_place(name: str, rule: ObjectInfo | str = "") -> Place:
    """Return the case and slice number that a file name shows.

    `rule` is a pattern with a group `case`, and perhaps `slice`, that matches the whole name
    without its suffix, or an object with such patterns; "" is the general rule. A slice that is no
    number is unknown.
    """
    stem = Path(name).stem
    if isinstance(rule, str):
        return match_place(stem, rule or GENERAL) or UNKNOWN
    if rule.cases:
        return match_place(stem, rule.cases) or UNKNOWN
    authors = match_place(stem, rule.names) if rule.names else None
    return authors or match_place(stem, GENERAL) or UNKNOWN


def read_case(name: str, pattern: str = "") -> str | None:
    """Return the case that a file name shows, None if it shows none, see `read_place`."""
    return read_place(name, pattern).case


def case_of(name: str, pattern: str = "") -> str:
    """Return the case of a file name; a name that shows none is a case of its own."""
    return read_case(name, pattern) or Path(name).stem


def group_by_case(
    names: Sequence[str], pattern: str = "", known: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Group file names by case, see `case_of`, cases and names sorted.

    Without a pattern, if all names share one case, or no two do, each name is a group of its own:
    `slice_1`, `slice_2` ... are numbers of images, not images of one patient. `known` holds cases
    by name that need not be read from it, as `listed_cases` returns them.
    """
    known = known or {}
    cases: dict[str, list[str]] = {}
    for name in sorted(names):
        cases.setdefault(known.get(name) or case_of(name, pattern), []).append(name)
    if pattern or known or 2 <= len(cases) < len(names):
        return [cases[case] for case in sorted(cases)]
    return [[name] for name in sorted(names)]


# -------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Table:
    """The contents of a cases.csv: places by path below the object's folder, and by file name."""

    path: Path
    by_path: dict[str, Place] = field(default_factory=dict)
    by_name: dict[str, Place] = field(default_factory=dict)

    def find(self, files: Sequence[Path]) -> list[Place | None]:
        """Return the place of each file that the table lists, else None.

        Raises UserError for a listed name that several of the files have.
        """
        top = self.path.parent.absolute()
        below = {file: file.absolute() for file in files}
        keys = {
            file: path.relative_to(top).as_posix()
            for file, path in below.items()
            if path.is_relative_to(top)
        }
        counts = Counter(file.name for file, key in keys.items() if key not in self.by_path)
        for name in self.by_name:
            if counts[name] > 1:
                raise UserError(
                    f"{self.path} lists {name}, a name of {counts[name]} images; write the path "
                    f"below {self.path.parent}, such as test/good/img/{name}"
                )
        return [
            self.by_path.get(keys[file]) or self.by_name.get(file.name) if file in keys else None
            for file in files
        ]


def read_table(folder: Path) -> Table:
    """Read the cases.csv of an object's folder; an empty table without a file.

    Raises UserError for a file without the columns file and case, a slice that is no whole number,
    and a file that is listed with two places.
    """
    table = Table(folder / TABLE)
    if not os.path.lexists(table.path):
        return table
    text = read_text(table.path, "fix it or remove it")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        header = list(reader.fieldnames or ())
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{table.path} cannot be read ({error}); fix it or remove it") from error
    check_header(table.path, header)
    for number, row in enumerate(rows, 2):
        add_row(table, number, row)
    return table


def check_header(path: Path, header: Sequence[str]) -> None:
    """Raise UserError unless the columns of a cases.csv can be told apart."""
    missing = [name for name in COLUMNS[:2] if name not in header]
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if missing or twice:
        fault = f"no column {' '.join(missing)}" if missing else f"two columns {' '.join(twice)}"
        raise UserError(
            f"{path} has {fault}; it has {shortened(' '.join(header)) or 'none'}, allowed are "
            f"{', '.join(COLUMNS)}, separated by commas"
        )


def add_row(table: Table, number: int, row: Mapping[str, str | None]) -> None:
    """Take a row of a cases.csv, its line `number`, into the table. Raises UserError."""
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    file = values["file"].replace("\\", "/").removeprefix("./")
    if not file:
        raise UserError(f"{table.path} line {number} names no file; fill in the column file")
    if values["slice"] and slice_number(values["slice"]) is None:
        raise UserError(
            f"{table.path} line {number}: slice {shortened(repr(values['slice']))}; allowed are "
            f"whole numbers from 0, of at most {MOST_DIGITS} digits, and an empty field"
        )
    place = Place(values["case"] or None, slice_number(values["slice"]))
    listed = table.by_path if "/" in file else table.by_name
    if listed.setdefault(file, place) != place:
        raise UserError(
            f"{table.path} line {number}: {file} is listed before, with another case or slice; "
            "keep one line"
        )


# -------------------------------------------------------------------- a set of images


def paths_of(files: Sequence[Path | Located]) -> list[Path]:
    """Return the image files of paths or records."""
    return [file if isinstance(file, Path) else file.image for file in files]


def listed_cases(files: Sequence[Path | Located], folder: Path) -> dict[Path, str]:
    """Return the cases that the cases.csv of an object's folder has of some files, by path.

    Raises UserError, see `read_table`.
    """
    paths = paths_of(files)
    found = zip(paths, read_table(folder).find(paths), strict=True)
    return {path: place.case for path, place in found if place and place.case}


def guessed(names: Sequence[str]) -> list[Place]:
    """Return the places of file names by the general rule, as far as it can be believed.

    A case has a digit (`tumor_1` shows none), and there must be several cases, one of which has
    several images: else nothing is known of any.
    """
    read = [read_place(name) for name in names]
    read = [
        place if place.case and any(map(str.isdigit, place.case)) else UNKNOWN for place in read
    ]
    counts = Counter(place.case for place in read if place.case)
    believed = len(counts) >= 2 and max(counts.values()) >= 2
    return read if believed else [UNKNOWN] * len(names)


def named_places(names: Sequence[str], info: ObjectInfo) -> list[Place]:
    """Return the places of a set of file names of an object, as the names show them."""
    if info.cases:
        return [read_place(name, info.cases) for name in names]
    if info.names:
        read = [match_place(Path(name).stem, info.names) for name in names]
        if any(read):
            return [place or UNKNOWN for place in read]
    return guessed(names)


def places(files: Sequence[Path | Located], info: ObjectInfo, folder: Path) -> list[Place]:
    """Return the case and slice number of each image of a set, in its order.

    Args:
        files: images of the object, paths or records (with an attribute `image`). Sets that are to
            be compared, such as shots and test images, belong into one call: the general rule is
            believed or not for all of them.
        info: the object.
        folder: its folder `<data>/<name>_AD`, which may hold a cases.csv.

    Raises:
        UserError: the cases.csv cannot be used.

    """
    paths = paths_of(files)
    listed = read_table(folder).find(paths)
    others = [path.name for path, place in zip(paths, listed, strict=True) if place is None]
    read = iter(named_places(others, info))
    return [next(read) if place is None else place for place in listed]
