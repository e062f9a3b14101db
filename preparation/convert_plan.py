"""Plan a conversion: check a dataset completely, choose splits and names. Nothing is written."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset.cases import TABLE
from dataset.catalog import ANY, CATALOG, HALF, SETTINGS
from dataset.layout import LABELS, SPLITS
from dataset.masks import same_shape
from errors import UserError
from preparation.audit_files import ImageFacts, MaskFacts, Task, cores, look_at_all
from preparation.audit_findings import plural
from preparation.convert_names import carry_cases, entry_cases, unique_names, unite
from preparation.convert_sources import AUTO, Entry, Source, some
from preparation.convert_split import TEST, VALID, split_sides

STATES = {label: state for state, label in LABELS.items()}


@dataclass(frozen=True)
class Request:
    """What to convert, and how.

    Args:
        source: a CSV or the folder of a dataset.
        name: name of the object.
        data_path: folder that `<name>_AD` is written to.
        layout: one of LAYOUTS, or "auto".
        valid: share of the images of each label that become `valid`, where the dataset has none.
        seed: of that choice.
        link: link files instead of copying them.
        noun: the object's noun; None: its name.
        normal: classes that are normal, of tables with classes; None: the dataset's usual one.
        abnormal: classes that are abnormal; None: all others.
        cases: how cases (patients) are known: "auto", "no" or a pattern, see `entry_cases`.
        case_names: whether a case may be put before a file name.
        masks: whether masks are taken.
        overwrite: whether to replace a folder that exists.
        jobs: threads that decode files; None: one for each core.

    """

    source: Path
    name: str
    data_path: Path
    layout: str = AUTO
    valid: float = 0.2
    seed: int = 111
    link: bool = False
    noun: str | None = None
    normal: tuple[str, ...] | None = None
    abnormal: tuple[str, ...] | None = None
    cases: str = AUTO
    case_names: bool = True
    masks: bool = True
    overwrite: bool = False
    jobs: int | None = None


@dataclass(frozen=True)
class Place:
    """Where an entry goes."""

    entry: Entry
    split: str
    case: str
    name: str  # file name of the image

    @property
    def state(self) -> str:
        """The folder of its label."""
        return STATES[self.entry.label]

    @property
    def mask_name(self) -> str:
        """File name of the mask."""
        suffix = self.entry.mask.suffix if self.entry.mask else ""
        return Path(self.name).stem + suffix


@dataclass(frozen=True)
class Conversion:
    """What was, or will be, written.

    Args:
        layout: the layout of the dataset.
        places: where its entries go.
        settings: contents of object.toml.
        notes: lines that say what was done.
        case_table: whether a cases.csv lists cases and slices, which file names do not show.

    """

    layout: str
    places: list[Place]
    settings: dict[str, Any]
    notes: list[str]
    case_table: bool


def plan(request: Request, source: Source) -> Conversion:
    """Check a dataset completely and choose where each image goes. Raises UserError."""
    entries = source.entries
    notes = list(source.notes)
    if not request.masks and any(entry.mask for entry in entries):
        notes.append(f"masks are left out: {sum(entry.mask is not None for entry in entries):,}")
        entries = [replace(entry, mask=None) for entry in entries]
    entries = known_masks(request, entries, notes)
    digests, rule = check_files(request, entries)
    cases = entry_cases(entries, request.cases)
    sides, more = split_sides(entries, unite(cases, digests), request.valid, request.seed)
    notes += more
    kept = [i for i, side in enumerate(sides) if side]
    where = [(sides[i], entries[i].label) for i in kept]
    names, pattern = carry_cases(
        unique_names([entries[i] for i in kept], where),
        where,
        [cases[i] for i in kept],
        request.cases,
        request.case_names,
    )
    places = [
        Place(entries[i], sides[i], cases[i], name) for i, name in zip(kept, names, strict=True)
    ]
    notes += case_notes(places, pattern) + name_notes(places)
    masks = any(entry.mask for entry in entries)
    if rule != HALF:
        notes.append("masks mark lesions by small values such as 1, so every value above 0 counts")
    listed = any(p.entry.slice is not None or (p.case and pattern is None) for p in places)
    return Conversion(source.layout, places, settings(request, masks, rule, pattern), notes, listed)


def known_masks(request: Request, entries: list[Entry], notes: list[str]) -> list[Entry]:
    """Return the entries with the masks that the object can have. Raises UserError."""
    abnormal = [entry for entry in entries if entry.label]
    lonely = [entry.image for entry in abnormal if entry.mask is None]
    masked = len(abnormal) - len(lonely)
    known = CATALOG.get(request.name)
    if known and not known.masks and masked:
        notes.append(f"masks are left out, since {request.name} has none: {masked:,}")
        return [replace(entry, mask=None) for entry in entries]
    if masked and lonely:
        raise UserError(
            f"{len(lonely):,} of {len(abnormal):,} abnormal images without a mask, while others "
            f"have one ({some(lonely)}); add them, or pass --masks no"
        )
    if known and known.masks and not masked:
        raise UserError(f"{request.name} has masks, the dataset has none; choose another --obj")
    return entries


def check_files(request: Request, entries: Sequence[Entry]) -> tuple[list[bytes], str]:
    """Decode every file; return the digest of each image, and the mask rule that reads the masks.

    Raises UserError for files that cannot be read, and for masks of another shape than the image.
    """
    masked = [entry for entry in entries if entry.mask]
    tasks = [Task(entry.image, "") for entry in entries]
    tasks += [Task(entry.mask, HALF) for entry in masked if entry.mask]
    facts = look_at_all(tasks, request.jobs or cores())
    bad = [
        (task.path, fact.problem) for task, fact in zip(tasks, facts, strict=True) if fact.problem
    ]
    if bad:
        raise UserError(
            f"{plural(len(bad), 'file')} that cannot be read ({some(path for path, _ in bad)}); "
            f"the first {bad[0][1]}; replace them or take them out"
        )
    images = [fact for fact in facts if isinstance(fact, ImageFacts)]
    masks = [fact for fact in facts if isinstance(fact, MaskFacts)]
    hidden = [e.mask for e, fact in zip(masked, masks, strict=True) if fact.other_channel]
    if hidden:
        raise UserError(
            f"{plural(len(hidden), 'mask')} in black, with marks in another channel "
            f"({some(hidden)}); save lesions as 255 and background as 0"
        )
    sizes = {entry.image: image.size for entry, image in zip(entries, images, strict=True)}
    other = [
        entry.mask
        for entry, fact in zip(masked, masks, strict=True)
        if not same_shape(fact.size, sizes[entry.image])
    ]
    if other:
        raise UserError(
            f"{plural(len(other), 'mask')} of another shape than the image ({some(other)}); "
            "replace them, or pass --masks no"
        )
    lost = any(fact.marked and not fact.foreground for fact in masks)
    return [image.digest for image in images], ANY if lost else HALF


def settings(request: Request, masks: bool, rule: str, pattern: str | None) -> dict[str, Any]:
    """Return the contents of object.toml: what the catalog does not say."""
    content: dict[str, Any] = {}
    if request.noun is not None:
        content["noun"] = request.noun
    if request.name not in CATALOG:
        content["masks"] = masks
    if rule != HALF:
        content["mask_rule"] = rule
    if pattern:
        content["cases"] = pattern
    return content


def case_notes(places: Sequence[Place], pattern: str | None) -> list[str]:
    """Return lines about cases."""
    cases = {side: {p.case for p in places if p.split == side and p.case} for side in SPLITS}
    if not any(cases.values()):
        return ["no cases (patients) are known: each image counts as one"]
    counts = " and ".join(f"{len(cases[side]):,} in {side}" for side in SPLITS)
    notes = [f"cases (patients): {counts}"]
    if common := cases[VALID] & cases[TEST]:
        notes.append(
            f"the dataset's own splits share cases: {len(common):,} ({some(sorted(common))})"
        )
    if pattern is None:
        notes.append(f"file names do not show the cases; {TABLE} lists them")
    return notes


def name_notes(places: Sequence[Place]) -> list[str]:
    """Return a line about names that were changed."""
    changed = [place for place in places if place.name != place.entry.image.name]
    return [f"file names that were changed: {len(changed):,} (conversion.csv)"] if changed else []


def summary(conversion: Conversion) -> list[str]:
    """Return lines that say what was read and written."""
    places = conversion.places
    counts = Counter((place.split, place.entry.label) for place in places)
    masks = sum(place.entry.mask is not None for place in places)
    lines = [f"layout {conversion.layout}: {len(places):,} images, {masks:,} masks"]
    lines += [f"{s}: {counts[s, 0]:,} normal + {counts[s, 1]:,} abnormal images" for s in SPLITS]
    lines += conversion.notes
    if conversion.settings:
        lines.append(f"{SETTINGS}: {', '.join(setting_lines(conversion))}")
    return lines


def setting_lines(conversion: Conversion) -> list[str]:
    """Return the lines of object.toml."""
    items = conversion.settings.items()
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in items]
