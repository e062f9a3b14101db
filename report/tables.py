"""Runs to tables: data frames, written as CSV, Markdown, LaTeX and (by the page) HTML. Percent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from dataset.catalog import CATALOG, PAPER_ORDER
from mvfa.markdown import markdown_table
from report.latex import escape, latex_table
from report.study import (
    AVERAGE,
    DONE,
    METRICS,
    Cell,
    PublishedResults,
    Source,
    Study,
    TableSpec,
    number,
    percent,
)

METRIC_TITLES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC"}
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Column:
    """A column of a table: its key, its heading, and the decimals of its numbers (None: text)."""

    key: str
    title: str
    digits: int | None = None
    signed: bool = False

    def text(self, value: Any) -> str:
        """Return a value as text; "" for a number that is missing."""
        if self.digits is None:
            return str(value)
        finite = number(value)
        if finite is None:
            return ""
        return f"{finite:{'+' if self.signed else ''}.{self.digits}f}"


class PColumn(Column):
    """A column of p-values: one that would be rounded to 0 is shown as less than a bound."""

    def text(self, value: Any) -> str:
        """Return a p-value as text; "" if it is missing."""
        finite = number(value)
        least = 10.0 ** -(self.digits or 0)
        if finite is not None and finite < least:
            return f"< {least:.{self.digits}f}"
        return super().text(value)


@dataclass(frozen=True)
class Table:
    """A long table with one record per row."""

    name: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows, by column key."""
        return [{str(k): v for k, v in record.items()} for record in self.frame.to_dict("records")]

    def csv(self) -> str:
        """Return CSV: keys as headings, four decimals, empty where a number is missing."""
        return self.frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")

    def markdown(self) -> str:
        """Return a Markdown table."""
        rows = [
            [column.text(record[column.key]) for column in self.columns] for record in self.records
        ]
        return markdown_table([column.title for column in self.columns], rows)

    def latex(self, caption: str) -> str:
        """Return a LaTeX table; columns of numbers are aligned to the right."""
        rows = [
            [escape(column.text(record[column.key])) for column in self.columns]
            for record in self.records
        ]
        alignment = "".join("l" if column.digits is None else "r" for column in self.columns)
        return latex_table([column.title for column in self.columns], rows, caption, alignment)


CELL_COLUMNS = (Column("table", "Table"), Column("row", "Row"), Column("object", "Object"))
LONG_COLUMNS = (
    *CELL_COLUMNS[1:],
    Column("metric", "Metric"),
    Column("paper", "Paper", 2),
    Column("implementation", "Authors' implementation", 2),
    Column("ours", "This study", 2),
    Column("sd", "± SD", 2),
    Column("lowest", "Lowest run", 2),
    Column("highest", "Highest run", 2),
    Column("runs", "Runs", 0),
    Column("low", "95 % by image from", 2),
    Column("high", "to", 2),
    Column("case_low", "95 % by case from", 2),
    Column("case_high", "to", 2),
    Column("difference", f"This study {MINUS} paper", 2, signed=True),
    Column("note", "Note"),
)
NO_DIFFERENCE = "Difference (not computed)"
DEMO_LONG_COLUMNS = tuple(
    replace(column, title=NO_DIFFERENCE) if column.key == "difference" else column
    for column in LONG_COLUMNS
)


def table(name: str, columns: tuple[Column, ...], records: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of records; columns with decimals become columns of numbers."""
    frame = pd.DataFrame(records, columns=[column.key for column in columns])
    dtypes = {
        column.key: float if column.digits else "Int64"
        for column in columns
        if column.digits is not None
    }
    return Table(name, columns, frame.astype(dtypes))


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there is none."""
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


def difference(ours: float | None, theirs: float | None) -> float | None:
    """Return ours minus theirs, None if either is missing."""
    return None if ours is None or theirs is None else ours - theirs


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean and the number of runs, and of two or more their spread.

    The spread is the sample standard deviation, and the lowest and the highest value.
    """
    several = len(values) > 1
    return {
        "ours": mean(values),
        "sd": stdev(values) if several else None,
        "lowest": min(values) if several else None,
        "highest": max(values) if several else None,
        "runs": len(values),
    }


def intervals(measures: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the 95 % intervals of a run's AUROC in percent: by image and by case, where known."""
    ends: dict[str, float | None] = {}
    for prefix, key in (("", "interval"), ("case_", "interval_by_case")):
        low, high = (measures.get(key) or {}).get("auroc") or (None, None)
        ends |= {f"{prefix}low": percent(low), f"{prefix}high": percent(high)}
    return ends


def cell_summary(cells: Sequence[Cell], metric: str) -> dict[str, Any]:
    """Return the summary of one row and object over its runs, with intervals of a single run."""
    scored = [(cell, value) for cell in cells if (value := cell.percent(metric)) is not None]
    measures: Mapping[str, Any] = {}
    if len(scored) == 1:
        granularity = "image" if metric == "image_auroc" else "pixel"
        cell = scored[0][0]
        measures = cell.measures(granularity, cell.branch)
    return summary([value for _, value in scored]) | intervals(measures)


def average_summary(groups: Sequence[Sequence[Cell]], metric: str) -> dict[str, Any]:
    """Return the summary of the mean over objects; each object is a group of runs.

    The mean is taken for each run (seed and draw) that has all objects.
    """
    by_object = [
        {c.run: v for c in cells if (v := c.percent(metric)) is not None} for cells in groups
    ]
    complete = sorted(set.intersection(*map(set, by_object))) if by_object else []
    scored = sum(map(bool, by_object))
    note = ""
    if not complete and scored < len(groups):
        note = f"incomplete: {scored} of {len(groups)} objects"
    elif not complete:
        note = "incomplete: no run has all objects"
    return summary([fmean(values[run] for values in by_object) for run in complete]) | {
        "note": note
    }


def note_of(cells: Sequence[Cell]) -> str:
    """Return why cells are missing or failed, with the number of runs where there are several."""
    if not cells:
        return "not in this study"
    reasons: dict[str, int] = {}
    for cell in cells:
        if cell.state != DONE:
            reason = f"{cell.state}: {cell.reason}" if cell.reason else cell.state
            reasons[reason] = reasons.get(reason, 0) + 1
    if len(cells) == 1:
        return "; ".join(reasons)
    return "; ".join(f"{reason} ({n} of {len(cells)} runs)" for reason, n in reasons.items())


def published(
    results: PublishedResults, source: Source | None, objects: Sequence[str], metric: str
) -> float | None:
    """Return a published result in percent: of one object, or the mean over several.

    Over all six objects a printed average comes first: Table 5 of the paper prints nothing else.
    """
    if source is None or not objects:
        return None
    key = (source.table, source.shot, source.method)
    whole = {obj for obj in PAPER_ORDER if metric == "image_auroc" or CATALOG[obj].masks}
    printed = results.get((*key, AVERAGE, metric))
    if set(objects) == whole and printed is not None:
        return printed
    values = [results.get((*key, obj, metric)) for obj in objects]
    return None if None in values else mean(values)


def long_record(
    study: Study, spec: TableSpec, row: str, label: str, metric: str, results: PublishedResults
) -> dict[str, Any] | None:
    """Return the record of a row, an object or AVERAGE (`label`) and a metric.

    None for an average over no object.
    """
    objects = spec.objects if label == AVERAGE else (label,)
    counted = [obj for obj in objects if metric in study.metrics_of(obj)]
    groups = [study.at(spec.name, row, obj) for obj in counted]
    if not counted:
        return None
    if label == AVERAGE:
        values = average_summary(groups, metric)
    else:
        values = cell_summary(groups[0], metric) | {"note": note_of(groups[0])}
    source = spec.of_row(row)
    theirs = {
        "paper": published(results, source.paper, counted, metric),
        "implementation": published(results, source.implementation, counted, metric),
    }
    gap = None if study.demo else difference(values["ours"], theirs["paper"])
    cell = {"row": row, "object": label, "metric": METRIC_TITLES[metric]}
    return cell | values | theirs | {"difference": gap}


def long_table(study: Study, spec: TableSpec, results: PublishedResults) -> Table:
    """Return a record for each row, object (and the average over objects) and metric."""
    records = []
    for row in spec.rows:
        for label in (*spec.objects, AVERAGE):
            for metric in METRICS if label == AVERAGE else study.metrics_of(label):
                record = long_record(study, spec, row, label, metric, results)
                if record is not None:
                    records.append(record)
    return table(spec.name, DEMO_LONG_COLUMNS if study.demo else LONG_COLUMNS, records)
