"""What a report is made of: tables, the runs that fill their cells, and published results.

A cell is one row and object of a table; with several seeds or draws it holds several runs. A `Cell`
is one of them: one training and one test. This module needs no torch.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.catalog import CATALOG, PAPER_ORDER
from errors import UserError
from mvfa.run_files import load_metrics, read_scores

METRICS = ("image_auroc", "pixel_auroc")
DONE = "done"
MISSING = "missing"
FAILED = "failed"
STATES = (DONE, MISSING, FAILED)
AVERAGE = "average"  # the object of a mean over all six objects in paper_results.csv
PUBLISHED = Path(__file__).parent / "paper_results.csv"

# (table, shot, method, object, metric) -> percent
PublishedResults = Mapping[tuple[str, str, str, str, str], float]


@dataclass(frozen=True)
class Cell:
    """One run (training and test) of a table's cell.

    `metrics` and `training` are the contents of their metrics.json, with the curves of curves.json.
    `reason` says what a missing run needs, or the error of a failed one. `folder` is the folder of
    the test, with its pictures, `training_folder` that of the training: cells of several tables may
    share both. `branch` is the one whose scores the cell shows. Raises ValueError for an unknown
    state.
    """

    table: str
    row: str
    obj: str
    seed: int
    draw: int
    state: str
    reason: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    training_folder: Path | None = None
    branch: str = "both"

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state {self.state!r} of a cell; allowed: {', '.join(STATES)}")

    @property
    def run(self) -> tuple[int, int]:
        """Seed and draw, which distinguish the runs that are averaged."""
        return self.seed, self.draw

    @property
    def mask_rule(self) -> str:
        """Which grey values of masks its run counted as foreground; "" where none was recorded."""
        return str(self.metrics.get("mask_rule") or "")

    @property
    def label(self) -> str:
        """The cell's name within its table."""
        return f"{self.row}, {self.obj}, seed {self.seed}, draw {self.draw}"

    def percent(self, metric: str) -> float | None:
        """Return `image_auroc` or `pixel_auroc` in percent; None unless the cell is done."""
        return percent(self.metrics.get(metric)) if self.state == DONE else None

    def measures(self, granularity: str, branch: str) -> Mapping[str, Any]:
        """Return the detailed metrics of "image" or "pixel" and "text", "memory" or "both".

        Empty where there are none.
        """
        return ((self.metrics.get("details") or {}).get(granularity) or {}).get(branch) or {}


@dataclass(frozen=True)
class Source:
    """Where paper_results.csv holds a row: its columns `table`, `shot` and `method`, as text."""

    table: str
    shot: str
    method: str


@dataclass(frozen=True)
class Published:
    """Sources of the published results of one row of a table; None where nothing was published."""

    row: str
    paper: Source | None = None
    implementation: Source | None = None


@dataclass(frozen=True)
class TableSpec:
    """One table: rows x objects.

    `shots` holds K of each row where the table is a shot curve, else it is empty. `heat_maps`: the
    table's section shows heat maps, and the gallery shows its runs. `methods`: the rows are
    methods; the section shows what they cost, and each against the first. Raises ValueError for
    shots that do not match the rows, and for published results of a row that the table does not
    have.
    """

    name: str
    title: str
    caption: str
    rows: tuple[str, ...]
    objects: tuple[str, ...] = PAPER_ORDER
    published: tuple[Published, ...] = ()
    shots: tuple[int, ...] = ()
    heat_maps: bool = False
    methods: bool = False

    def __post_init__(self) -> None:
        if self.shots and len(self.shots) != len(self.rows):
            raise ValueError(f"{self.name}: {len(self.shots)} shots for {len(self.rows)} rows")
        if unknown := {p.row for p in self.published} - set(self.rows):
            raise ValueError(f"{self.name}: published results of unknown rows {sorted(unknown)}")

    def of_row(self, row: str) -> Published:
        """Return the sources of the published results of a row."""
        return next((p for p in self.published if p.row == row), Published(row))


@dataclass(frozen=True)
class Study:
    """Everything that a report shows. `settings` holds options, versions and hashes.

    `shortcuts` holds for each object what scores that see no lesion reach, as
    `mvfa.shortcuts.Shortcut.as_dict` returns it; empty unless they were asked for. Raises
    ValueError for a cell whose table, row or object is in no spec.
    """

    title: str
    demo: bool
    specs: tuple[TableSpec, ...]
    cells: tuple[Cell, ...]
    command: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    shortcuts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        specs = {spec.name: spec for spec in self.specs}
        for cell in self.cells:
            spec = specs.get(cell.table)
            if spec is None or cell.row not in spec.rows or cell.obj not in spec.objects:
                raise ValueError(f"no table has a cell {cell.table}, {cell.row}, {cell.obj}")

    def at(self, table: str, row: str, obj: str) -> list[Cell]:
        """Return the runs of one row and object of a table, by seed and draw."""
        return sorted(
            (c for c in self.cells if (c.table, c.row, c.obj) == (table, row, obj)),
            key=lambda c: c.run,
        )

    def groups(self) -> Iterator[tuple[TableSpec, str, str, list[Cell]]]:
        """Yield (table, row, object, runs) of every cell that has runs, in the tables' order."""
        for spec in self.specs:
            for row in spec.rows:
                for obj in spec.objects:
                    if cells := self.at(spec.name, row, obj):
                        yield spec, row, obj, cells

    def unique_groups(
        self, folder_of: Callable[[Cell], Path | None]
    ) -> Iterator[tuple[TableSpec, str, str, list[Cell]]]:
        """Yield `groups` without those whose runs have the same folders as an earlier group's."""
        seen: set[tuple[Path | None, ...]] = set()
        for spec, row, obj, cells in self.groups():
            folders = tuple(map(folder_of, cells))
            if None in folders or folders not in seen:
                yield spec, row, obj, cells
            seen.add(folders)

    def count(self, state: str) -> int:
        """Return how many cells are "done", "missing" or "failed"."""
        return sum(cell.state == state for cell in self.cells)

    def has_pixels(self, obj: str) -> bool:
        """Return whether an object has masks: by the catalog, else by what was measured."""
        if obj in CATALOG:
            return CATALOG[obj].masks
        return any(c.obj == obj and c.percent("pixel_auroc") is not None for c in self.cells)

    def metrics_of(self, obj: str) -> tuple[str, ...]:
        """Return the metrics of an object: image AUROC, and pixel AUROC where it has masks."""
        return METRICS if self.has_pixels(obj) else METRICS[:1]


def number(value: Any) -> float | None:
    """Return a finite number as a float, and None for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def percent(value: Any) -> float | None:
    """Convert a fraction to percent; None for anything that is not a finite number."""
    fraction = number(value)
    return None if fraction is None else 100 * fraction


def load_published(path: Path = PUBLISHED) -> PublishedResults:
    """Read paper_results.csv: percent by (table, shot, method, object, metric)."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (r["table"], r["shot"], r["method"], r["object"], r["metric"]): float(r["value"])
        for r in rows
    }


def load_cell(
    table: str,
    row: str,
    obj: str,
    *,
    seed: int,
    draw: int,
    test: Path,
    training: Path | None = None,
) -> Cell:
    """Load a cell from the folders of its test and training.

    It is done if the test has written metrics.json, failed if its files are not whole, else
    missing. A training whose files are not whole is left out.
    """
    try:
        metrics = load_metrics(test)
        read_scores(test)
    except UserError as error:
        return Cell(table, row, obj, seed, draw, FAILED, str(error))
    if metrics is None:
        return Cell(table, row, obj, seed, draw, MISSING, "not run")
    trained = None
    with suppress(UserError):
        trained = load_metrics(training) if training else None
    return Cell(
        table,
        row,
        obj,
        seed,
        draw,
        DONE,
        metrics=metrics,
        training=trained or {},
        folder=test,
        training_folder=training,
    )
