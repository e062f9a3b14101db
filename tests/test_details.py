"""Details of a test set against scikit-learn: image metrics, curves, regions, intervals."""

import numpy as np
import pytest
import torch
from sklearn.metrics import auc, average_precision_score, f1_score, recall_score, roc_auc_score

from mvfa import details
from mvfa.details import bootstrap, image_details, region_weights, split_curves
from mvfa.histograms import exact_histogram


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = torch.eye(4, dtype=torch.bool)[None]
    assert region_weights(mask).tolist() == [0.25] * 4
    assert region_weights(torch.zeros(2, 4, 4, dtype=torch.bool)).tolist() == []


def test_region_weights_are_in_the_order_of_the_pixels():
    """Two regions that alternate row by row, in two images."""
    masks = torch.zeros(2, 3, 5, dtype=torch.bool)
    masks[0, :, 0] = True
    masks[0, 1, 3:] = True
    masks[1, 2, 2] = True
    third = 1 / 3
    assert region_weights(masks).tolist() == [third, third, 0.5, 0.5, third, 1.0]


@pytest.mark.parametrize("kind", ["random", "tied"])
@pytest.mark.parametrize("threshold", [None, 0.4])
def test_image_metrics(kind, threshold):
    g = torch.Generator().manual_seed(1)
    labels = torch.rand(200, generator=g) < 0.4
    scores = (0.5 * torch.rand(200, generator=g) + 0.3 * labels).clamp(0, 1)
    scores = (scores * 8).round() / 8 if kind == "tied" else scores
    measured = image_details(scores, labels, threshold)
    s = scores.numpy()
    y = labels.numpy()
    assert measured["auroc"] == roc_auc_score(y, s)
    assert measured["average_precision"] == average_precision_score(y, s)
    assert measured["best_f1"] == pytest.approx(max(f1_score(y, s >= t) for t in np.unique(s)))
    if threshold is None:
        best = f1_score(y, s >= measured["threshold"])
        assert best == pytest.approx(measured["best_f1"])
    else:
        assert measured["threshold"] == threshold
    chosen = s >= measured["threshold"]
    assert measured["sensitivity"] == pytest.approx(recall_score(y, chosen))
    assert measured["specificity"] == pytest.approx(recall_score(~y, ~chosen))
    fpr, tpr = zip(*measured["roc"], strict=True)
    assert auc(fpr, tpr) == pytest.approx(measured["auroc"], abs=1e-3)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_curves_are_short_and_end_to_end():
    g = torch.Generator().manual_seed(2)
    labels = torch.rand(50_000, generator=g) < 0.1
    scores = (torch.rand(50_000, generator=g) * 0.7 + 0.3 * labels).clamp(0, 1)
    curves = details.curves(exact_histogram(scores, labels))
    assert len(curves["roc"]) <= details.POINTS + 1
    area = auc(*zip(*curves["roc"], strict=True))
    assert area == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)
    recall, precision = zip(*curves["pr"], strict=True)
    assert recall[-1] == 1
    assert precision[-1] == pytest.approx(float(labels.double().mean()), abs=1e-4)


def test_bootstrap_intervals():
    g = torch.Generator().manual_seed(3)
    widths = []
    for n in (60, 600):
        labels = torch.arange(n) % 3 == 0
        scores = (torch.rand(n, generator=g) * 0.8 + 0.2 * labels).clamp(0, 1)
        intervals = bootstrap(scores, labels, 300, seed=5)
        assert intervals == bootstrap(scores, labels, 300, seed=5)
        for name, value in (("auroc", roc_auc_score(labels, scores)), ("average_precision", None)):
            low, high = intervals[name]
            assert 0 <= low < high <= 1
            assert value is None or low < value < high
        widths.append(intervals["auroc"][1] - intervals["auroc"][0])
    assert widths[1] < widths[0] / 2


def test_curves_and_metrics_are_split():
    values = {"auroc": 0.5, "interval": None, "roc": [[0, 0]], "pr": [[1, 1]]}
    measured = {"image": {"text": values, "memory": None, "both": values}, "pixel": None}
    metrics, curves = split_curves(measured)
    plain = {"auroc": 0.5, "interval": None}
    assert metrics == {"image": {"text": plain, "memory": None, "both": plain}, "pixel": None}
    points = {"roc": [[0, 0]], "pr": [[1, 1]]}
    assert curves == {"image": {"text": points, "memory": None, "both": points}, "pixel": None}
