"""Details of a test set against scikit-learn: image metrics, curves, regions, cases."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import (
    auc,
    average_precision_score,
    f1_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from mvfa import details
from mvfa.details import case_details, image_details, region_weights, split_curves
from mvfa.histograms import exact_histogram
from mvfa.intervals import bootstrap_cases
from mvfa.metrics import sensitivity_at, specificity_at
from mvfa.strata import within
from tests.scored_sets import scored_cases, scored_sets


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


@pytest.mark.parametrize("name", scored_sets())
def test_operating_points_are_points_of_the_curve(name):
    scores, labels = scored_sets()[name]
    measured = image_details(scores.float(), labels, None)
    fpr, tpr, _ = roc_curve(labels, scores.float(), drop_intermediate=False)
    negatives = int((~labels).sum())
    positives = int(labels.sum())
    expected = {
        "sensitivity_at_95_specificity": (max(tpr[fpr <= 0.05 + 1e-9]), positives),
        "specificity_at_95_sensitivity": (1 - min(fpr[tpr >= 0.95 - 1e-9]), negatives),
    }
    for key, (share, count) in expected.items():
        assert measured[key] == pytest.approx(share, abs=1e-12)
        interval = binomtest(round(share * count), count).proportion_ci(0.95, method="exact")
        assert measured[f"{key}_interval"] == pytest.approx([interval.low, interval.high])


def test_operating_points_at_whole_shares():
    """One of 20 false positives is allowed, 19 of 20 found ones are enough."""
    labels = torch.arange(40) >= 20
    scores = torch.arange(40) / 40
    scores[19] = 0.95
    histogram = exact_histogram(scores, labels)
    assert sensitivity_at(histogram) == (20, 20)
    scores[18] = 0.96
    assert sensitivity_at(exact_histogram(scores, labels)) == (1, 20)
    scores = torch.arange(40) / 40
    scores[20] = -1.0
    assert specificity_at(exact_histogram(scores, labels)) == (20, 20)
    scores[21] = -0.5
    assert specificity_at(exact_histogram(scores, labels)) == (0, 20)


def test_details_of_cases_and_slices():
    scores, labels, cases = scored_cases("tied")
    slices = [i % 10 if i else None for i in range(60)]
    found = case_details(scores, labels, cases, slices, 50, 3)
    assert found["interval_by_case"] == bootstrap_cases(scores, labels, cases, 50, 3)
    one = [i for i, case in enumerate(cases) if case == "f"]
    area = pytest.approx(roc_auc_score(labels[one], scores[one]))
    assert found["within_case"] == {"auroc": area, "used": 1, "left_out": 5, "images": 20}
    assert found["within_slice"] == within(scores, labels, slices).as_dict()
    assert found["within_slice"]["used"] > 3
    unknown = dict.fromkeys(found)
    assert case_details(scores, labels, [], [], 50, 3) == unknown
    assert case_details(scores, labels, [None] * 60, [None] * 60, 50, 3) == unknown
    assert case_details(scores, labels, cases, slices, 0, 3) == found | {"interval_by_case": None}


def test_curves_and_metrics_are_split():
    values = {"auroc": 0.5, "interval": None, "roc": [[0, 0]], "pr": [[1, 1]]}
    measured = {"image": {"text": values, "memory": None, "both": values}, "pixel": None}
    metrics, curves = split_curves(measured)
    plain = {"auroc": 0.5, "interval": None}
    assert metrics == {"image": {"text": plain, "memory": None, "both": plain}, "pixel": None}
    points = {"roc": [[0, 0]], "pr": [[1, 1]]}
    assert curves == {"image": {"text": points, "memory": None, "both": points}, "pixel": None}
