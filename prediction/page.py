"""The page of a run: index.html, what was scored, how far to trust it, and the highest scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prediction.records import OVERLAYS, PAGE, Record, main_row
from utils import write_whole

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 300  # sources on the page: the highest scores
FAILURES = 100  # of which the page shows the reason
DISCLAIMER = "Research software, not a medical device: not for diagnosis or any other clinical use."


@dataclass
class Summary:
    """What a run's records say together."""

    scored: int = 0
    flagged: int = 0
    wide: int = 0
    failures: list[Record] = field(default_factory=list)
    p_values: dict[str, float] = field(default_factory=dict)  # by source, where there is one
    top: list[Record] = field(default_factory=list)


def summarise(found: Iterable[Record]) -> Summary:
    """Return the summary of records, which are read once."""
    summary = Summary()

    def scored() -> Iterable[Record]:
        for record in found:
            if "error" in record:
                summary.failures.append(record)
                continue
            row = main_row(record)
            summary.scored += 1
            summary.flagged += row["label"] == "abnormal"
            summary.wide += bool(record.get("wide"))
            if row["p_value"] != "":
                summary.p_values[record["name"]] = row["p_value"]
            yield record

    summary.top = nlargest(SHOWN, scored(), key=lambda record: main_row(record)["score"])
    return summary


def write_page(
    out: Path,
    summary: Summary,
    *,
    title: str,
    facts: Mapping[str, str],
    remarks: Sequence[str],
    discoveries: Mapping[str, bool] | None = None,
) -> Path:
    """Write index.html. `facts` say what was used, `remarks` what to know about the scores."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    rows = []
    for record in summary.top:
        row: dict[str, Any] = dict(main_row(record))
        overlay = f"{OVERLAYS}/{record['name']}.jpg"
        row["name"] = record["name"]
        row["overlay"] = quote(overlay) if (out / overlay).is_file() else ""
        row["notes"] = "; ".join(record.get("notes", ()))
        row["discovery"] = None if discoveries is None else discoveries.get(record["name"])
        rows.append(row)
    text = environment.get_template("predictions.html.j2").render(
        title=title,
        disclaimer=DISCLAIMER,
        facts=facts,
        remarks=remarks,
        rows=rows,
        summary=summary,
        failures=summary.failures[:FAILURES],
        fdr=discoveries is not None,
    )
    data = text.encode("utf-8", "replace")
    write_whole(out / PAGE, lambda part: part.write_bytes(data))
    return out / PAGE
