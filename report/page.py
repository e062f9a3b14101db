"""A study to files: index.html, which needs no other file and no network, tables.md, and a CSV a table.

Everything follows from the study: equal studies give equal bytes.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from errors import UserError
from report.compact import NONE, SOURCES, Compact, compact_table
from report.plots import Plot, curve_plots, shot_plots
from report.study import DONE, FAILED, MISSING, STATES, Cell, Figures, Study, load_published, number
from report.tables import Table, detail_table, long_table, markdown_text, run_table, selection_table
from utils import write_whole

TEMPLATES = Path(__file__).parent / "templates"
DEMO_NOTE = (
    "Demo figures, of synthetic images and a backbone that was never trained: they say nothing about the accuracy of "
    "the method."
)
NO_DIFFERENCE_NOTE = (
    "The published figures beside them are of other images; no difference is taken."
)
PARTS = ("image", "map", "mask", "panel")  # the PNGs of a picture; no mask where there is none
SELECT_TITLES = {"test": "best on test (an oracle)", "valid": "best on valid", "last": "last epoch"}
MIDDLE = 0.5  # the threshold of a cell that names none


def told(cell: Cell) -> str:
    """A cell within its table, in words."""
    return f"{cell.row}, {cell.obj}, seed {cell.seed}, draw {cell.draw}"


def picture_uri(folder: Path, name: str | None) -> str | None:
    """A PNG of a test's folder as a data URI. UserError if it is not there."""
    if name is None:
        return None
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise UserError(
            f"{folder / name} cannot be read; remove its folder and run the command again"
        ) from error
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def gallery_cells(study: Study) -> list[Cell]:
    """The runs whose pictures are shown: the first of each place of a gallery table, else of each object."""
    found: dict[tuple[str, ...], Cell] = {}
    galleries = any(spec.gallery for spec in study.specs)
    for spec, row, obj, cells in study.places():
        if galleries and not spec.gallery:
            continue
        for cell in cells:
            if cell.state == DONE and cell.folder and cell.metrics.get("pictures"):
                found.setdefault((spec.name, row, obj) if galleries else (obj,), cell)
    return list(found.values())


def gallery(study: Study) -> list[dict[str, Any]]:
    """For each run shown: its name, its threshold in [0, 1], and its pictures with all images as data URIs."""
    shown = []
    for cell in gallery_cells(study):
        folder, threshold = cell.folder, number(cell.metrics.get("threshold"))
        assert folder is not None
        pictures = [
            dict(picture) | {f"{part}_uri": picture_uri(folder, picture[part]) for part in PARTS}
            for picture in cell.metrics["pictures"]
        ]
        threshold = MIDDLE if threshold is None else threshold
        shown.append({"told": told(cell), "threshold": threshold, "pictures": pictures})
    return shown


def sections(study: Study, figures: Figures) -> list[dict[str, Any]]:
    """For each table: its spec, its compact and its long form, and its shot curves by plot name."""
    found = []
    for spec in study.specs:
        long = long_table(study, spec, figures)
        plots = shot_plots(study, spec, long)
        found.append(
            {
                "spec": spec,
                "long": long,
                "compact": compact_table(study, spec, long),
                "plots": plots,
            }
        )
    return found


def curves(
    study: Study,
) -> tuple[list[tuple[str, list[tuple[str, str]]]], dict[str, dict[str, Plot]]]:
    """The choice of cells with curves, as (table, [(key, cell)]), and their plots by key."""
    groups: dict[str, list[tuple[str, str]]] = {}
    plots: dict[str, dict[str, Plot]] = {}
    for spec, _, _, cells in study.places_once(lambda cell: cell.folder):
        for cell in cells:
            if found := curve_plots(cell):
                key = str(len(plots))
                plots[key] = found
                groups.setdefault(spec.title, []).append((key, told(cell)))
    return list(groups.items()), plots


def selects(study: Study) -> list[str]:
    """How the checkpoints behind the tables were chosen, as far as the trainings tell."""
    recipes = [
        (c.training.get("options") or {}).get("recipe") or {}
        for c in study.cells
        if c.state == DONE
    ]
    return sorted(
        {
            SELECT_TITLES.get(recipe["select"], str(recipe["select"]))
            for recipe in recipes
            if "select" in recipe
        }
    )


def flat(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs, in their own order."""
    if isinstance(values, Mapping) and values:
        return [
            pair
            for key, value in values.items()
            for pair in flat(value, f"{name}.{key}" if name else str(key))
        ]
    return [(name, values if isinstance(values, str) else json.dumps(values, default=str))]


def script_json(value: Any) -> Markup:
    """JSON that can stand within a script element: no "<" can end it."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def template_file(name: str) -> Markup:
    """A file of this program that goes into the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def render(study: Study, parts: Sequence[Mapping[str, Any]], extra: Sequence[Table]) -> str:
    """The page."""
    choices, plots = curves(study)
    shots = {name: plot for part in parts for name, plot in part["plots"].items()}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        study=study,
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
        protocol=[(str(name), flat(values)) for name, values in study.protocol.items()],
        data=script_json({"plots": shots, "curves": plots}),
        plotly=Markup(get_plotlyjs()),
        css=template_file("page.css"),
        js=template_file("page.js"),
        splits=template_file("splits.svg"),
    )


def markdown(study: Study, parts: Sequence[Mapping[str, Any]], extra: Sequence[Table]) -> str:
    """All tables in Markdown."""
    lines = [f"# {markdown_text(study.title)}\n"]
    if study.demo:
        lines.append(f"**{DEMO_NOTE}** {NO_DIFFERENCE_NOTE}\n")
    lines.append(", ".join(f"{study.count(state)} {state}" for state in STATES) + " cells.\n")
    lines.append(
        "AUROCs in percent, image / pixel; mean ± sample standard deviation over n runs, or, of one run, the 95 % "
        "bootstrap interval of the image AUROC in brackets.\n"
    )
    for part in parts:
        spec, compact = part["spec"], part["compact"]
        assert isinstance(compact, Compact)
        lines.append(
            f"## {markdown_text(spec.title)}\n\n{markdown_text(spec.caption)}\n\n{compact.markdown()}"
        )
        lines.append(part["long"].markdown())
    for title, table in zip(("Choice of checkpoint", "All metrics"), extra, strict=True):
        lines.append(f"## {title}\n\n{table.markdown()}")
    return "\n".join(lines)


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all, with the same bytes on every system."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8", newline="\n"))


def write_report(study: Study, folder: Path) -> Path:
    """Write index.html, tables.md and csv/<table>.csv; the path of the page. UserError if a picture is missing."""
    parts = sections(study, load_published())
    extra = (selection_table(study), detail_table(study))
    page = render(study, parts, extra)
    for table in (*(part["long"] for part in parts), *extra, run_table(study)):
        write_text(folder / "csv" / f"{table.name}.csv", table.csv())
    write_text(folder / "tables.md", markdown(study, parts, extra))
    write_text(folder / "index.html", page)
    return folder / "index.html"
