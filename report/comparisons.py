"""Paired tests between the rows of a table, behind every row that is called the best.

Two rows are compared on one object, for each run (seed and draw) that both have, by the image
scores of their tests.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from errors import UserError
from mvfa.paired import delong, permute_cases
from mvfa.run_files import ScoredImages, read_scores
from report.study import Cell, Study, TableSpec
from report.tables import CELL_COLUMNS, Column, PColumn, Table, table

BETTER = {True: "yes", False: "not shown"}
LEVEL = 0.05  # a difference counts below this p-value
ROUNDS = 2_000  # of a permutation test; exact for up to ten cases
SEED = 0  # of its draws
METRIC = "image_auroc"
Reader = Callable[[Path, str], ScoredImages | None]  # of a test's folder and a branch
COMPARISON_COLUMNS = (
    CELL_COLUMNS[0],
    CELL_COLUMNS[2],
    Column("best", "Best row"),
    Column("other", "Other row"),
    Column("seed", "Seed", 0),
    Column("draw", "Draw", 0),
    Column("better", "Better"),
    Column("difference", "Difference", 2, signed=True),
    PColumn("p_delong", "p (DeLong)", 4),
    PColumn("p_permutation", "p (permutation)", 4),
    Column("low", "95 % from", 2, signed=True),
    Column("high", "95 % to", 2, signed=True),
    Column("first", "AUROC of the best", 2),
    Column("second", "of the other", 2),
    Column("unit", "Permuted by"),
    Column("units", "of them", 0),
    Column("images", "Images", 0),
    Column("note", "Note"),
)


REFERENCE_COLUMNS = (
    *(Column("row", "Row"), CELL_COLUMNS[2]),
    *(Column("seed", "Seed", 0), Column("draw", "Draw", 0)),
    Column("verdict", "Verdict"),
    *COMPARISON_COLUMNS[7:12],
    Column("first", "AUROC of the row", 2),
    Column("second", "of the first row", 2),
    *COMPARISON_COLUMNS[14:],
)


@dataclass(frozen=True)
class Comparison:
    """Two runs scored on the same images: AUROCs as fractions, p-values of their difference.

    Args:
        first: AUROC of the first run.
        second: AUROC of the second run.
        low: lower end of the 95 % interval of first minus second (DeLong); None where the
            variance cannot be estimated.
        high: its upper end.
        p_delong: DeLong's p-value, which takes images as independent; None as above.
        p_permutation: the p-value of permuting whole cases, or images where no case is known.
        unit: "case" or "image": what was permuted.
        units: how many of them there are.
        images: how many images there are.

    """

    first: float
    second: float
    low: float | None
    high: float | None
    p_delong: float | None
    p_permutation: float
    unit: str
    units: int
    images: int

    @property
    def decided(self) -> bool:
        """Whether the first is higher, and every p-value that exists is below LEVEL."""
        values = [p for p in (self.p_delong, self.p_permutation) if p is not None]
        return self.first > self.second and max(values) < LEVEL


def check_same_images(first: ScoredImages, second: ScoredImages) -> None:
    """Raise UserError unless two runs have scored the same images with the same labels."""
    if first.files != second.files:
        only = sorted(set(first.files) ^ set(second.files))
        what = f"{only[0]} is in one of them only" if only else "their order differs"
        raise UserError(f"runs of different test images cannot be paired: {what}; test both again")
    if (first.labels != second.labels).any():
        raise UserError("runs with different labels of an image cannot be paired; test both again")


def compare(first: ScoredImages, second: ScoredImages) -> Comparison:
    """Compare the image AUROCs of two runs. UserError if their images or labels differ."""
    check_same_images(first, second)
    cases = first.cases
    known = [case for case in cases if case is not None]
    unknown = len(cases) - len(known)  # an image without a case is one of its own
    paired = delong(first.scores, second.scores, first.labels)
    p = permute_cases(first.scores, second.scores, first.labels, cases, ROUNDS, SEED)
    return Comparison(
        first=paired.first,
        second=paired.second,
        low=paired.low,
        high=paired.high,
        p_delong=paired.p,
        p_permutation=p,
        unit="case" if known else "image",
        units=len(set(known)) + unknown,
        images=len(cases),
    )


def by_run(cells: Sequence[Cell]) -> dict[tuple[int, int], Cell]:
    """Return the runs with a result, by seed and draw."""
    return {cell.run: cell for cell in cells if cell.percent(METRIC) is not None}


def best_first(rows: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Return the rows by falling mean image AUROC over their runs; equal ones keep their order."""
    means = {row: fmean(cell.metrics[METRIC] for cell in cells) for row, cells in rows.items()}
    return sorted(rows, key=lambda row: -means[row])


def record_of(best: Cell, other: Cell, read: Reader) -> dict[str, Any]:
    """Return the record of two runs: their comparison in percent, or why there is none."""
    record = {"object": best.obj, "best": best.row, "other": other.row, "decided": False}
    record |= {"seed": best.seed, "draw": best.draw}
    scores = [read(cell.folder, cell.branch) if cell.folder else None for cell in (best, other)]
    first, second = scores
    if first is None or second is None:
        return record | {"note": "not compared: a test has written no scores.csv"}
    try:
        found = compare(first, second)
    except UserError as error:
        return record | {"note": f"not compared: {error}"}
    fractions = {
        "first": found.first,
        "second": found.second,
        "difference": found.first - found.second,
        "low": found.low,
        "high": found.high,
    }
    shown = ("p_delong", "p_permutation", "unit", "units", "images", "decided")
    record |= {key: None if value is None else 100 * value for key, value in fractions.items()}
    return record | {key: getattr(found, key) for key in shown} | {"note": ""}


def object_records(rows: Mapping[str, Sequence[Cell]], read: Reader) -> list[dict[str, Any]]:
    """Return the comparisons of the best row of one object with each other one, run by run.

    `rows` holds the runs with a result of each row that has any.
    """
    best, *others = best_first(rows)
    runs = by_run(rows[best])
    records = []
    for row in others:
        common = [(runs[c.run], c) for c in rows[row] if c.run in runs]
        records += [record_of(first, second, read) for first, second in common]
        if not common:
            unpaired = {"object": rows[best][0].obj, "best": best, "other": row, "decided": False}
            records.append(unpaired | {"note": "not compared: no run of equal seed and draw"})
    return records


def comparisons_of(study: Study, spec: TableSpec, read: Reader) -> list[dict[str, Any]]:
    """Return the comparisons of a table: of each object, the best row with each other one.

    Each record has `decided`: whether the best row is better by every test of this run.
    """
    records = []
    for obj in spec.objects:
        cells = {row: list(by_run(study.at(spec.name, row, obj)).values()) for row in spec.rows}
        rows = {row: runs for row, runs in cells.items() if runs}
        if len(rows) > 1:
            records += object_records(rows, read)
    return [{"table": spec.title} | record for record in records]


def verdict(record: Mapping[str, Any]) -> str:
    """Return whether a row is better or worse than another by every test; "" if it has none."""
    values = [p for key in ("p_delong", "p_permutation") if (p := record.get(key)) is not None]
    if not values:
        return ""
    if max(values) >= LEVEL:
        return "not shown"
    return "better" if record["difference"] > 0 else "worse"


def reference_table(study: Study, spec: TableSpec, read: Reader) -> Table:
    """Return the comparison of each row of a table with its first, by object and run."""
    first, *others = spec.rows
    records = []
    for row in others:
        for obj in spec.objects:
            reference = by_run(study.at(spec.name, first, obj))
            for cell in by_run(study.at(spec.name, row, obj)).values():
                if cell.run in reference:
                    record = record_of(cell, reference[cell.run], read)
                    records.append(record | {"row": row, "verdict": verdict(record)})
    return table(f"{spec.name}-paired", REFERENCE_COLUMNS, records)


def best_cells(records: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Return the (row, object) that are better than each other row of a table, in every run."""
    decided: dict[tuple[str, str], bool] = {}
    for record in records:
        key = (record["best"], record["object"])
        decided[key] = decided.get(key, True) and record["decided"]
    return {key for key, better in decided.items() if better}


def comparison_table(records: Sequence[dict[str, Any]]) -> Table:
    """Return the comparisons of all tables as a table."""
    shown = [record | {"better": BETTER[record["decided"]]} for record in records]
    return table("comparisons", COMPARISON_COLUMNS, shown)


def cached_reader() -> Reader:
    """Return `read_scores` with a memory, since a run is compared with several others."""
    return cache(read_scores)
