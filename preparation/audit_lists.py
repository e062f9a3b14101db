"""Findings of `check` about shot lists, and about cases (patients) in both splits."""

import re
from collections.abc import Iterator
from pathlib import Path

from dataset.cases import read_case
from dataset.draws import TAGS, group_by_case
from dataset.layout import SPLITS
from preparation.audit_findings import ERROR, NOTE, WARNING, Contents, Finding, found, plural

LIST = re.compile(r"([1-9]\d*)-shot\.txt")
LINE = re.compile(rf"([{''.join(TAGS.values())}])-(\d+)")
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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(ERROR, "list_unreadable", f"{path} is not text ({error}); replace it")
        return
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        key, colon, rest = line.partition(":")
        key = key.strip()
        if not key and not colon:
            continue
        match = LINE.fullmatch(key)
        where = f"{path} line {number}"
        if match is None or not colon:
            text = f"{where} is not of the form 'n-0: a.png b.png', so never read"
            yield Finding(WARNING, "list_line", text)
            continue
        if key in seen:
            text = f"{where}: a second line {key!r}, which replaces the first; remove one"
            yield Finding(ERROR, "list_line", text)
        seen.add(key)
        yield from one_draw(contents, f"{path} {key}", STATES[match[1]], rest.split(), k)
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


def case_findings(contents: Contents) -> Iterator[Finding]:
    """Yield how many cases (patients) file names show, and how many are in both splits."""
    pattern = contents.info.cases
    groups = [group.images.names for group in contents.groups]
    if not pattern and not any(len(c) > 1 for names in groups for c in group_by_case(names)):
        return
    cases: dict[str, set[str]] = {split: set() for split in SPLITS}
    for group in contents.groups:
        read = (read_case(name, pattern) for name in group.images.names)
        cases[group.split].update(case for case in read if case)
    common = sorted(set.intersection(*cases.values()))
    counts = ", ".join(f"{len(cases[split]):,} in {split}" for split in SPLITS)
    text = f"cases (patients) by file name: {counts}, {len(common):,} in both"
    if common:
        text += "; their images are no independent test of shots taken from them"
    yield Finding(NOTE, "cases", text, tuple(common))
