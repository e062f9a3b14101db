"""The page of a run: index.html, what was scored, how far to trust it, and the highest scores."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prediction.records import Record, main_row
from prediction.run_folder import OVERLAYS, PAGE
from utils import write_text

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 300  # sources on the page: the highest scores
FAILURES = 100  # of which the page shows the reason
BASE = 6  # percent of the height of a plot: its lowest bar
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


def slice_plot(record: Record) -> dict[str, Any] | None:
    """Return what the page shows of the slices of a volume, None for an image.

    A slice is a bar of width 1 in a plot whose height is 100, as SVG paths by label. The lowest
    of scores and threshold is as high as BASE, the highest as the plot.
    """
    rows = [row for row in record["rows"] if row.get("slice", "") != ""]
    if not rows:
        return None
    scores = [row["score"] for row in rows]
    threshold = rows[0]["threshold"]
    low = min(*scores, threshold)
    scale = (100 - BASE) / ((max(*scores, threshold) - low) or 1)
    paths = {"normal": "", "abnormal": ""}
    for k, row in enumerate(rows):
        height = BASE + scale * (row["score"] - low)
        paths[row["label"]] += f"M{k} 100v-{height:.0f}h1V100"
    return {
        "count": len(rows),
        "flagged": sum(row["label"] == "abnormal" for row in rows),
        "highest": rows[scores.index(max(scores))]["slice"],
        "ends": (rows[0]["slice"], rows[-1]["slice"]),
        "paths": paths,
        "threshold": f"{100 - BASE - scale * (threshold - low):.1f}",
    }


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
        there = os.path.isfile(out / overlay)  # noqa: PTH113  # False for a name that is too long
        row["overlay"] = quote(os.fsencode(overlay)) if there else ""
        row["slices"] = slice_plot(record)
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
    return write_text(out / PAGE, text)
