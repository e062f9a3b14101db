"""Scores to AUROC and the rest. Of images by scikit-learn, of pixels from counts by rising score (SPEC section 4)."""

import torch
from torch import Tensor

from dataset.check import check_labels
from errors import UserError
from mvfa.histograms import NOT_FINITE, Histogram

PRO_LIMIT = 0.3  # false positive rate up to which region overlap is integrated


def image_auroc(scores: Tensor, labels: Tensor) -> float:
    """AUROC of one score an image: scores [n], labels [n] in {0, 1}. UserError if a label or a number is missing."""
    from sklearn.metrics import roc_auc_score  # slow to import, and needed once a test

    check(scores, labels)
    return float(roc_auc_score(labels.cpu().numpy(), scores.cpu().numpy()))


def check(scores: Tensor, labels: Tensor) -> None:
    """Raise UserError if a label is missing or a score is not finite."""
    abnormal = int(labels.sum())
    check_labels(abnormal, len(labels) - abnormal, "images")
    if not torch.isfinite(scores).all():
        raise UserError(NOT_FINITE)


def auroc(counts: Histogram) -> tuple[float, float]:
    """Area under the ROC curve, ties counted half, and the most by which it can differ from that of the scores.

    Every pair of a positive and a negative in one place counts half, so no order inside the places could change the
    area by more than half of those pairs.
    """
    positives, negatives = counts.positives, counts.negatives
    pairs = int(positives.sum()) * int(negatives.sum())
    below = negatives.cumsum(0) - negatives  # negatives below each place
    won = float((positives.double() * below).sum())
    tied = float((positives.double() * negatives).sum()) / 2
    return (won + tied) / pairs, 0.0 if counts.exact else tied / pairs


def rates(counts: Histogram) -> tuple[Tensor, Tensor]:
    """True and false positives, float64 [n] each, at falling thresholds: a score at the threshold is positive."""
    return counts.positives.flip(0).cumsum(0).double(), counts.negatives.flip(0).cumsum(0).double()


def average_precision(counts: Histogram) -> float:
    """Sum over thresholds of (recall gained) * precision, as scikit-learn has it."""
    true, false = rates(counts)
    gained = counts.positives.flip(0).double() / true[-1]
    return float((gained * (true / (true + false).clamp_min(1))).sum())


def f1(counts: Histogram) -> Tensor:
    """F1, which is Dice over all pixels, at falling thresholds: float [n]."""
    true, false = rates(counts)
    return 2 * true / (true + false + true[-1])


def best_f1(counts: Histogram) -> tuple[float, float]:
    """The highest F1 and the highest threshold that gives it."""
    values = f1(counts)
    best = int((values == values.max()).nonzero()[0])
    return float(values[best]), float(counts.thresholds.flip(0)[best])


def f1_at(counts: Histogram, threshold: float) -> float:
    """F1 where scores from `threshold` on are positive (in bins: those of whole bins); 0 where none is."""
    chosen = counts.thresholds >= threshold
    true, false = int(counts.positives[chosen].sum()), int(counts.negatives[chosen].sum())
    return 2 * true / (true + false + int(counts.positives.sum()))


def aupro(counts: Histogram, limit: float = PRO_LIMIT) -> float:
    """Area under the curve of per-region overlap over the false positive rate, up to `limit`, divided by it.

    Per-region overlap is the share of a region's pixels at or above the threshold, averaged over regions (Bergmann et
    al., 2020). Linear between thresholds. Needs counts with shares.
    """
    if counts.shares is None:
        raise ValueError("counts without the shares of regions")
    overlap = counts.shares.flip(0).cumsum(0)
    false = counts.negatives.flip(0).cumsum(0).double()
    zero = torch.zeros(1, dtype=torch.float64, device=overlap.device)
    x, y = torch.cat([zero, false / false[-1]]), torch.cat([zero, overlap / overlap[-1]])
    inside = int((x <= limit).sum())  # points up to the limit, the origin included
    area = float(torch.trapezoid(y[:inside], x[:inside]))
    if inside < len(x):
        x0, x1, y0, y1 = (float(v) for v in (x[inside - 1], x[inside], y[inside - 1], y[inside]))
        at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (limit - x0) * (y0 + at_limit) / 2
    return area / limit
