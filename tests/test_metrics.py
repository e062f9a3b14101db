"""Metrics against scikit-learn, a count of pairs, and plain implementations."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import (
    auc,
    average_precision_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from errors import UserError
from mvfa.histograms import Histogram, exact_histogram
from mvfa.metrics import aupro, auroc, average_precision, best_f1, f1_at, image_auroc
from tests.scored_sets import pixel_histogram, pixel_scores, scored_sets


def auroc_of_pairs(scores, labels) -> float:
    """Compute the AUROC by counting every pair of a positive and a negative."""
    won = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[labels].tolist()
        for n in scores[~labels].tolist()
    ]
    return sum(won) / len(won)


@pytest.mark.parametrize("name", scored_sets())
def test_auroc_equals_sklearn_and_pairs(name):
    scores, labels = scored_sets()[name]
    expected = roc_auc_score(labels.numpy(), scores.numpy())
    assert auroc_of_pairs(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert auroc(exact_histogram(scores, labels)) == (pytest.approx(expected, abs=1e-12), 0)
    assert image_auroc(scores.float(), labels.float()) == pytest.approx(expected, abs=1e-12)


def test_one_label_or_nan_is_refused():
    with pytest.raises(UserError, match="needs both labels: got 0 abnormal and 3 normal"):
        image_auroc(torch.rand(3), torch.zeros(3))
    with pytest.raises(UserError, match="not finite"):
        image_auroc(torch.tensor([0.1, math.nan]), torch.tensor([0, 1]))


def test_auroc_needs_no_scores():
    histogram = Histogram(
        torch.zeros(3), torch.tensor([0, 2, 1]), torch.tensor([3, 1, 0]), exact=False
    )
    area, tied = auroc(histogram)
    assert area == pytest.approx((2 * 3 + 2 * 1 * 0.5 + 1 * 4) / 12)
    assert tied == pytest.approx(1 / 12)


def plain_aupro(scores: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Compute the area under per-region overlap, threshold by threshold, region by region."""
    regions = []
    for score, mask in zip(scores, masks, strict=True):
        labelled, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [score[labelled == i] for i in range(1, number + 1)]
    normal = scores[~masks]
    x = [0.0]
    y = [0.0]
    for threshold in np.unique(scores)[::-1]:
        x.append(float((normal >= threshold).mean()))
        y.append(float(np.mean([(region >= threshold).mean() for region in regions])))
    inside = [i for i, value in enumerate(x) if value <= limit]
    x_cut = [x[i] for i in inside]
    y_cut = [y[i] for i in inside]
    if len(inside) < len(x):
        after = len(inside)
        x_cut.append(limit)
        y_cut.append(float(np.interp(limit, [x[after - 1], x[after]], [y[after - 1], y[after]])))
    return float(auc(x_cut, y_cut)) / limit


@pytest.mark.parametrize("kind", ["random", "tied"])
@pytest.mark.parametrize("limit", [10**6, 0], ids=["exact", "binned"])
def test_pixel_metrics(kind, limit):
    scores, masks = pixel_scores(kind)
    histogram = pixel_histogram(scores, masks, limit)
    s = scores.flatten().numpy()
    m = masks.flatten().numpy()
    assert histogram.exact == (limit > 0)
    close = pytest.approx if limit else lambda value: pytest.approx(value, abs=1e-4)
    assert auroc(histogram)[0] == close(roc_auc_score(m, s))
    assert average_precision(histogram) == close(average_precision_score(m, s))
    precision, recall, thresholds = precision_recall_curve(m, s)
    f1 = (2 * precision * recall / (precision + recall).clip(1e-12))[:-1]
    value, threshold = best_f1(histogram)
    assert value == close(f1.max())
    assert threshold == pytest.approx(float(thresholds[f1 == f1.max()].max()), abs=1e-3)
    assert f1_at(histogram, 0.6) == close(f1_score(m, s >= 0.6))
    for share in (0.05, 0.3, 1.0):
        assert aupro(histogram, share) == close(plain_aupro(scores.numpy(), masks.numpy(), share))


def test_aupro_counts_regions_and_not_pixels():
    """Of a large region that is marked and a small one that is missed, half is marked."""
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :8, :8] = True
    masks[0, 15, 15] = True
    scores = torch.zeros(1, 16, 16)
    scores[0, :8, :8] = 1.0
    histogram = pixel_histogram(scores, masks, 10**6)
    assert float(histogram.region_weights.sum()) == pytest.approx(2)
    # half from the start; the missed region comes in with all normal pixels, at a false positive
    # rate of 1
    assert aupro(histogram, 0.3) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_aupro_needs_region_weights():
    with pytest.raises(ValueError, match="histogram without region weights"):
        aupro(exact_histogram(torch.rand(3), torch.tensor([True, False, True])))
