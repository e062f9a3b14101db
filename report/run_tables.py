"""Tables of runs and branches: selections, metrics, cases, calibration and states. Percent."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvfa.curve_plots import GRANULARITIES
from report.study import DONE, METRICS, Cell, Study, number, percent
from report.tables import (
    CELL_COLUMNS,
    METRIC_TITLES,
    MINUS,
    Column,
    Table,
    difference,
    intervals,
    mean,
    table,
)

BRANCHES = ("text", "memory", "both")
SELECTIONS = ("test", "valid", "last")  # rules that choose a checkpoint
MEASURES = ("auroc", "average_precision", "aupro", "dice", "best_f1", "sensitivity", "specificity")
OPERATING_POINTS = {  # names in metrics.json
    "sensitivity": "sensitivity_at_95_specificity",
    "specificity": "specificity_at_95_sensitivity",
}
CASE_KEYS = ("interval_by_case", "within_case", "within_slice")  # of a branch's details
RATE = 0.05  # of false positives: the p-value whose reliability is shown
SELECTION_COLUMNS = (
    *CELL_COLUMNS,
    Column("metric", "Metric"),
    Column("test", "Best on test (oracle)", 2),
    Column("valid", "Best on valid", 2),
    Column("last", "Last epoch", 2),
    Column("gap_valid", f"Test {MINUS} valid", 2, signed=True),
    Column("gap_last", f"Test {MINUS} last", 2, signed=True),
    Column("runs", "Runs", 0),
)
DETAIL_COLUMNS = (
    *CELL_COLUMNS,
    Column("granularity", "Granularity"),
    Column("branch", "Branch"),
    Column("auroc", "AUROC", 2),
    Column("average_precision", "Average precision", 2),
    Column("aupro", "AUPRO", 2),
    Column("dice", "Dice", 2),
    Column("best_f1", "Best F1", 2),
    Column("sensitivity", "Sensitivity", 2),
    Column("specificity", "Specificity", 2),
    Column("sensitivity_at_95", "Sensitivity at 95 % specificity", 2),
    Column("sensitivity_low", "95 % from", 2),
    Column("sensitivity_high", "95 % to", 2),
    Column("specificity_at_95", "Specificity at 95 % sensitivity", 2),
    Column("specificity_low", "95 % from", 2),
    Column("specificity_high", "95 % to", 2),
    Column("threshold", "Threshold", 3),
    Column("runs", "Runs", 0),
)
RUN_COLUMNS = (
    *CELL_COLUMNS,
    Column("seed", "Seed", 0),
    Column("draw", "Draw", 0),
    Column("state", "State"),
    Column("reason", "Reason"),
    Column("image_auroc", "Image AUROC", 2),
    Column("pixel_auroc", "Pixel AUROC", 2),
    Column("mask_rule", "Mask rule"),
)
CASE_COLUMNS = (
    *CELL_COLUMNS,
    Column("seed", "Seed", 0),
    Column("draw", "Draw", 0),
    Column("branch", "Branch"),
    Column("auroc", "Image AUROC", 2),
    Column("low", "95 % by image from", 2),
    Column("high", "to", 2),
    Column("case_low", "95 % by case from", 2),
    Column("case_high", "to", 2),
    Column("cases", "Cases", 0),
    Column("within_case", "AUROC within cases", 2),
    Column("within_case_used", "Cases used", 0),
    Column("within_case_left_out", "Left out", 0),
    Column("within_slice", "AUROC within slice numbers", 2),
    Column("within_slice_used", "Slice numbers used", 0),
    Column("within_slice_left_out", "Left out", 0),
    Column("disjoint_image", "Without the shots' cases: image AUROC", 2),
    Column("disjoint_pixel", "pixel AUROC", 2),
    Column("disjoint_images", "Images that remain", 0),
)
CALIBRATION_COLUMNS = (
    *CELL_COLUMNS,
    Column("seed", "Seed", 0),
    Column("draw", "Draw", 0),
    Column("image_auroc", "Image AUROC", 2),
    Column("pixel_auroc", "Pixel AUROC", 2),
    Column("pixel_dice", "Dice at the threshold of valid/", 2),
    Column("normals", "Normal images or cases of valid/", 0),
    Column("share", f"Normal test images with p of at most {RATE}", 2),
    Column("low", "95 % from", 2),
    Column("high", "95 % to", 2),
    Column("brier", "Brier score", 4),
    Column("calibration_error", "Calibration error", 4),
)


def selection_table(study: Study) -> Table:
    """Return AUROCs of the checkpoints that the three rules choose, and the optimism of the first.

    A training that several tables share is there once, as is a test in `detail_table`.
    """
    records = []
    for spec, row, obj, cells in study.unique_groups(lambda cell: cell.training_folder):
        runs = [s for c in cells if c.state == DONE and (s := c.training.get("selections"))]
        for metric in study.metrics_of(obj) if runs else ():
            values = [
                {rule: percent((run.get(rule) or {}).get(metric)) for rule in SELECTIONS}
                for run in runs
            ]
            cell = {"table": spec.title, "row": row, "object": obj}
            means: dict[str, Any] = {rule: mean(v[rule] for v in values) for rule in SELECTIONS}
            gaps = {
                f"gap_{rule}": mean(difference(v["test"], v[rule]) for v in values)
                for rule in SELECTIONS[1:]
            }
            counts = {"metric": METRIC_TITLES[metric], "runs": len(values)}
            records.append(cell | means | gaps | counts)
    return table("selections", SELECTION_COLUMNS, records)


def operating_points(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the means of sensitivity at 95 % specificity and the reverse, in percent.

    `runs` are the detailed metrics of a branch; of a single run with the 95 % intervals.
    """
    record: dict[str, float | None] = {}
    for short, key in OPERATING_POINTS.items():
        record[f"{short}_at_95"] = mean(percent(m.get(key)) for m in runs)
        ends = runs[0].get(f"{key}_interval") if len(runs) == 1 else None
        low, high = ends or (None, None)
        record |= {f"{short}_low": percent(low), f"{short}_high": percent(high)}
    return record


def detail_table(study: Study) -> Table:
    """Return every metric of every branch: means over runs, in percent except the threshold."""
    records = []
    for spec, row, obj, cells in study.unique_groups(lambda cell: cell.folder):
        for granularity in GRANULARITIES:
            for branch in BRANCHES:
                runs = [
                    m for c in cells if c.state == DONE and (m := c.measures(granularity, branch))
                ]
                if not runs:
                    continue
                record: dict[str, Any] = {"table": spec.title, "row": row, "object": obj}
                record |= {"granularity": granularity, "branch": branch, "runs": len(runs)}
                record |= {key: mean(percent(m.get(key)) for m in runs) for key in MEASURES}
                record |= operating_points(runs)
                record["threshold"] = mean(number(m.get("threshold")) for m in runs)
                records.append(record)
    return table("metrics", DETAIL_COLUMNS, records)


def case_record(measures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a branch's image AUROC with its intervals, and AUROCs within cases and slice numbers.

    In percent; with the number of strata that were used, and that had one label only.
    """
    record = {"auroc": percent(measures.get("auroc"))} | intervals(measures)
    record["cases"] = (measures.get("interval_by_case") or {}).get("cases")
    for key in ("within_case", "within_slice"):
        found = measures.get(key) or {}
        record[key] = percent(found.get("auroc"))
        record |= {f"{key}_{name}": found.get(name) for name in ("used", "left_out")}
    return record


def disjoint_record(cell: Cell) -> dict[str, Any]:
    """Return a run's AUROCs in percent without the images of its shots' cases; {} without any."""
    found = cell.metrics.get("disjoint_cases") if cell.state == DONE else None
    if not found:
        return {}
    return {
        "disjoint_image": percent(found.get("image_auroc")),
        "disjoint_pixel": percent(found.get("pixel_auroc")),
        "disjoint_images": found.get("images"),
    }


def case_table(study: Study) -> Table:
    """Return what is known of cases and slice numbers: a record for each run and branch."""
    records = []
    for spec, row, obj, cells in study.unique_groups(lambda cell: cell.folder):
        for cell in cells:
            for branch in BRANCHES:
                measures = cell.measures("image", branch) if cell.state == DONE else {}
                found = disjoint_record(cell) if branch == "both" else {}
                if found or any(measures.get(key) for key in CASE_KEYS):
                    record: dict[str, Any] = {"table": spec.title, "row": row, "object": obj}
                    record |= {"seed": cell.seed, "draw": cell.draw, "branch": branch}
                    records.append(record | case_record(measures) | found)
    return table("cases", CASE_COLUMNS, records)


def calibration_record(calibrated: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a test measured with the constants of images that are not tested.

    AUROCs, Dice and shares in percent; Brier score and calibration error as fractions.
    """
    record: dict[str, Any] = {
        name: percent(calibrated.get(name)) for name in (*METRICS, "pixel_dice")
    }
    reliability = calibrated.get("reliability") or {}
    rates = reliability.get("false_positive_rates") or []
    rate: Mapping[str, Any] = next((found for found in rates if found["rate"] == RATE), {})
    record |= {name: percent(rate.get(name)) for name in ("share", "low", "high")}
    record["normals"] = reliability.get("normals")
    probability = reliability.get("probability") or {}
    return record | {name: probability.get(name) for name in ("brier", "calibration_error")}


def calibration_table(study: Study) -> Table:
    """Return how well thresholds, p-values and probabilities hold that know no test image."""
    records = []
    for spec, row, obj, cells in study.unique_groups(lambda cell: cell.folder):
        for cell in cells:
            calibrated = cell.metrics.get("calibrated") if cell.state == DONE else None
            if calibrated and cell.branch == "both":
                record: dict[str, Any] = {"table": spec.title, "row": row, "object": obj}
                record |= {"seed": cell.seed, "draw": cell.draw}
                records.append(record | calibration_record(calibrated))
    return table("calibration", CALIBRATION_COLUMNS, records)


def run_table(study: Study, states: Sequence[str] | None = None) -> Table:
    """Return every cell, or those of some states."""
    records = []
    for spec, row, obj, cells in study.groups():
        for cell in cells:
            if states is None or cell.state in states:
                record: dict[str, Any] = {"table": spec.title, "row": row, "object": obj}
                record |= {"seed": cell.seed, "draw": cell.draw, "state": cell.state}
                record |= {metric: cell.percent(metric) for metric in METRICS}
                record["mask_rule"] = cell.mask_rule
                records.append(record | {"reason": cell.reason})
    return table("unfinished" if states else "runs", RUN_COLUMNS, records)
