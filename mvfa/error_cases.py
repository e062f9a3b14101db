"""The worst errors of a run at its threshold: missed abnormal images and flagged normal ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvfa.embedding import Entry, drawn, overlay_uri, truth_uri
from mvfa.run_files import ScoredImages, read_scores

KINDS = {  # of errors, and (true label, label at the threshold)
    "false negative": ("abnormal", "normal"),
    "false positive": ("normal", "abnormal"),
}
MOST = 5  # errors of a kind that a page lists


@dataclass(frozen=True)
class ErrorCase:
    """An image on the wrong side of the threshold: both labels, its score, where it is from.

    `shown` holds the data URIs of its picture, None where the run has drawn none.
    """

    kind: str
    file: str
    score: float
    case: str | None
    slice: int | None
    shown: Mapping[str, Any] | None = None

    @property
    def truth(self) -> str:
        """The label by its folder."""
        return KINDS[self.kind][0]

    @property
    def called(self) -> str:
        """The label at the threshold."""
        return KINDS[self.kind][1]


@dataclass(frozen=True)
class Errors:
    """The errors of a run.

    Args:
        threshold: image scores at or above it count as abnormal.
        counts: how many errors of each kind there are.
        totals: how many images could have been one: abnormal ones, normal ones.
        cases: the worst of each kind, the worst first.

    """

    threshold: float
    counts: Mapping[str, int]
    totals: Mapping[str, int]
    cases: Sequence[ErrorCase]


def wrong_images(scored: ScoredImages, threshold: float) -> dict[str, list[int]]:
    """Return the indices of the errors of each kind, the farthest from the threshold first.

    Equal scores keep the test set's order.
    """
    pairs = list(zip(scored.labels.tolist(), scored.scores.tolist(), strict=True))
    missed = [i for i, (abnormal, score) in enumerate(pairs) if abnormal and score < threshold]
    flagged = [
        i for i, (abnormal, score) in enumerate(pairs) if not abnormal and score >= threshold
    ]
    return {
        "false negative": sorted(missed, key=lambda i: pairs[i][1]),
        "false positive": sorted(flagged, key=lambda i: -pairs[i][1]),
    }


def shown(folder: Path, entry: Entry | None) -> dict[str, Any] | None:
    """Return the data URIs of an error's picture: the true mask, and the map over the image."""
    if entry is None:
        return None
    mask, note = truth_uri(folder, entry)
    return {"mask_uri": mask, "mask_note": note, "overlay_uri": overlay_uri(folder, entry)}


def error_cases(folder: Path, metrics: Mapping[str, Any], most: int = MOST) -> Errors | None:
    """Return the errors of a run from its scores.csv, with those pictures that it has drawn.

    None where the run has no scores.csv or no threshold of image scores. UserError for files that
    cannot be read.
    """
    details = (metrics.get("details") or {}).get("image") or {}
    threshold = (details.get("both") or {}).get("threshold")
    scored = read_scores(folder)
    if scored is None or threshold is None:
        return None
    entries = {entry["file"]: entry for entry in drawn(folder, metrics)}
    wrong = wrong_images(scored, threshold)
    abnormal = int(scored.labels.sum())
    cases = [
        ErrorCase(
            kind=kind,
            file=scored.files[i],
            score=float(scored.scores[i]),
            case=scored.cases[i],
            slice=scored.slices[i],
            shown=shown(folder, entries.get(scored.files[i])),
        )
        for kind in KINDS
        for i in wrong[kind][:most]
    ]
    totals = {"false negative": abnormal, "false positive": len(scored.labels) - abnormal}
    counts = {kind: len(wrong[kind]) for kind in KINDS}
    return Errors(threshold, counts, totals, cases)
