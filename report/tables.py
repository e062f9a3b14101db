"""Runs to tables: data frames that are written as CSV, as Markdown and, by the page, as HTML. AUROCs in percent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from dataset.catalog import CATALOG
from report.study import (
    AVERAGE,
    DONE,
    METRICS,
    OBJECTS,
    Cell,
    Figures,
    Source,
    Study,
    TableSpec,
    number,
    percent,
)

METRIC_TITLES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC"}
SELECTIONS = ("test", "valid", "last")  # ways to choose a checkpoint
MEASURES = ("auroc", "average_precision", "aupro", "dice", "best_f1", "sensitivity", "specificity")


@dataclass(frozen=True)
class Column:
    """A column of a table: its key, its heading, and the decimals of its numbers (None: text)."""

    key: str
    title: str
    digits: int | None = None
    signed: bool = False

    def shown(self, value: Any) -> str:
        """A value as text; nothing for no value."""
        if self.digits is None:
            return str(value)
        found = number(value)
        return "" if found is None else f"{found:{'+' if self.signed else ''}.{self.digits}f}"


@dataclass(frozen=True)
class Table:
    """A long table: a record a row."""

    name: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows, by column key."""
        return [{str(k): v for k, v in record.items()} for record in self.frame.to_dict("records")]

    def csv(self) -> str:
        """As CSV: keys for headings, four decimals, empty where there is no value."""
        return self.frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")

    def markdown(self) -> str:
        """As a Markdown table."""
        rows = [
            [column.shown(record[column.key]) for column in self.columns] for record in self.records
        ]
        return markdown_table([column.title for column in self.columns], rows)


PLACE = (Column("table", "Table"), Column("row", "Row"), Column("object", "Object"))
LONG = (
    *PLACE[1:],
    Column("metric", "Metric"),
    Column("paper", "Paper", 2),
    Column("implementation", "Authors' implementation", 2),
    Column("ours", "This study", 2),
    Column("sd", "± SD", 2),
    Column("low", "95 % from", 2),
    Column("high", "95 % to", 2),
    Column("runs", "Runs", 0),
    Column("difference", "This study − paper", 2, signed=True),  # noqa: RUF001  # a minus sign, as in print
    Column("note", "Note"),
)
NO_DIFFERENCE = "Difference (not taken)"
DEMO_LONG = tuple(
    replace(column, title=NO_DIFFERENCE) if column.key == "difference" else column
    for column in LONG
)
SELECTION = (
    *PLACE,
    Column("metric", "Metric"),
    Column("test", "Best on test (oracle)", 2),
    Column("valid", "Best on valid", 2),
    Column("last", "Last epoch", 2),
    Column("gap_valid", "Test − valid", 2, signed=True),  # noqa: RUF001
    Column("gap_last", "Test − last", 2, signed=True),  # noqa: RUF001
    Column("runs", "Runs", 0),
)
DETAIL = (
    *PLACE,
    Column("level", "Level"),
    Column("branch", "Branch"),
    Column("auroc", "AUROC", 2),
    Column("average_precision", "Average precision", 2),
    Column("aupro", "AUPRO", 2),
    Column("dice", "Dice", 2),
    Column("best_f1", "Best F1", 2),
    Column("sensitivity", "Sensitivity", 2),
    Column("specificity", "Specificity", 2),
    Column("threshold", "Threshold", 3),
    Column("runs", "Runs", 0),
)
RUNS = (
    *PLACE,
    Column("seed", "Seed", 0),
    Column("draw", "Draw", 0),
    Column("state", "State"),
    Column("reason", "Reason"),
    Column("image_auroc", "Image AUROC", 2),
    Column("pixel_auroc", "Pixel AUROC", 2),
)


def markdown_text(text: str) -> str:
    """Text that stays text in a Markdown table, on one line."""
    escaped = (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
    )
    return " ".join(escaped.split())


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Headings and rows as a Markdown table."""
    lines = [list(titles), ["---"] * len(titles), *(map(markdown_text, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def table(name: str, columns: tuple[Column, ...], records: Sequence[Mapping[str, Any]]) -> Table:
    """Records to a table whose number columns are numbers."""
    frame = pd.DataFrame(records, columns=[column.key for column in columns])
    kinds = {
        column.key: float if column.digits else "Int64"
        for column in columns
        if column.digits is not None
    }
    return Table(name, columns, frame.astype(kinds))


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None if there is none."""
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def difference(ours: float | None, theirs: float | None) -> float | None:
    """Ours minus theirs, or None."""
    return None if ours is None or theirs is None else ours - theirs


def scored(values: Sequence[float], interval: Sequence[float] | None = None) -> dict[str, Any]:
    """Mean, sample standard deviation (two runs or more) or interval (one run), and the number of runs."""
    low, high = interval if interval and len(values) == 1 else (None, None)
    sd = stdev(values) if len(values) > 1 else None
    return {
        "ours": mean(values),
        "sd": sd,
        "low": percent(low),
        "high": percent(high),
        "runs": len(values),
    }


def place_score(cells: Sequence[Cell], metric: str) -> dict[str, Any]:
    """The score of one row and object over its runs."""
    found = [(cell, value) for cell in cells if (value := cell.percent(metric)) is not None]
    level = "image" if metric == "image_auroc" else "pixel"
    interval = (
        (found[0][0].measures(level, "both").get("interval") or {}).get("auroc")
        if len(found) == 1
        else None
    )
    return scored([value for _, value in found], interval)


def average_score(groups: Sequence[Sequence[Cell]], metric: str) -> dict[str, Any]:
    """The mean over objects, of each run (seed and draw) that has all of them; then as over any runs."""
    by_object = [
        {c.run: v for c in cells if (v := c.percent(metric)) is not None} for cells in groups
    ]
    complete = sorted(set.intersection(*map(set, by_object))) if by_object else []
    found = sum(map(bool, by_object))
    lack = f"{found} of {len(groups)} objects" if found < len(groups) else "no run has all objects"
    note = "" if complete else f"incomplete: {lack}"
    return scored([fmean(values[run] for values in by_object) for run in complete]) | {"note": note}


def note_of(cells: Sequence[Cell]) -> str:
    """What the cells that are not done lack, or their errors."""
    if not cells:
        return "not in this study"
    told: dict[str, int] = {}
    for cell in cells:
        if cell.state != DONE:
            reason = f"{cell.state}: {cell.reason}" if cell.reason else cell.state
            told[reason] = told.get(reason, 0) + 1
    return "; ".join(
        f"{r} ({n} of {len(cells)} runs)" if len(cells) > 1 else r for r, n in told.items()
    )


def published(
    figures: Figures, source: Source | None, objects: Sequence[str], metric: str
) -> float | None:
    """A published figure in percent: of one object, or the mean over several.

    Over all six objects a printed average comes first: Table 5 of the paper prints nothing else.
    """
    if source is None or not objects:
        return None
    key = (source.table, source.shot, source.method)
    whole = {obj for obj in OBJECTS if metric == "image_auroc" or CATALOG[obj].masks}
    if set(objects) == whole and (printed := figures.get((*key, AVERAGE, metric))) is not None:
        return printed
    values = [figures.get((*key, obj, metric)) for obj in objects]
    return None if None in values else mean(values)


def long_table(study: Study, spec: TableSpec, figures: Figures) -> Table:
    """A record for each row, object (and the average over objects) and metric."""
    records = []
    for row in spec.rows:
        groups = {obj: study.at(spec.name, row, obj) for obj in spec.objects}
        scopes = [([obj], obj, study.metrics_of(obj)) for obj in spec.objects]
        scopes += [(list(spec.objects), AVERAGE, METRICS)]
        for objects, label, metrics in scopes:
            for metric in metrics:
                counted = [obj for obj in objects if metric in study.metrics_of(obj)]
                if not counted and label == AVERAGE:
                    continue
                if label == AVERAGE:
                    values = average_score([groups[obj] for obj in counted], metric)
                else:
                    values = place_score(groups[label], metric) | {"note": note_of(groups[label])}
                source = spec.of_row(row)
                theirs = {
                    "paper": published(figures, source.paper, counted, metric),
                    "implementation": published(figures, source.implementation, counted, metric),
                }
                gap = None if study.demo else difference(values["ours"], theirs["paper"])
                place = {"row": row, "object": label, "metric": METRIC_TITLES[metric]}
                records.append(place | values | theirs | {"difference": gap})
    return table(spec.name, DEMO_LONG if study.demo else LONG, records)


def selection_table(study: Study) -> Table:
    """The checkpoint chosen on the test set, on valid images and at the last epoch, and how much the first flatters.

    A training that several places share is there once; so is a test in `detail_table`.
    """
    records = []
    for spec, row, obj, cells in study.places_once(lambda cell: cell.learned):
        chosen = [s for c in cells if c.state == DONE and (s := c.training.get("selections"))]
        for metric in study.metrics_of(obj) if chosen else ():
            runs = [
                {way: percent((s.get(way) or {}).get(metric)) for way in SELECTIONS} for s in chosen
            ]
            means: dict[str, Any] = {way: mean(run[way] for run in runs) for way in SELECTIONS}
            gaps = {
                f"gap_{way}": mean(difference(r["test"], r[way]) for r in runs)
                for way in SELECTIONS[1:]
            }
            place = {
                "table": spec.title,
                "row": row,
                "object": obj,
                "metric": METRIC_TITLES[metric],
            }
            records.append(place | means | gaps | {"runs": len(runs)})
    return table("selections", SELECTION, records)


def detail_table(study: Study) -> Table:
    """Every metric of every branch: means over runs, in percent but for the threshold."""
    records = []
    for spec, row, obj, cells in study.places_once(lambda cell: cell.folder):
        for level in ("image", "pixel"):
            for branch in ("text", "memory", "both"):
                found = [m for c in cells if c.state == DONE and (m := c.measures(level, branch))]
                if found:
                    place = {
                        "table": spec.title,
                        "row": row,
                        "object": obj,
                        "level": level,
                        "branch": branch,
                    }
                    means: dict[str, Any] = {
                        key: mean(percent(m.get(key)) for m in found) for key in MEASURES
                    }
                    threshold = mean(number(m.get("threshold")) for m in found)
                    records.append(place | means | {"threshold": threshold, "runs": len(found)})
    return table("metrics", DETAIL, records)


def run_table(study: Study, states: Sequence[str] | None = None) -> Table:
    """Every cell, or those of some states."""
    records = [
        {
            "table": spec.title,
            "row": row,
            "object": obj,
            "seed": c.seed,
            "draw": c.draw,
            "state": c.state,
        }
        | {"reason": c.reason, **{metric: c.percent(metric) for metric in METRICS}}
        for spec, row, obj, cells in study.places()
        for c in cells
        if states is None or c.state in states
    ]
    return table("runs", RUNS, records)
