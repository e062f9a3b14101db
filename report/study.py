"""What a report is made of: the tables wanted, the runs that fill them, and the figures published by others."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.catalog import CATALOG
from errors import UserError

OBJECTS = (
    "Histopathology",
    "Chest",
    "Retina_OCT2017",
    "Brain",
    "Liver",
    "Retina_RESC",
)  # the paper's order
METRICS = ("image_auroc", "pixel_auroc")
DONE, MISSING, FAILED = STATES = ("done", "missing", "failed")
AVERAGE = (
    "average"  # the object name under which paper_results.csv keeps a mean over all six objects
)
PUBLISHED = Path(__file__).parent / "paper_results.csv"

Figures = Mapping[
    tuple[str, str, str, str, str], float
]  # (table, shot, method, object, metric) -> percent


@dataclass(frozen=True)
class Cell:
    """One training and one test. `metrics` and `training` are the contents of their metrics.json.

    `reason` tells what a missing cell lacks, or the error of a failed one. `folder` is the test's, with its pictures,
    `learned` the training's: places of several tables may share both.
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
    learned: Path | None = None

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state {self.state!r} of a cell; allowed: {', '.join(STATES)}")

    @property
    def run(self) -> tuple[int, int]:
        """Seed and draw: what tells apart the runs that are averaged."""
        return self.seed, self.draw

    def percent(self, metric: str) -> float | None:
        """`image_auroc` or `pixel_auroc` in percent; None unless the cell is done and has it."""
        return percent(self.metrics.get(metric)) if self.state == DONE else None

    def measures(self, level: str, branch: str) -> Mapping[str, Any]:
        """The detailed metrics of "image" or "pixel", of "text", "memory" or "both"; empty where there are none."""
        return ((self.metrics.get("details") or {}).get(level) or {}).get(branch) or {}


@dataclass(frozen=True)
class Source:
    """Where paper_results.csv holds a row: its columns `table`, `shot` (a number as text) and `method`."""

    table: str
    shot: str
    method: str


@dataclass(frozen=True)
class Published:
    """What others have published for one row of a table; None where they have nothing."""

    row: str
    paper: Source | None = None
    implementation: Source | None = None


@dataclass(frozen=True)
class TableSpec:
    """One table: rows x objects.

    `shots` gives K of each row where the table is a shot curve, else it is empty. `gallery`: its pictures are shown.
    """

    name: str
    title: str
    caption: str
    rows: tuple[str, ...]
    objects: tuple[str, ...] = OBJECTS
    published: tuple[Published, ...] = ()
    shots: tuple[int, ...] = ()
    gallery: bool = False

    def __post_init__(self) -> None:
        if self.shots and len(self.shots) != len(self.rows):
            raise ValueError(f"{self.name}: {len(self.shots)} shots for {len(self.rows)} rows")
        if unknown := {p.row for p in self.published} - set(self.rows):
            raise ValueError(f"{self.name}: published figures of unknown rows {sorted(unknown)}")

    def of_row(self, row: str) -> Published:
        """The published figures of a row."""
        return next((p for p in self.published if p.row == row), Published(row))


@dataclass(frozen=True)
class Study:
    """All that a report tells. `protocol` holds options, versions and hashes, printed as they are."""

    title: str
    demo: bool
    specs: tuple[TableSpec, ...]
    cells: tuple[Cell, ...]
    command: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {spec.name: spec for spec in self.specs}
        for cell in self.cells:
            spec = known.get(cell.table)
            if spec is None or cell.row not in spec.rows or cell.obj not in spec.objects:
                raise ValueError(f"no table has a place for {cell.table}, {cell.row}, {cell.obj}")

    def at(self, table: str, row: str, obj: str) -> list[Cell]:
        """The runs of one place of a table, by seed and draw."""
        return sorted(
            (c for c in self.cells if (c.table, c.row, c.obj) == (table, row, obj)),
            key=lambda c: c.run,
        )

    def places(self) -> Iterator[tuple[TableSpec, str, str, list[Cell]]]:
        """Every place of every table that has runs, in the tables' order."""
        for spec in self.specs:
            for row in spec.rows:
                for obj in spec.objects:
                    if cells := self.at(spec.name, row, obj):
                        yield spec, row, obj, cells

    def places_once(
        self, of: Callable[[Cell], Path | None]
    ) -> Iterator[tuple[TableSpec, str, str, list[Cell]]]:
        """Places, but for those whose runs are all, by a folder of theirs, runs of a place before them."""
        seen: set[tuple[Path | None, ...]] = set()
        for spec, row, obj, cells in self.places():
            folders = tuple(map(of, cells))
            if None in folders or folders not in seen:
                yield spec, row, obj, cells
            seen.add(folders)

    def count(self, state: str) -> int:
        """How many cells are "done", "missing" or "failed"."""
        return sum(cell.state == state for cell in self.cells)

    def has_pixels(self, obj: str) -> bool:
        """Whether an object has masks: by the catalog, else by what was measured."""
        if obj in CATALOG:
            return CATALOG[obj].masks
        return any(c.obj == obj and c.percent("pixel_auroc") is not None for c in self.cells)

    def metrics_of(self, obj: str) -> tuple[str, ...]:
        """The metrics of an object: image AUROC, and pixel AUROC where there are masks."""
        return METRICS if self.has_pixels(obj) else METRICS[:1]


def number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def percent(value: Any) -> float | None:
    """A fraction in percent, or None."""
    found = number(value)
    return None if found is None else 100 * found


def load_published(path: Path = PUBLISHED) -> dict[tuple[str, str, str, str, str], float]:
    """The figures of paper_results.csv in percent, by table, shot, method, object and metric."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (r["table"], r["shot"], r["method"], r["object"], r["metric"]): float(r["value"])
        for r in rows
    }


def load_metrics(folder: Path) -> dict[str, Any] | None:
    """The metrics.json of a run; None if it is not there. UserError if it is cut or foreign."""
    path = folder / "metrics.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON; remove it and run again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no run's metrics; remove it and run again")
    return content


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
    """A cell from the folders of its test and training: done if the test has left metrics, else missing."""
    metrics = load_metrics(test)
    if metrics is None:
        return Cell(table, row, obj, seed, draw, MISSING, "not run")
    learned = load_metrics(training) if training else None
    place = (table, row, obj, seed, draw, DONE, "")
    return Cell(*place, metrics=metrics, training=learned or {}, folder=test, learned=training)
