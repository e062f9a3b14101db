"""Metrics of scores: of images by scikit-learn, of pixels from histograms (SPEC section 4).

Letters: n scores or bins.
"""

import torch
from torch import Tensor

from dataset.check import check_labels
from errors import UserError
from mvfa.histograms import NOT_FINITE, Histogram

OPERATING_POINT = 95  # percent of specificity or sensitivity at which the other is reported
PRO_LIMIT = 0.3  # false positive rate up to which region overlap is integrated


def image_auroc(scores: Tensor, labels: Tensor) -> float:
    """Return the AUROC of one score an image: scores [n], labels [n] in {0, 1}.

    Raises UserError if a label is missing or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score  # slow to import, and needed once a test

    check_scores(scores, labels)
    return float(roc_auc_score(labels.cpu().numpy(), scores.cpu().numpy()))


def check_scores(scores: Tensor, labels: Tensor) -> None:
    """Raise UserError if a label is missing or a score is not finite."""
    abnormal = int(labels.sum())
    check_labels(abnormal, len(labels) - abnormal, "images")
    if not torch.isfinite(scores).all():
        raise UserError(NOT_FINITE)


def auroc(histogram: Histogram) -> tuple[float, float]:
    """Return the area under the ROC curve, and the most by which it can be off.

    Every pair of a positive and a negative in one bin counts half, so no order inside the bins
    could change the area by more than half of these pairs.
    """
    positives = histogram.positives
    negatives = histogram.negatives
    pairs = int(positives.sum()) * int(negatives.sum())
    below = negatives.cumsum(0) - negatives  # negatives below each bin
    won = float((positives.double() * below).sum())
    tied = float((positives.double() * negatives).sum()) / 2
    return (won + tied) / pairs, 0.0 if histogram.exact else tied / pairs


def rates(histogram: Histogram) -> tuple[Tensor, Tensor]:
    """Return true and false positives, float64 [n] each, at falling thresholds.

    A score at the threshold is positive.
    """
    true = histogram.positives.flip(0).cumsum(0).double()
    return true, histogram.negatives.flip(0).cumsum(0).double()


def average_precision(histogram: Histogram) -> float:
    """Return the sum over thresholds of (recall gained) * precision, as scikit-learn does."""
    true, false = rates(histogram)
    gained = histogram.positives.flip(0).double() / true[-1]
    return float((gained * (true / (true + false).clamp_min(1))).sum())


def sensitivity_at(histogram: Histogram, specificity: int = OPERATING_POINT) -> tuple[int, int]:
    """Return how many positives are found at a specificity in percent or above, and how many exist.

    The threshold is the lowest that has the specificity; nothing is interpolated.
    """
    true, false = (counts.long() for counts in rates(histogram))
    allowed = 100 * (false[-1] - false) >= specificity * false[-1]
    return int(true[allowed].max()) if allowed.any() else 0, int(true[-1])


def specificity_at(histogram: Histogram, sensitivity: int = OPERATING_POINT) -> tuple[int, int]:
    """Return how many negatives are left out at a sensitivity in percent or above, of how many.

    The threshold is the highest that has the sensitivity; nothing is interpolated.
    """
    true, false = (counts.long() for counts in rates(histogram))
    enough = 100 * true >= sensitivity * true[-1]
    return int(false[-1] - false[enough].min()), int(false[-1])


def f1(histogram: Histogram) -> Tensor:
    """Return F1, which is Dice over all pixels, at falling thresholds: float64 [n]."""
    true, false = rates(histogram)
    return 2 * true / (true + false + true[-1])


def best_f1(histogram: Histogram) -> tuple[float, float]:
    """Return the highest F1 and the highest threshold that gives it."""
    values = f1(histogram)
    best = int((values == values.max()).nonzero()[0])
    return float(values[best]), float(histogram.thresholds.flip(0)[best])


def f1_at(histogram: Histogram, threshold: float) -> float:
    """Return F1 where scores at or above `threshold` are positive; 0 where none is.

    With bins, those of whole bins.
    """
    chosen = histogram.thresholds >= threshold
    true = int(histogram.positives[chosen].sum())
    false = int(histogram.negatives[chosen].sum())
    return 2 * true / (true + false + int(histogram.positives.sum()))


def aupro(histogram: Histogram, limit: float = PRO_LIMIT) -> float:
    """Return the area under per-region overlap over false positive rate, up to `limit`, over it.

    Per-region overlap is the share of a region's pixels at or above the threshold, averaged over
    regions (Bergmann et al., 2020); linear between thresholds. Raises ValueError for a histogram
    without region weights.
    """
    if histogram.region_weights is None:
        raise ValueError("histogram without region weights")
    overlap = histogram.region_weights.flip(0).cumsum(0)
    false = histogram.negatives.flip(0).cumsum(0).double()
    zero = torch.zeros(1, dtype=torch.float64, device=overlap.device)
    x = torch.cat([zero, false / false[-1]])
    y = torch.cat([zero, overlap / overlap[-1]])
    inside = int((x <= limit).sum())  # points up to the limit, the origin included
    area = float(torch.trapezoid(y[:inside], x[:inside]))
    if inside < len(x):
        x0, x1 = x[inside - 1 : inside + 1].tolist()
        y0, y1 = y[inside - 1 : inside + 1].tolist()
        at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (limit - x0) * (y0 + at_limit) / 2
    return area / limit
