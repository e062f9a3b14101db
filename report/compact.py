"""A table in the paper's shape: rows x objects and the average, one short text per cell."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from mvfa.markdown import escape as markdown_text
from mvfa.markdown import markdown_table
from mvfa.pages import NONE
from mvfa.shortcuts import KNOWS
from report.latex import bold, escape, latex_table
from report.study import AVERAGE, DONE, FAILED, MISSING, Study, TableSpec, number
from report.tables import METRIC_TITLES, Table, note_of

OURS = "ours"
SHORTCUT = "shortcut"
SHORTCUT_ROW = "best shortcut"
SOURCES = {
    "paper": "paper",
    "implementation": "authors' implementation",
    "rival": "published elsewhere",
    OURS: "this study",
    SHORTCUT: "a score that sees no lesion",
}
BETWEEN = " / "  # image and pixel results
DASH = "\N{EN DASH}"  # between the ends of a range


@dataclass(frozen=True)
class CellText:
    """What a cell shows.

    Args:
        main: the results, image / pixel.
        details: their spread, a line each.
        state: the state of its runs.
        note: the number of its note; 0: none.
        bold: whether the image result is the best of the study's own rows, by paired tests.

    """

    main: str = NONE
    details: tuple[str, ...] = ()
    state: str = DONE
    note: int = 0
    bold: bool = False

    @property
    def parts(self) -> tuple[str, str]:
        """The image result, and the rest of `main`."""
        image, between, pixel = self.main.partition(BETWEEN)
        return image, between + pixel

    def plain(self) -> str:
        """Return the cell as one line of Markdown, in which bold is the only markup."""
        image, rest = self.parts
        details = f" ({'; '.join(self.details)})" if self.details else ""
        note = f" [{self.note}]" if self.note else ""
        return (f"**{image}**" if self.bold else image) + rest + details + note

    def latex(self) -> str:
        """Return the cell in LaTeX, with the deviation of the details' first line."""
        image, rest = (escape(part) for part in self.parts)
        parts = [bold(image) if self.bold else image, rest]
        parts += [escape(f"({line})") for line in self.details[:1]]
        return " ".join(filter(None, parts))


class Line(NamedTuple):
    """A line of a table: its row, whose results it has (a key of SOURCES), and its cells.

    `origin` says more exactly where the results are from.
    """

    row: str
    source: str
    cells: tuple[CellText, ...]
    origin: str = ""


@dataclass(frozen=True)
class Compact:
    """A table in the paper's shape.

    `columns` are the headings of the cells, and `notes` are numbered from 1.
    """

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def headed(self) -> list[str]:
        """Return the headings of all columns."""
        return ["", "results of", *self.columns]

    def markdown(self) -> str:
        """Return a Markdown table with its notes below it."""
        rows = [
            [line.row, line.origin or SOURCES[line.source], *(cell.plain() for cell in line.cells)]
            for line in self.lines
        ]
        text = markdown_table(self.headed(), rows)
        notes = "".join(f"[{i}] {markdown_text(note)}\n\n" for i, note in enumerate(self.notes, 1))
        return f"{text}\n{notes}"

    def latex(self, caption: str) -> str:
        """Return a LaTeX table."""
        rows = [
            [
                escape(line.row),
                escape(line.origin or SOURCES[line.source]),
                *(cell.latex() for cell in line.cells),
            ]
            for line in self.lines
        ]
        return latex_table(self.headed(), rows, caption, "ll" + "c" * len(self.columns))


def pair(values: Sequence[Any]) -> str:
    """Return image and pixel results as one text; "" if both are missing."""
    texts = [NONE if number(value) is None else f"{value:.2f}" for value in values]
    return "" if set(texts) <= {NONE} else BETWEEN.join(texts)


def ends(record: Mapping[str, Any], low: str, high: str) -> str:
    """Return a range of a record as text; "" if it has none."""
    values = [number(record[key]) for key in (low, high)]
    return "" if None in values else f"{values[0]:.2f}{DASH}{values[1]:.2f}"


def spread(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the spread of a cell, a line each.

    Of several runs: standard deviations with the number of runs, and the lowest and the highest
    value. Of one run: the 95 % intervals of its image AUROC, by image and by case.
    """
    runs = max(int(record["runs"]) for record in records)
    deviations = pair([record["sd"] for record in records])
    if deviations:
        ranges = BETWEEN.join(ends(record, "lowest", "highest") or NONE for record in records)
        return f"± {deviations}, n = {runs}", ranges
    by_image = ends(records[0], "low", "high")
    by_case = ends(records[0], "case_low", "case_high")
    return (
        *((f"[{by_image}]",) if by_image else ()),
        *((f"by case [{by_case}]",) if by_case else ()),
    )


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
    details = spread(records)
    reason = note_of(cells)
    if obj == AVERAGE:
        missing = records[0]["note"].removeprefix("incomplete: ")
        return CellText(main or NONE, details or ((missing,) if missing else ()))
    if not cells:
        return CellText()
    if reason and reason not in notes:
        notes.append(reason)
    state = DONE if main else FAILED if any(cell.state == FAILED for cell in cells) else MISSING
    return CellText(main or state, details, state, notes.index(reason) + 1 if reason else 0)


def shortcut_line(titles: Sequence[str], shortcuts: Mapping[str, tuple[float, str]]) -> Line:
    """Return the line of the best scores that see no lesion, each with what it knows."""
    cells = []
    for title in titles:
        cell = CellText()
        if title in shortcuts:
            auroc, name = shortcuts[title]
            cell = CellText(f"{auroc:.2f}", (f"knows only {KNOWS[name]}",))
        cells.append(cell)
    return Line(SHORTCUT_ROW, SHORTCUT, tuple(cells))


def compact_table(
    study: Study,
    spec: TableSpec,
    long: Table,
    best: Collection[tuple[str, str]] = (),
    shortcuts: Mapping[str, tuple[float, str]] = MappingProxyType({}),
) -> Compact:
    """Return the compact form of a long table: for each row the results of each source.

    `best` holds the (row, object) whose image results are bold. `shortcuts` holds for an object the
    AUROC in percent and the name of its best score that sees no lesion: a line below the rows.
    """
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
                lines.append(Line(row, source, tuple(CellText(text or NONE) for text in texts)))
        cells = [
            our_cell(study, spec, row, title, records[title], notes)
            if records[title]
            else CellText()
            for title in titles
        ]
        marked = [
            replace(cell, bold=(row, title) in best)
            for cell, title in zip(cells, titles, strict=True)
        ]
        lines.append(Line(row, OURS, tuple(marked)))
    if shortcuts:
        lines.append(shortcut_line(titles, shortcuts))
    return Compact(tuple(titles), tuple(lines), tuple(notes))
