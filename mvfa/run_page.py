"""The page of one test run: its results, curves, errors, pictures and settings in one file.

It is made from the files that the run has written, and needs no other file and no network.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import UserError
from mvfa.curve_plots import GRANULARITIES, curve_plots
from mvfa.embedding import drawn, embedded
from mvfa.error_cases import error_cases
from mvfa.pages import NONE, flat, make_environment, plotly_script, script_json
from mvfa.protocol import protocol_text
from mvfa.run_files import PAGE, load_metrics
from synthetic.settings import MODEL as DEMO_MODEL
from utils import write_text

BRANCHES = ("both", "text", "memory")
MIDDLE = 0.5  # the threshold of maps where none was recorded
MEASURES = {  # names of metrics that are no plain words
    "auroc": "AUROC",
    "average_precision": "average precision",
    "aupro": "AUPRO",
    "best_f1": "best F1",
    "sensitivity_at_95_specificity": "sensitivity at 95 % specificity",
    "sensitivity_at_95_specificity_interval": "sensitivity at 95 % specificity, 95 % interval",
    "specificity_at_95_sensitivity": "specificity at 95 % sensitivity",
    "specificity_at_95_sensitivity_interval": "specificity at 95 % sensitivity, 95 % interval",
    "interval": "95 % interval by image",
    "interval_by_case": "95 % interval by case",
    "within_case": "within cases",
    "within_slice": "within slice numbers",
}
APART = ("details", "pictures", "protocol")  # of metrics.json: not listed among the settings

Rows = list[tuple[str, list[str]]]


def run_title(options: Mapping[str, Any]) -> str:
    """Return a run's object, setting, draw and seed in words."""
    parts = [str(options.get("obj", "run"))]
    shot = options.get("shot")
    if shot:
        normal_only = options.get("abnormal_shot") == 0
        parts.append(f"{shot} normal shots" if normal_only else f"{shot}-shot")
        parts.append(f"draw {options.get('iterate', 0)}")
    else:
        parts.append("zero-shot")
    return ", ".join([*parts, f"seed {options.get('seed', NONE)}"])


def measure_text(value: Any) -> str:
    """Return a metric as text: a number with four decimals, or a range."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\N{EN DASH}".join(map(measure_text, value))
    return NONE if value is None else str(value)


def measure_items(values: Mapping[str, Any], name: str = "") -> list[tuple[str, str]]:
    """Return the metrics of one branch as (name, text): nested ones, but no curves or bins."""
    items = []
    for key, value in values.items():
        word = MEASURES.get(key, key.replace("_", " "))
        title = f"{name}, {word}" if name else word
        if isinstance(value, Mapping):
            items += measure_items(value, title)
        elif not is_curve(value):
            items.append((title, measure_text(value)))
    return items


def is_curve(value: Any) -> bool:
    """Return whether a metric is a list of points or bins."""
    return isinstance(value, list) and any(isinstance(part, list | Mapping) for part in value)


def measure_rows(details: Mapping[str, Any], granularity: str) -> tuple[list[str], Rows]:
    """Return the branches that have metrics, and for each metric its text in each branch."""
    branches = details.get(granularity) or {}
    used = [branch for branch in BRANCHES if branches.get(branch)]
    texts = {branch: dict(measure_items(branches[branch])) for branch in used}
    names = dict.fromkeys(name for branch in used for name in texts[branch])
    return used, [(name, [texts[b].get(name, NONE) for b in used]) for name in names]


def without_folders(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return settings with the last name only of each absolute path."""
    return [(k, Path(v).name if Path(v).is_absolute() else v) for k, v in pairs]


def settings_of(metrics: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what metrics.json records of a run beside its metrics and pictures, by section."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for name, value in metrics.items():
        if name in APART:
            continue
        title = name.replace("_", " ").capitalize() if isinstance(value, Mapping) else "Run"
        pairs = flat(value, "" if isinstance(value, Mapping) else name)
        sections.setdefault(title, []).extend(without_folders(pairs))
    return list(sections.items())


def run_gallery(folder: Path, metrics: Mapping[str, Any], label: str) -> list[dict[str, Any]]:
    """Return a run's pictures with their threshold; empty if it has drawn none."""
    threshold = metrics.get("threshold")
    pictures = [embedded(folder, entry) for entry in drawn(folder, metrics)]
    shown = {
        "label": label,
        "threshold": MIDDLE if threshold is None else threshold,
        "pictures": pictures,
    }
    return [shown] if pictures else []


def run_page(folder: Path) -> str:
    """Return the page of the run in a folder. UserError for files that cannot be read."""
    metrics = load_metrics(folder)
    if metrics is None:
        raise UserError(f"{folder} has no metrics.json; give the --out folder of a test")
    details = metrics.get("details") or {}
    options = metrics.get("options") or {}
    title = run_title(options)
    plots = curve_plots(details)
    return (
        make_environment()
        .get_template("run.html.j2")
        .render(
            title=title,
            demo=options.get("model_name") == DEMO_MODEL,
            protocol=protocol_text(metrics),
            metrics=metrics,
            measures=[(name, *measure_rows(details, name)) for name in GRANULARITIES],
            errors=error_cases(folder, metrics),
            gallery=run_gallery(folder, metrics, title),
            settings=settings_of(metrics),
            data=script_json({"plots": plots, "curves": {}}),
            plots=plots,
            plotly=plotly_script() if plots else "",
        )
    )


def write_run_page(folder: Path) -> Path:
    """Write the page of a run to its folder; return its path. UserError as `run_page`."""
    return write_text(folder / PAGE, run_page(folder))
