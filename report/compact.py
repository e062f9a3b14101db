"""A table in the paper's shape: rows x objects and the average, one short text a place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from report.study import AVERAGE, DONE, FAILED, MISSING, Study, TableSpec, number
from report.tables import METRIC_TITLES, Table, markdown_table, markdown_text, note_of

SOURCES = {"paper": "paper", "implementation": "authors' implementation", "ours": "this study"}
NONE = "–"  # noqa: RUF001  # a dash, as in print


@dataclass(frozen=True)
class Shown:
    """What a place shows: figures, their spread, whether there are any, and the number of a note (0: none)."""

    main: str = NONE
    detail: str = ""
    state: str = DONE
    note: int = 0


@dataclass(frozen=True)
class Compact:
    """Lines of (row, whose figures, places), the headings of the places, and the notes that places refer to."""

    columns: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[Shown, ...]], ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """As a Markdown table with its notes beneath."""
        rows = []
        for row, source, places in self.lines:
            texts = [
                s.main + (f" ({s.detail})" if s.detail else "") + (f" [{s.note}]" if s.note else "")
                for s in places
            ]
            rows.append([row, SOURCES[source], *texts])
        text = markdown_table(["", "figures of", *self.columns], rows)
        notes = "".join(
            f"[{count}] {markdown_text(note)}\n\n" for count, note in enumerate(self.notes, 1)
        )
        return f"{text}\n{notes}"


def pair(values: list[Any]) -> str:
    """Image and pixel figures as one text; nothing if none is there."""
    texts = [NONE if number(value) is None else f"{value:.2f}" for value in values]
    return "" if set(texts) <= {NONE} else " / ".join(texts)


def spread(records: Sequence[Mapping[str, Any]]) -> str:
    """Standard deviations and the number of runs, or the interval of the image AUROC of one run."""
    runs = max(int(record["runs"]) for record in records)
    deviations = pair([record["sd"] for record in records])
    if deviations:
        return f"± {deviations}, n = {runs}"
    low, high = (number(records[0][key]) for key in ("low", "high"))
    return "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def ours(
    study: Study,
    spec: TableSpec,
    row: str,
    obj: str,
    records: Sequence[Mapping[str, Any]],
    notes: list[str],
) -> Shown:
    """The study's own place of a table; a reason that is new goes to the notes."""
    cells = study.at(spec.name, row, obj)
    main, detail, reason = (
        pair([record["ours"] for record in records]),
        spread(records),
        note_of(cells),
    )
    if obj == AVERAGE:
        return Shown(main or NONE, detail or records[0]["note"].removeprefix("incomplete: "))
    if not cells:
        return Shown()
    if reason and reason not in notes:
        notes.append(reason)
    state = DONE if main else FAILED if any(cell.state == FAILED for cell in cells) else MISSING
    return Shown(main or state, detail, state, notes.index(reason) + 1 if reason else 0)


def compact_table(study: Study, spec: TableSpec, long: Table) -> Compact:
    """The compact form of a long table: for each row the paper's figures, the authors' code's and this study's."""
    titles = [*spec.objects, AVERAGE]
    found = {(r["row"], r["object"], r["metric"]): r for r in long.records}
    notes: list[str] = []
    lines = []
    for row in spec.rows:
        places = {
            obj: [
                found[key]
                for title in METRIC_TITLES.values()
                if (key := (row, obj, title)) in found
            ]
            for obj in titles
        }
        for source in SOURCES:
            texts = {obj: pair([r[source] for r in records]) for obj, records in places.items()}
            if source == "ours":
                shown = [
                    ours(study, spec, row, obj, places[obj], notes) if places[obj] else Shown()
                    for obj in titles
                ]
            elif any(texts.values()):
                shown = [Shown(texts[obj] or NONE) for obj in titles]
            else:
                continue
            lines.append((row, source, tuple(shown)))
    return Compact(tuple(titles), tuple(lines), tuple(notes))
