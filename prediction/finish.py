"""The end of a run: scores.csv, the page, and what is said about the scores."""

import sys
from collections.abc import Sequence

from mvfa.calibration import SOURCES, benjamini_hochberg, shift_warning
from mvfa.detector import Detector
from mvfa.methods.catalog import METHODS
from prediction.options import PredictOptions
from prediction.page import Summary, summarise, write_page
from prediction.reading import Reading
from prediction.records import records, write_table

LIKENESS = (
    "p-values and rates hold for images like the calibration's normal images: the same kind of "
    "scanner, the same preparation, none of them used for training."
)

OF_SLICES = "Rates are of single slices: a volume, the highest of its slices, is above more often."


def facts(detector: Detector, options: PredictOptions, threshold: Sequence[str]) -> dict[str, str]:
    """Return what a run used, for the page."""
    settings = detector.settings
    calibration = detector.calibration
    assert calibration is not None
    kind = {"few": f"{settings.shot}-shot", "normal": f"{settings.shot} normal shots"}
    normals = len(calibration.normal_scores)
    abnormals = len(calibration.abnormal_scores)
    compared = METHODS[settings.method].sentences
    sentences = f", sentences about “{settings.noun}”" if compared else ""
    unit = "cases" if calibration.by == "case" else "images"
    return {
        "Detector": f"{options.detector.name}: {settings.object}, "
        f"{METHODS[settings.method].title}, {kind.get(settings.setting, 'zero-shot')}{sentences}",
        "Calibration": f"{normals} normal and {abnormals} abnormal {unit}: "
        f"{SOURCES[calibration.source]}",
        "Threshold": " ".join(threshold),
        "Image size": f"{settings.img_size} pixels",
        "Precision": settings.precision,
    }


def remarks(
    detector: Detector, options: PredictOptions, summary: Summary, others: str
) -> list[str]:
    """Return what breaks the promises of p-values and thresholds (docs/calibration.md)."""
    calibration = detector.calibration
    assert calibration is not None
    said = [LIKENESS]
    trained_on_shots = METHODS[detector.settings.method].keys
    if calibration.source == "loo-shots" and trained_on_shots:
        said.append(
            "The adapters were trained on the images of the calibration: rates are too low."
        )
    if calibration.selection_used_it:
        said.append("The images of the calibration also chose the epoch of the adapters.")
    if calibration.by == "image":
        said.append(OF_SLICES)
    trained = detector.settings.intensity
    if options.intensity is not None and str(options.intensity) != str(trained):
        said.append(f"--intensity {options.intensity} is not the training's, {trained}.")
    if warning := shift_warning(list(summary.p_values.values())):
        said.append(warning)
    if summary.wide:
        reading = Reading.of(options, trained, detector.settings.prepare)
        how = "by --window" if reading.window else reading.intensity.words(dicom=True)
        said.append(f"{summary.wide} files have more than 8 bit: scaled {how}.")
    if others:
        said.append(f"{others}.")
    return said


def finish(
    detector: Detector, options: PredictOptions, threshold: Sequence[str], others: str
) -> Summary:
    """Write scores.csv and index.html, and print the summary."""
    summary = summarise(records(options.out))
    discoveries = None
    if options.fdr is not None:
        found = benjamini_hochberg(list(summary.p_values.values()), options.fdr)
        discoveries = dict(zip(summary.p_values, map(bool, found), strict=True))
    said = remarks(detector, options, summary, others)
    table = write_table(options.out, discoveries)
    page = write_page(
        options.out,
        summary,
        title=f"Anomaly scores: {detector.settings.object}",
        facts=facts(detector, options, threshold),
        remarks=said,
        discoveries=discoveries,
    )
    for line in (*threshold, *said):
        print(f"note: {line}", file=sys.stderr)
    print(f"{summary.scored} scored, {summary.flagged} above the threshold", end="")
    print(f", {len(summary.failures)} failed" if summary.failures else "")
    print("wrote", table, page, file=sys.stderr)
    return summary
