"""The settings of a study's runs, by kind of training (few-shot, zero-shot), for the page.

Runs of one kind may differ: every value is then listed with the rows that have it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvfa.defaults import FEW, ZERO
from mvfa.methods.catalog import METHODS, MVFA
from mvfa.protocol import protocol_text
from report.study import DONE, Cell

NONE = "none"
KINDS = {FEW: "Few-shot training", ZERO: "Zero-shot training", NONE: "Without training"}
TRAINING_OPTIONS = ("epoch", "batch_size", "learning_rate", "img_size", "precision")
MOST_ROWS = 3  # more rows than these are counted instead of named

Labelled = tuple[str, Mapping[str, Any]]  # the row of a run, and its settings


def method_name(cell: Cell) -> str:
    """Return the name of a done cell's method; MVFA where none was recorded."""
    name = (cell.metrics.get("options") or {}).get("method")
    return name if name in METHODS else MVFA


def training_kind(cell: Cell) -> str:
    """Return "few" or "zero": how a done cell was trained; "none": its method is not trained."""
    if not METHODS[method_name(cell)].keys:
        return NONE
    script = (cell.training.get("options") or {}).get("script")
    if script:
        return str(script).removeprefix("train_")
    options = cell.metrics.get("options") or {}  # published adapters: their test knows the kind
    if options.get("abnormal_shot") == 0:
        return ZERO
    return str(options.get("script", "")).removeprefix("test_")


def training_settings(cell: Cell) -> dict[str, Any]:
    """Return recipe and training options of a done cell, by dotted name.

    Of published adapters only the recipe they are scored with is known.
    """
    trained = cell.training.get("options") or {}
    options = trained or cell.metrics.get("options") or {}
    settings = {name: trained[name] for name in TRAINING_OPTIONS if name in trained}
    recipe = options.get("recipe") or {}
    return settings | {f"recipe.{name}": value for name, value in recipe.items()}


def merged(runs: Sequence[Labelled]) -> dict[str, str]:
    """Return one text for each setting of several runs: its value, or each value and its rows."""
    names = dict.fromkeys(name for _, settings in runs for name in settings)
    return {name: merged_value(name, runs) for name in names}


def merged_value(name: str, runs: Sequence[Labelled]) -> str:
    """Return the value of a setting where all runs share it, else each value and its rows."""
    rows_by_value: dict[str, list[str]] = {}
    for row, settings in runs:
        rows_by_value.setdefault(text_of(settings.get(name)), []).append(row)
    if len(rows_by_value) == 1:
        return next(iter(rows_by_value))
    return "; ".join(f"{value} ({where(rows, len(runs))})" for value, rows in rows_by_value.items())


def where(rows: Sequence[str], total: int) -> str:
    """Return which rows have a value, or how many runs of `total` if these are many rows."""
    unique = dict.fromkeys(rows)
    count = f"{len(rows)} of {total} runs"
    return count if len(unique) > MOST_ROWS else f"{count}: {', '.join(unique)}"


def text_of(value: Any) -> str:
    """Return a setting's value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not recorded" if value is None else str(value)


def unique_runs(cells: Iterable[Cell]) -> list[Cell]:
    """Return done cells, of those that share a training folder the first only."""
    runs: dict[object, Cell] = {}
    for index, cell in enumerate(cells):
        if cell.state == DONE:
            runs.setdefault(cell.training_folder or index, cell)
    return list(runs.values())


def protocols(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """Return the protocol of one run of each method and kind of training, with the run's label.

    The run is the first of its kind that is done and has recorded its settings.
    """
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for cell in unique_runs(cells):
        text = protocol_text(cell.metrics)
        if text:
            found.setdefault((method_name(cell), training_kind(cell)), (cell.label, text))
    return list(found.values())


def study_settings(cells: Sequence[Cell]) -> dict[str, dict[str, str]]:
    """Return the settings of the done cells' runs: of each kind of training, versions, weights.

    Names of sections -> names of settings -> texts. Paths are left out; empty if no cell is done.
    """
    runs = unique_runs(cells)
    sections = {}
    for kind, title in KINDS.items():
        alike = [(c.row, training_settings(c)) for c in runs if training_kind(c) == kind]
        if alike:
            sections[title] = merged(alike)
    versions = [(c.row, c.metrics["versions"]) for c in runs if c.metrics.get("versions")]
    weights = [
        (
            c.row,
            {
                "file": Path(c.metrics["weights"]["file"]).name,
                "sha256": c.metrics["weights"]["sha256"],
            },
        )
        for c in runs
        if c.metrics.get("weights")
    ]
    if versions:
        sections["Versions"] = merged(versions)
    if weights:
        sections["Weights"] = merged(weights)
    return sections
