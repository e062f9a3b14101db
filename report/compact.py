"""A table in the paper's shape: rows x objects and the average, one short text per cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvfa.markdown import escape, markdown_table
from report.study import AVERAGE, DONE, FAILED, MISSING, Study, TableSpec, number
from report.tables import METRIC_TITLES, Table, note_of

SOURCES = {"paper": "paper", "implementation": "authors' implementation", "ours": "this study"}
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class CellText:
    """What a cell shows: its results, their spread, its state, and its note's number (0: none)."""

    main: str = NONE
    detail: str = ""
    state: str = DONE
    note: int = 0

    def plain(self) -> str:
        """Return the cell as one line of text."""
        detail = f" ({self.detail})" if self.detail else ""
        return self.main + detail + (f" [{self.note}]" if self.note else "")


@dataclass(frozen=True)
class Compact:
    """A table in the paper's shape.

    `columns` are the headings of the cells, `lines` hold (row, key of SOURCES, cells), and `notes`
    are numbered from 1.
    """

    columns: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[CellText, ...]], ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """Return a Markdown table with its notes below it."""
        rows = [
            [row, SOURCES[source], *(cell.plain() for cell in cells)]
            for row, source, cells in self.lines
        ]
        text = markdown_table(["", "results of", *self.columns], rows)
        notes = "".join(f"[{count}] {escape(note)}\n\n" for count, note in enumerate(self.notes, 1))
        return f"{text}\n{notes}"


def pair(values: list[Any]) -> str:
    """Return image and pixel results as one text; "" if both are missing."""
    texts = [NONE if number(value) is None else f"{value:.2f}" for value in values]
    return "" if set(texts) <= {NONE} else " / ".join(texts)


def spread(records: Sequence[Mapping[str, Any]]) -> str:
    """Return standard deviations and number of runs, or one run's interval of the image AUROC."""
    runs = max(int(record["runs"]) for record in records)
    deviations = pair([record["sd"] for record in records])
    if deviations:
        return f"± {deviations}, n = {runs}"
    low, high = (number(records[0][key]) for key in ("low", "high"))
    return "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def our_cell(
    study: Study,
    spec: TableSpec,
    row: str,
    obj: str,
    records: Sequence[Mapping[str, Any]],
    notes: list[str],
) -> CellText:
    """Return the study's own cell of a row and object; appends a new reason to `notes`."""
    cells = study.at(spec.name, row, obj)
    main = pair([record["ours"] for record in records])
    detail = spread(records)
    reason = note_of(cells)
    if obj == AVERAGE:
        return CellText(main or NONE, detail or records[0]["note"].removeprefix("incomplete: "))
    if not cells:
        return CellText()
    if reason and reason not in notes:
        notes.append(reason)
    state = DONE if main else FAILED if any(cell.state == FAILED for cell in cells) else MISSING
    return CellText(main or state, detail, state, notes.index(reason) + 1 if reason else 0)


def compact_table(study: Study, spec: TableSpec, long: Table) -> Compact:
    """Return the compact form of a long table: for each row the results of each source."""
    titles = [*spec.objects, AVERAGE]
    by_key = {(r["row"], r["object"], r["metric"]): r for r in long.records}
    notes: list[str] = []
    lines = []
    for row in spec.rows:
        records = {
            title: [
                by_key[row, title, metric]
                for metric in METRIC_TITLES.values()
                if (row, title, metric) in by_key
            ]
            for title in titles
        }
        for source in ("paper", "implementation"):
            texts = [pair([record[source] for record in records[title]]) for title in titles]
            if any(texts):
                lines.append((row, source, tuple(CellText(text or NONE) for text in texts)))
        cells = [
            our_cell(study, spec, row, title, records[title], notes)
            if records[title]
            else CellText()
            for title in titles
        ]
        lines.append((row, "ours", tuple(cells)))
    return Compact(tuple(titles), tuple(lines), tuple(notes))
