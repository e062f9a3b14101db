"""A study to files: index.html, tables.md, and a CSV file for each table.

The page needs no other file and no network. Equal studies give equal bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mvfa.curve_plots import Plot, curve_plots
from mvfa.embedding import data_uri
from mvfa.markdown import escape
from mvfa.pages import (
    DEMO_NOTE,
    DISCLAIMER,
    counted,
    flat,
    make_environment,
    plotly_script,
    script_json,
    template_text,
)
from report.compact import SOURCES, Compact, compact_table
from report.comparisons import (
    LEVEL,
    Reader,
    best_cells,
    cached_reader,
    comparison_table,
    comparisons_of,
    reference_table,
)
from report.costs import averages, cost_table
from report.gallery import gallery, heat_map_rows
from report.plots import shot_plots
from report.rivals import load_rivals, rival_table, side_by_side
from report.run_tables import (
    RATE,
    calibration_table,
    case_table,
    detail_table,
    run_table,
    selection_table,
)
from report.settings import protocols
from report.shortcuts import shortcut_row, shortcut_table
from report.study import (
    DONE,
    FAILED,
    MISSING,
    STATES,
    PublishedResults,
    Study,
    TableSpec,
    load_published,
)
from report.tables import Table, long_table
from utils import encoded, write_text

TEMPLATES = Path(__file__).parent / "templates"
NO_DIFFERENCE_NOTE = (
    "The published results beside them are of other images; no difference is computed."
)
CELL_NOTE = (
    "AUROC in percent, image / pixel. Below: \N{PLUS-MINUS SIGN} sample standard deviation and "
    "lowest\N{EN DASH}highest of n runs (seeds and draws); of one run, 95 % bootstrap intervals of "
    "the image AUROC, over images and, where cases are known, over cases."
)
BOLD_NOTE = (
    "Bold: the best image AUROC of this study's rows for an object, where DeLong's test and a "
    f"permutation find it better than that of each other row with p < {LEVEL}, in every run "
    "(section Paired tests)."
)
COST_NOTE = (
    "Means over objects and runs. Training is one whole call, with loading and with the tests that "
    "choose a checkpoint; a test image is what scoring takes for each, without loading. Memory is "
    "the peak of the GPU, or else of the process (host); only Linux tells that of each run of a "
    "process. Compare rows of one machine only."
)
REFERENCE_NOTE = (
    "Difference of image AUROC on the same test images, of runs of the same seed and draw. Better "
    f"or worse: both p-values are below {LEVEL}, for this object alone; with many rows some are by "
    "chance, since nothing is corrected for their number."
)
SELECT_TITLES = {"test": "best on test (an oracle)", "valid": "best on valid", "last": "last epoch"}
EXTRA_TITLES = {  # of tables.md
    "comparisons": "Paired tests",
    "shortcuts": "Shortcuts",
    "cases": "Cases and slices",
    "published": "Who else, and is it comparable",
    "selections": "Choice of checkpoint",
    "details": "All metrics",
    "calibration": "Calibration",
}


class MethodTables(NamedTuple):
    """What the section of a table of methods has below it: costs, and each row against the first.

    `average` holds the means over objects of `costs`.
    """

    average: Table
    costs: Table
    paired: Table

    def markdown(self) -> str:
        """Return the means of the costs, and the paired tests, in Markdown."""
        cost = f"### Cost\n\n{COST_NOTE}\n\n{self.average.markdown()}"
        return f"{cost}\n### Against the first row\n\n{REFERENCE_NOTE}\n\n{self.paired.markdown()}"


def method_tables(study: Study, spec: TableSpec, read: Reader) -> MethodTables | None:
    """Return the tables below a table of methods, None for another one."""
    if not spec.methods:
        return None
    costs = cost_table(study, spec)
    return MethodTables(averages(costs), costs, reference_table(study, spec, read))


def sections(
    study: Study,
    results: PublishedResults,
    compared: Mapping[str, Sequence[Mapping[str, Any]]],
    read: Reader,
) -> list[dict[str, Any]]:
    """Return for each table its spec, its compact and long form, its plots and its heat maps.

    `compared` holds the comparisons between the rows of each table, by its name.
    """
    parts = []
    for spec in study.specs:
        long = long_table(study, spec, results)
        parts.append(
            {
                "spec": spec,
                "long": long,
                "compact": compact_table(
                    study,
                    spec,
                    long,
                    best_cells(compared[spec.name]),
                    shortcut_row(study, spec.objects),
                ),
                "plots": shot_plots(study, spec, long),
                "heat_maps": heat_map_rows(study, spec),
                "methods": method_tables(study, spec, read),
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
            if cell.state == DONE and (
                cell_plots := curve_plots(cell.metrics.get("details") or {})
            ):
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


def render(study: Study, parts: Sequence[Mapping[str, Any]], extra: Mapping[str, Table]) -> str:
    """Return the page; `extra` are the tables that belong to no single table of the study."""
    choices, plots = curves(study)
    shot_curves = {name: plot for part in parts for name, plot in part["plots"].items()}
    environment = make_environment([TEMPLATES])
    environment.filters["file_uri"] = lambda text, mime: data_uri(encoded(text), mime)
    compacts = {part["spec"].name: part["compact"] for part in parts}
    return environment.get_template("page.html.j2").render(
        study=study,
        no_difference_note=NO_DIFFERENCE_NOTE,
        cell_note=CELL_NOTE,
        bold_note=BOLD_NOTE,
        cost_note=COST_NOTE,
        reference_note=REFERENCE_NOTE,
        level=LEVEL,
        rate=RATE,
        counts={state: study.count(state) for state in STATES},
        unfinished=run_table(study, (MISSING, FAILED)),
        parts=parts,
        sources=SOURCES,
        side_by_side=side_by_side(study, compacts, load_rivals()),
        selects=selects(study),
        choices=choices,
        gallery=gallery(study),
        settings=[(str(name), flat(values)) for name, values in study.settings.items()],
        protocols=protocols(study.cells),
        data=script_json({"plots": shot_curves, "curves": plots}),
        plotly=plotly_script() if shot_curves or plots else "",
        splits=template_text("splits.svg", TEMPLATES),
        **extra,
    )


def markdown(study: Study, parts: Sequence[Mapping[str, Any]], extra: Mapping[str, Table]) -> str:
    """Return all tables in Markdown; `extra` are the tables of no single table of the study."""
    lines = [f"# {escape(study.title)}\n", f"{DISCLAIMER}\n"]
    if study.demo:
        lines.append(f"**{DEMO_NOTE}** {NO_DIFFERENCE_NOTE}\n")
    counts = ", ".join(f"{study.count(state)} {state}" for state in STATES)
    lines.append(f"{counts} of {counted(len(study.cells), 'cell')}.\n")
    lines.append(f"{CELL_NOTE} {BOLD_NOTE}\n")
    for part in parts:
        spec = part["spec"]
        compact = part["compact"]
        assert isinstance(compact, Compact)
        lines.append(f"## {escape(spec.title)}\n\n{escape(spec.caption)}\n\n{compact.markdown()}")
        lines.append(part["long"].markdown())
        if part["methods"]:
            lines.append(part["methods"].markdown())
    for name, title in EXTRA_TITLES.items():
        if extra[name].records:
            lines.append(f"## {title}\n\n{extra[name].markdown()}")
    return "\n".join(lines)


def write_report(study: Study, folder: Path) -> Path:
    """Write index.html, tables.md, and csv/<table>.csv; return the path of the page.

    UserError if a picture or a scores.csv cannot be read.
    """
    read = cached_reader()
    compared = {spec.name: comparisons_of(study, spec, read) for spec in study.specs}
    parts = sections(study, load_published(), compared, read)
    extra = {
        "comparisons": comparison_table([r for records in compared.values() for r in records]),
        "shortcuts": shortcut_table(study),
        "cases": case_table(study),
        "published": rival_table(study, load_rivals()),
        "selections": selection_table(study),
        "details": detail_table(study),
        "calibration": calibration_table(study),
        "runs": run_table(study),
    }
    page = render(study, parts, extra)
    below = [table for part in parts for table in part["methods"] or ()]
    for table in (*(part["long"] for part in parts), *below, *extra.values()):
        write_text(folder / "csv" / f"{table.name}.csv", table.csv())
    write_text(folder / "tables.md", markdown(study, parts, extra))
    write_text(folder / "index.html", page)
    return folder / "index.html"
