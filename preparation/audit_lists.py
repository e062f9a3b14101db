"""Findings of `check` about shot lists, and about cases (patients) in both splits."""

import re
from collections.abc import Iterator
from pathlib import Path

from dataset.cases import TABLE, Place, places, read_table
from dataset.draws import TAGS
from dataset.layout import SPLITS
from dataset.shots import list_lines
from errors import UserError
from preparation.audit_findings import ERROR, NOTE, WARNING, Contents, Finding, found, plural

LIST = re.compile(r"([1-9]\d*)-shot\.txt")
LINE = re.compile(rf"([{''.join(TAGS.values())}])-(\d+)")
NEAR = 2  # slices
STATES = {tag: state for state, tag in TAGS.items()}


def list_findings(contents: Contents, lists: Path) -> Iterator[Finding]:
    """Yield faults of the lists `<lists>/<object>/<K>-shot.txt`, and names they cannot hold."""
    spaced = [
        group.image(name)
        for group in contents.groups
        if group.split == "valid"
        for name in group.images.names
        if name.split() != [name]
    ]
    text = "with white space in the name, which shot lists cannot hold; rename it"
    yield from found(WARNING, "white_space", "image", text, spaced)
    folder = lists / contents.info.name
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files and contents.info.benchmark:
        yield Finding(NOTE, "list_missing", f"no shot lists in {folder}")
    for path in files:
        match = LIST.fullmatch(path.name)
        if match is None:
            text = f"{path} is not named as a shot list, <K>-shot.txt, so never read"
            yield Finding(NOTE, "list_name", text)
        else:
            yield from one_list(contents, path, int(match[1]))


def one_list(contents: Contents, path: Path, k: int) -> Iterator[Finding]:
    """Yield the faults of one shot list of K images a line."""
    try:
        lines = list_lines(path)
    except UserError as error:
        yield Finding(ERROR, "list_unreadable", str(error))
        return
    seen: set[str] = set()
    for number, key, names in lines:
        match = LINE.fullmatch(key)
        where = f"{path} line {number}"
        if match is None:
            text = f"{where} is not of the form 'n-0: a.png b.png', so never read"
            yield Finding(WARNING, "list_line", text)
            continue
        if key in seen:
            text = f"{where}: a second line {key!r}; keep one"
            yield Finding(ERROR, "list_line", text)
        seen.add(key)
        yield from one_draw(contents, f"{path} {key}", STATES[match[1]], names, k)
    draws = {key.partition("-")[2] for key in seen}
    lonely = [f"{tag}-{draw}" for draw in draws for tag in STATES if f"{tag}-{draw}" not in seen]
    text = f"missing in {path}: a draw has a line of normal and one of abnormal images"
    yield from found(ERROR, "list_draw", "line", text, sorted(lonely))
    if not seen:
        yield Finding(ERROR, "list_line", f"{path} has no draw; replace it")


def one_draw(
    contents: Contents, where: str, state: str, names: list[str], k: int
) -> Iterator[Finding]:
    """Yield the faults of one line of a shot list: `names` of images of a state."""
    if len(names) != k:
        text = f"{where} names {plural(len(names), 'image')} instead of {k}; fix the list"
        yield Finding(ERROR, "list_count", text)
    if len(set(names)) < len(names):
        yield Finding(ERROR, "list_twice", f"{where} names an image twice; fix the list")
    present = set(contents.group("valid", state).images.names)
    absent = [name for name in names if name not in present]
    text = f"of {where} that valid/{state}/img does not have; get the list that belongs to them"
    yield from found(ERROR, "list_absent", "name", text, absent)


def image_places(contents: Contents) -> dict[str, Place]:
    """Return the case and slice of every image, by its path below the object's folder.

    Empty where a cases.csv cannot be used; `table_findings` says why.
    """
    files = {
        group.image(name): group.images.folder / name
        for group in contents.groups
        for name in group.images.names
    }
    try:
        found = places(list(files.values()), contents.info, contents.top)
    except UserError:
        return {}
    return dict(zip(files, found, strict=True))


def table_findings(contents: Contents) -> Iterator[Finding]:
    """Yield why the cases.csv of the object cannot be used, and which of its lines are not."""
    files = [g.images.folder / name for g in contents.groups for name in g.images.names]
    try:
        places(files, contents.info, contents.top)
        table = read_table(contents.top)
    except UserError as error:
        yield Finding(ERROR, "cases_table", str(error))
        return
    paths = {g.image(name) for g in contents.groups for name in g.images.names}
    unused = [*(table.by_path.keys() - paths), *(table.by_name.keys() - {f.name for f in files})]
    text = f"of {TABLE} that no image has; a file is a path below the object's folder, or a name"
    yield from found(WARNING, "cases_unused", "name", text, sorted(unused))


def listed_shots(contents: Contents, lists: Path) -> set[str]:
    """Return the paths below the object's folder of all images that shot lists name."""
    named: set[str] = set()
    for path in sorted((lists / contents.info.name).glob("*-shot.txt")):
        try:
            lines = list_lines(path)
        except UserError:
            continue  # `list_findings` says so
        for _, key, names in lines:
            if match := LINE.fullmatch(key):
                group = contents.group("valid", STATES[match[1]])
                named.update(group.image(name) for name in names)
    return named


def case_findings(contents: Contents, lists: Path) -> Iterator[Finding]:
    """Yield how many cases (patients) there are in each split, and what test and shots share."""
    yield from table_findings(contents)
    found_places = image_places(contents)
    by_split = {
        split: [
            (path, place) for path, place in found_places.items() if path.startswith(f"{split}/")
        ]
        for split in SPLITS
    }
    cases = {split: {p.case for _, p in pairs if p.case} for split, pairs in by_split.items()}
    if not any(cases.values()):
        return
    common = sorted(set.intersection(*cases.values()))
    counts = ", ".join(f"{len(cases[split]):,} in {split}" for split in SPLITS)
    text = f"cases (patients): {counts}, {len(common):,} in both"
    if common:
        text += "; their images are no independent test of shots taken from them"
    yield Finding(NOTE, "cases", text, tuple(common))
    shots = [found_places[path] for path in listed_shots(contents, lists) if path in found_places]
    own = {shot.case for shot in shots if shot.case}
    text = "of cases that gave a listed shot; --disjoint_cases yes leaves them out"
    same = [path for path, place in by_split["test"] if place.case in own]
    yield from found(NOTE, "shot_cases", "test image", text, same)
    close = [path for path, place in by_split["test"] if any(near(place, s) for s in shots)]
    text = f"next to a listed shot: of its case, at most {NEAR} slices away"
    yield from found(NOTE, "shot_neighbours", "test image", text, close)


def near(place: Place, shot: Place) -> bool:
    """Return whether an image is of a shot's case and at most NEAR slices away from it."""
    if place.case is None or place.slice is None or shot.slice is None:
        return False
    return place.case == shot.case and abs(place.slice - shot.slice) <= NEAR
