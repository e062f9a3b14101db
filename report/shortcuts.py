"""The table of shortcuts: what scores that see no lesion reach on each object with a folder.

It needs no network and no training. Results are cached below the folder of the report, under a key
of everything they depend on: names, sizes, cases and slices of the images.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.catalog import ObjectInfo, find_object
from dataset.layout import LABELS, image_folder, object_folder
from errors import UserError
from mvfa import __version__
from mvfa.defaults import DEFAULT_RESAMPLES, DEFAULT_SEED
from mvfa.run_files import load_json
from mvfa.shortcuts import HONEST, KNOWS
from report.study import Study, percent
from report.tables import Column, Table, table
from utils import write_whole

if TYPE_CHECKING:
    from dataset.folder import Record

FOLDER = "shortcuts"  # of the cached results, below --root
SPLITS = ("test", "valid")
COLUMNS = (
    Column("object", "Object"),
    Column("name", "Score"),
    Column("kind", "From"),
    Column("fit", "Fit"),
    Column("auroc", "Image AUROC", 2),
    Column("low", "95 % by image from", 2),
    Column("high", "to", 2),
    Column("case_low", "95 % by case from", 2),
    Column("case_high", "to", 2),
    Column("within_slice", "Within slice numbers", 2),
    Column("within_case", "Within cases", 2),
    Column("images", "Images", 0),
    Column("cases", "Cases", 0),
)

Results = Mapping[str, Sequence[Mapping[str, Any]]]  # of each object its shortcuts, as plain values


# -------------------------------------------------------------------- compute


def split_records(data_path: Path, info: ObjectInfo, split: str) -> "list[Record]":
    """Return the images of a split without their masks; none if it has no folder."""
    from dataset.folder import Record
    from dataset.layout import list_images

    folders = {state: image_folder(data_path, info.name, split, state) for state in LABELS}
    return [
        Record(folder, image.name, None, LABELS[state], info)
        for state, folder in folders.items()
        for image in list_images(folder)
    ]


def object_shortcuts(data_path: Path, obj: str, cache: Path) -> list[dict[str, Any]]:
    """Return the shortcuts of an object as plain values, cached in a JSON file.

    Raises UserError for images, an object.toml or a cases.csv that cannot be used.
    """
    from dataset.cases import places

    info = find_object(data_path, obj)
    records = {split: split_records(data_path, info, split) for split in SPLITS}
    everything = [record for split in SPLITS for record in records[split]]
    found = places(everything, info, object_folder(data_path, obj))
    files = [
        (str(r.image.relative_to(data_path)), r.image.stat().st_size, place.case, place.slice)
        for r, place in zip(everything, found, strict=True)
    ]
    content = [__version__, files, str(info.intensity), DEFAULT_RESAMPLES, DEFAULT_SEED]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    cached = load_json(cache)
    if cached is not None and cached.get("key") == key:
        return list(cached["shortcuts"])
    results = computed(records, found)
    text = json.dumps({"key": key, "shortcuts": results}, indent=1) + "\n"
    write_whole(cache, partial(Path.write_text, data=text, encoding="utf-8"))
    return results


def computed(records: "Mapping[str, list[Record]]", found: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the shortcuts of the images of each split; `found` are the places of all of them."""
    from mvfa.shortcuts import read_images, shortcuts

    tested = len(records["test"])
    test = read_images(records["test"], found[:tested])
    valid = read_images(records["valid"], found[tested:]) if records["valid"] else None
    results = shortcuts(test, valid, resamples=DEFAULT_RESAMPLES, seed=DEFAULT_SEED)
    return [result.as_dict() for result in results]


def has_test(data_path: Path, obj: str) -> bool:
    """Return whether an object has a folder of test images."""
    return (object_folder(data_path, obj) / "test").is_dir()


def plan(data_path: Path, objects: Iterable[str], root: Path) -> list[str]:
    """Return a line for each object: whether its shortcuts are cached, to compute, or missing."""
    states = {}
    for obj in objects:
        cached = (root / FOLDER / f"{obj}.json").is_file()
        there = "cached, computed again if images have changed" if cached else "to compute"
        states[obj] = there if has_test(data_path, obj) else f"no images of {obj}"
    return [f"{FOLDER:9} {obj:15} {state}" for obj, state in states.items()]


def all_shortcuts(data_path: Path, objects: Iterable[str], root: Path) -> dict[str, Any]:
    """Return the shortcuts of each object that has test images; results are cached below `root`.

    An object whose files cannot be used is left out, and standard error says why.
    """
    found: dict[str, Any] = {}
    for obj in objects:
        if not has_test(data_path, obj):
            continue
        try:
            found[obj] = object_shortcuts(data_path, obj, root / FOLDER / f"{obj}.json")
        except UserError as error:
            print(f"shortcuts of {obj} left out: {error}", file=sys.stderr)
    return found


# -------------------------------------------------------------------- show


def record_of(obj: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a shortcut as a row: shares in percent."""
    low, high = result["by_image"] or (None, None)
    case_low, case_high = result["by_case"] or (None, None)
    fractions = {
        "auroc": result["auroc"],
        "low": low,
        "high": high,
        "case_low": case_low,
        "case_high": case_high,
        "within_slice": result["within_slice"],
        "within_case": result["within_case"],
    }
    texts = {key: result[key] for key in ("name", "kind", "fit", "images", "cases")}
    return {"object": obj} | texts | {key: percent(value) for key, value in fractions.items()}


def shortcut_table(study: Study) -> Table:
    """Return every shortcut of every object: csv/shortcuts.csv and a section of the page."""
    records = [
        record_of(obj, result) for obj, results in study.shortcuts.items() for result in results
    ]
    return table("shortcuts", COLUMNS, records)


def best(study: Study, obj: str) -> tuple[float, str] | None:
    """Return the AUROC in percent and the name of an object's best honest shortcut, if any.

    Honest ones use no label of the test; only which of them is the best is chosen by the test.
    """
    honest = [r for r in study.shortcuts.get(obj, ()) if r["fit"] in HONEST]
    if not honest:
        return None
    highest = max(honest, key=lambda result: float(result["auroc"]))
    return 100 * float(highest["auroc"]), str(highest["name"])


def shortcut_row(study: Study, objects: Iterable[str]) -> dict[str, tuple[float, str]]:
    """Return the best honest shortcut of each object that has one: AUROC in percent, and name."""
    rows = {obj: best(study, obj) for obj in objects}
    return {obj: row for obj, row in rows.items() if row is not None}


def best_line(study: Study, obj: str) -> str:
    """Return "a score that knows only the slice's depth reaches 81.0", "" without shortcuts."""
    found = best(study, obj)
    if found is None:
        return ""
    return f"a score that knows only {KNOWS[found[1]]} reaches {found[0]:.1f}"
