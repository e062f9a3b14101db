"""Cases (patients) of a dataset's images, and file names that are unique and carry them.

The names of a converted object have to give its cases back: draws of shots and calibration read
them there, by the `cases` pattern of object.toml.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

from dataset.cases import group_by_case, read_case
from errors import UserError
from preparation.convert_sources import AUTO, Entry

NO = "no"
DASHES = "--"  # between a case and a name
USUAL = r"(?P<case>.+)[_\-]\d+"  # all before the last number
PREFIXED = rf"(?P<case>.+?){DASHES}.+"
NEVER = r"(?P<case>(?!))"  # matches nothing, so that every image is a case of its own


def entry_cases(entries: Sequence[Entry], rule: str) -> list[str]:
    """Return the case of every entry; "": none is known.

    Args:
        entries: the images.
        rule: "auto": what the dataset says, else what names show, see `named_cases`; "no": none;
            else a regular expression with a group `case` that matches names without their suffix.

    Raises:
        UserError: the expression matches no name.

    """
    if rule == NO:
        return [""] * len(entries)
    if rule != AUTO:
        cases = [read_case(entry.image.name, rule) or "" for entry in entries]
        if not any(cases):
            raise UserError(
                f"--cases {rule!r} matches no file name, such as {entries[0].image.stem}; "
                "it has to match the whole name without its suffix"
            )
        return cases
    if any(entry.case for entry in entries):
        return [entry.case for entry in entries]
    return named_cases(entries)


def named_cases(entries: Sequence[Entry]) -> list[str]:
    """Return the cases that names such as 00003_60 show: all before the last number; "": none.

    A case has a digit (so `tumor_1` shows none), and among the images of a label there must be
    several cases, one of which has several images.
    """
    cases = [read_case(entry.image.name) or "" for entry in entries]
    cases = [case if any(map(str.isdigit, case)) else "" for case in cases]
    for label in (0, 1):
        counts = Counter(
            case for case, e in zip(cases, entries, strict=True) if case and e.label == label
        )
        if 2 <= len(counts) < counts.total():
            return cases
    return [""] * len(entries)


def unite(cases: Sequence[str], digests: Sequence[Hashable]) -> list[int]:
    """Return a number for every image: the same for images of one case or of the same content."""
    first: dict[tuple[str, Hashable], int] = {}
    parents = list(range(len(cases)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    for i, (case, digest) in enumerate(zip(cases, digests, strict=True)):
        for key in ([("case", case)] if case else []) + [("content", digest)]:
            parents[root(i)] = root(first.setdefault(key, i))
    return [root(i) for i in range(len(cases))]


def clean(name: str) -> str:
    """Return a file name without white space, and not hidden."""
    return re.sub(r"\s+", "_", name).lstrip(".-") or "_"


def unique_names(entries: Sequence[Entry], places: Sequence[Hashable]) -> list[str]:
    """Return file names of which no two in one place differ in the suffix or in case only.

    Names that collide get their class or folder before them, and if that does not help a number.
    """
    names = [clean(entry.image.name) for entry in entries]
    for i in collisions(names, places):
        prefix = entries[i].kind or entries[i].image.parent.name
        names[i] = f"{clean(prefix)}-{names[i]}"
    number = 1
    while repeated := collisions(names, places, first=False):
        number += 1
        for i in repeated:
            path = Path(names[i])
            names[i] = f"{path.stem}x{number}{path.suffix}"
    return names


def collisions(names: Sequence[str], places: Sequence[Hashable], first: bool = True) -> list[int]:
    """Return the positions of names that collide with another; without `first`, but one of each."""
    same: dict[tuple[Hashable, str], list[int]] = defaultdict(list)
    for i, (name, where) in enumerate(zip(names, places, strict=True)):
        same[where, Path(name).stem.lower()].append(i)
    return sorted(
        i for group in same.values() if len(group) > 1 for i in group[0 if first else 1 :]
    )


def carry_cases(
    names: Sequence[str], places: Sequence[Hashable], cases: Sequence[str], rule: str, prefix: bool
) -> tuple[list[str], str | None]:
    """Return names that give the cases back, and the pattern that reads them.

    Args:
        names: unique file names.
        places: split and label of each.
        cases: of each; "": a case of its own.
        rule: of `entry_cases`.
        prefix: whether a case may be put before a name that does not show it.

    Returns:
        The names, and a pattern: "" if the usual rule reads them, None if names do not show cases.

    """
    candidates = ["", USUAL, NEVER] if rule in (AUTO, NO) else ["", rule, USUAL]
    for pattern in candidates:
        if gives_back(names, places, cases, pattern):
            return list(names), pattern
    if not prefix:
        return list(names), None
    labels = dict(zip(sorted(set(cases)), unique_labels(sorted(set(cases))), strict=True))
    carried = [
        (labels[case] + DASHES if case else "") + name.replace(DASHES, "-")
        for name, case in zip(names, cases, strict=True)
    ]
    return carried, PREFIXED


def unique_labels(cases: Sequence[str]) -> list[str]:
    """Return cases as parts of file names, no two alike."""
    labels: list[str] = []
    taken: set[str] = set()
    for case in cases:
        label = re.sub(rf"[\s/\\:]+|{DASHES}+", "-", case).strip("-.") or "case"
        while label.lower() in taken:
            label += "x"
        taken.add(label.lower())
        labels.append(label)
    return labels


def gives_back(
    names: Sequence[str], places: Sequence[Hashable], cases: Sequence[str], pattern: str
) -> bool:
    """Return whether a pattern reads the cases from names, as draws and `check` do."""
    known: dict[str, str] = {}
    for name, case in zip(names, cases, strict=True):
        shown = read_case(name, pattern) or ""
        if pattern and bool(shown) != bool(case):
            return False
        if shown and known.setdefault(shown, case) != case and pattern:
            return False
    if pattern:
        return len(set(known.values())) == len(known)
    for place in set(places):
        inside = {n: c or n for n, c, p in zip(names, cases, places, strict=True) if p == place}
        shown_groups = {frozenset(group) for group in group_by_case(list(inside))}
        true: dict[str, set[str]] = defaultdict(set)
        for name, case in inside.items():
            true[case].add(name)
        if shown_groups != {frozenset(group) for group in true.values()}:
            return False
    return True
