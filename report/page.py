"""A study to files: index.html, tables.md, and a CSV file for each table.

The page needs no other file and no network. Equal studies give equal bytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from mvfa.markdown import escape
from report.compact import NONE, SOURCES, Compact, compact_table
from report.gallery import colour_bar_uri, gallery, heat_map_rows
from report.plots import Plot, curve_plots, shot_plots
from report.study import (
    DONE,
    FAILED,
    MISSING,
    STATES,
    PublishedResults,
    Study,
    load_published,
)
from report.tables import Table, detail_table, long_table, run_table, selection_table
from utils import write_whole

TEMPLATES = Path(__file__).parent / "templates"
DISCLAIMER = "Research software, not a medical device: not for diagnosis or any other clinical use."
DEMO_NOTE = (
    "Demo results, of synthetic images and a backbone that was never trained: they say nothing "
    "about the accuracy of the method."
)
NO_DIFFERENCE_NOTE = (
    "The published results beside them are of other images; no difference is computed."
)
SELECT_TITLES = {"test": "best on test (an oracle)", "valid": "best on valid", "last": "last epoch"}


def sections(study: Study, results: PublishedResults) -> list[dict[str, Any]]:
    """Return for each table its spec, its compact and long form, its plots and its heat maps."""
    parts = []
    for spec in study.specs:
        long = long_table(study, spec, results)
        parts.append(
            {
                "spec": spec,
                "long": long,
                "compact": compact_table(study, spec, long),
                "plots": shot_plots(study, spec, long),
                "heat_maps": heat_map_rows(study, spec),
            }
        )
    return parts


def curves(
    study: Study,
) -> tuple[list[tuple[str, list[tuple[str, str]]]], dict[str, dict[str, Plot]]]:
    """Return the cells with curves, as (table, [(key, label)]), and their plots by key."""
    groups: dict[str, list[tuple[str, str]]] = {}
    plots: dict[str, dict[str, Plot]] = {}
    for spec, _, _, cells in study.unique_groups(lambda cell: cell.folder):
        for cell in cells:
            if cell_plots := curve_plots(cell):
                key = str(len(plots))
                plots[key] = cell_plots
                groups.setdefault(spec.title, []).append((key, cell.label))
    return list(groups.items()), plots


def selects(study: Study) -> list[str]:
    """Return how the checkpoints of the tables were chosen, where the trainings recorded it."""
    recipes = [
        (c.training.get("options") or {}).get("recipe") or {}
        for c in study.cells
        if c.state == DONE
    ]
    rules = {str(recipe["select"]) for recipe in recipes if "select" in recipe}
    return sorted(SELECT_TITLES.get(rule, rule) for rule in rules)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, which takes an s unless the number is 1."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def flat(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, value) pairs, in their own order."""
    if isinstance(values, Mapping) and values:
        return [
            pair
            for key, value in values.items()
            for pair in flat(value, f"{name}.{key}" if name else str(key))
        ]
    return [(name, values if isinstance(values, str) else json.dumps(values, default=str))]


def script_json(value: Any) -> Markup:
    """Return JSON that can stand within a script element: it has no "<" that could end it."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def template_file(name: str) -> Markup:
    """Read a file of this program that goes into the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def render(study: Study, parts: Sequence[Mapping[str, Any]], extra: Sequence[Table]) -> str:
    """Return the page; `extra` are the tables of selections and of details."""
    choices, plots = curves(study)
    shot_curves = {name: plot for part in parts for name, plot in part["plots"].items()}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    return environment.get_template("page.html.j2").render(
        study=study,
        disclaimer=DISCLAIMER,
        demo_note=DEMO_NOTE,
        no_difference_note=NO_DIFFERENCE_NOTE,
        counts={state: study.count(state) for state in STATES},
        unfinished=run_table(study, (MISSING, FAILED)),
        parts=parts,
        sources=SOURCES,
        dash=NONE,
        selections=extra[0],
        details=extra[1],
        selects=selects(study),
        choices=choices,
        gallery=gallery(study),
        colour_bar=colour_bar_uri(),
        settings=[(str(name), flat(values)) for name, values in study.settings.items()],
        data=script_json({"plots": shot_curves, "curves": plots}),
        plotly=Markup(get_plotlyjs()),
        css=template_file("page.css"),
        js=template_file("page.js"),
        splits=template_file("splits.svg"),
    )


def markdown(study: Study, parts: Sequence[Mapping[str, Any]], extra: Sequence[Table]) -> str:
    """Return all tables in Markdown; `extra` are the tables of selections and of details."""
    lines = [f"# {escape(study.title)}\n", f"{DISCLAIMER}\n"]
    if study.demo:
        lines.append(f"**{DEMO_NOTE}** {NO_DIFFERENCE_NOTE}\n")
    counts = ", ".join(f"{study.count(state)} {state}" for state in STATES)
    lines.append(f"{counts} of {counted(len(study.cells), 'cell')}.\n")
    lines.append(
        "AUROCs in percent, image / pixel; mean ± sample standard deviation over n runs, or, of "
        "one run, the 95 % bootstrap interval of the image AUROC in brackets.\n"
    )
    for part in parts:
        spec = part["spec"]
        compact = part["compact"]
        assert isinstance(compact, Compact)
        lines.append(f"## {escape(spec.title)}\n\n{escape(spec.caption)}\n\n{compact.markdown()}")
        lines.append(part["long"].markdown())
    for title, table in zip(("Choice of checkpoint", "All metrics"), extra, strict=True):
        lines.append(f"## {title}\n\n{table.markdown()}")
    return "\n".join(lines)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, with the same bytes on every system."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8", newline="\n"))


def write_report(study: Study, folder: Path) -> Path:
    """Write index.html, tables.md and csv/<table>.csv; return the path of the page.

    UserError if a picture cannot be read.
    """
    parts = sections(study, load_published())
    extra = (selection_table(study), detail_table(study))
    page = render(study, parts, extra)
    for table in (*(part["long"] for part in parts), *extra, run_table(study)):
        write_text(folder / "csv" / f"{table.name}.csv", table.csv())
    write_text(folder / "tables.md", markdown(study, parts, extra))
    write_text(folder / "index.html", page)
    return folder / "index.html"
