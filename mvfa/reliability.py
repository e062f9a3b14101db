"""Reliability of calibrated scores: whether p-values and probabilities hold on a test set.

What docs/calibration.md refuses with too few images (C3, C4) is not reported here either. Neither
torch nor scikit-learn is loaded by importing this module.

Letters: n normal and m abnormal scores of the calibration; t images of a test set.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mvfa.calibration import Logistic, fit_probability
from mvfa.thresholds import Scores, position

RATES = ("0.05", "0.1", "0.2")  # false positive rates that are checked
BINS = 10  # of the calibration error
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def reliability(
    normal: Scores, abnormal: Scores, by: str, scores: Floats, labels: Bools
) -> dict[str, Any]:
    """Return how well what a calibration says holds on a test set.

    normal [n], abnormal [m]: sorted scores of the calibration, each of an image or a case (`by`);
    scores [t] in the same scale, labels [t] with both labels. The result has these numbers, and
    `false_positive_rates`, see `false_positives`, and `probability`, see `probability_errors`.
    """
    fitted = fit_probability(normal, abnormal)
    return {
        "by": by,
        "normals": len(normal),
        "abnormals": len(abnormal),
        "false_positive_rates": [false_positives(normal, scores[~labels], a) for a in RATES],
        "probability": None if fitted is None else probability_errors(fitted, scores, labels),
    }


def p_values(normal: Scores, scores: Floats) -> Floats:
    """Return (1 + number of normal scores >= score) / (n + 1) for each score [t] (C3)."""
    n = len(normal)
    below = np.searchsorted(normal.astype(np.float64), scores, side="left")
    return (1 + n - below) / (n + 1)


def false_positives(normal: Scores, scores: Floats, rate: str) -> dict[str, Any]:
    """Return the share of normal test scores [t] with a p-value of at most `rate`, digits (C3).

    `low` and `high` are its 95 % interval (Clopper and Pearson, 1934), of independent images. The
    three are None where n normals are too few for this rate.
    """
    from mvfa.intervals import binomial_interval  # loads torch

    found: dict[str, Any] = {"rate": float(rate), "images": len(scores)}
    k = position(Fraction(rate), len(normal))
    if not k:
        return found | dict.fromkeys(("share", "low", "high"))
    # p <= rate exactly where p <= k / (n + 1): half a step more, against rounding
    flagged = int((p_values(normal, scores) < (k + 0.5) / (len(normal) + 1)).sum())
    low, high = binomial_interval(flagged, len(scores))
    return found | {"share": flagged / len(scores), "low": low, "high": high}


def probability_errors(fitted: Logistic, scores: Floats, labels: Bools) -> dict[str, Any]:
    """Return the errors of probabilities on a test set of scores [t] and labels [t].

    `brier`: mean squared difference of probability and label (Brier, 1950); `calibration_error`,
    see there; `abnormal_share` of the test, since probabilities hold for the calibration's share.
    """
    probabilities = np.array([fitted(score) for score in scores.tolist()])
    return {
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "calibration_error": calibration_error(probabilities, labels),
        "bins": BINS,
        "abnormal_share": float(labels.mean()),
    }


def calibration_error(probabilities: Floats, labels: Bools, bins: int = BINS) -> float:
    """Return the expected calibration error: |mean probability - share abnormal| over bins.

    Images, probabilities [t] and labels [t], are put into `bins` bins of equal count by their
    probability; equal ones come into one bin. Bins weigh by their images.
    """
    edges = np.quantile(probabilities, np.arange(1, bins) / bins)
    places = np.searchsorted(edges, probabilities, side="right")
    gaps = np.bincount(places, probabilities - labels, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
