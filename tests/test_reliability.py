"""Reliability against plain loops, scikit-learn, and scores whose law is known."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from mvfa.calibration import p_value
from mvfa.reliability import calibration_error, false_positives, p_values, reliability


def drawn(n: int, m: int, seed: int):
    """Return sorted normal scores [n] and abnormal scores [m], one higher on average."""
    g = np.random.default_rng(seed)
    normal = np.sort(g.normal(size=n).astype(np.float32))
    return normal, np.sort(g.normal(1, size=m).astype(np.float32))


def images_of_both(n: int, m: int, seed: int):
    """Return scores and labels of a test set of n normal and m abnormal images."""
    normal, abnormal = drawn(n, m, seed)
    scores = np.concatenate([normal, abnormal]).astype(np.float64)
    return scores, np.arange(n + m) >= n


@pytest.mark.parametrize("n", [3, 4, 19, 39])
def test_p_values_and_their_shares(n):
    normal, _ = drawn(n, 5, seed=n)
    scores = np.concatenate([np.linspace(-3, 3, 41), normal.astype(np.float64)])
    expected = [p_value(score, normal) for score in scores]
    assert p_values(normal, scores).tolist() == expected
    for rate in ("0.05", "0.1", "0.2"):
        found = false_positives(normal, scores, rate)
        flagged = sum(p <= float(rate) + 1e-12 for p in expected)
        assert (found["rate"], found["images"]) == (float(rate), len(scores))
        if float(rate) * (n + 1) < 1 - 1e-9:  # nothing below 1 / (n + 1) can be promised
            assert (found["share"], found["low"], found["high"]) == (None, None, None)
            continue
        assert found["share"] == flagged / len(scores)
        interval = binomtest(flagged, len(scores)).proportion_ci(0.95, method="exact")
        assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_normal_images_of_one_kind_are_flagged_as_often_as_said():
    """Averaged over calibration sets; images of another kind are flagged far more often."""
    shares = {0: [], 1: []}
    for seed in range(200):
        normal, abnormal = drawn(39, 0, seed)
        scores, labels = images_of_both(100, 10, seed + 1_000)
        for shift, own in shares.items():
            found = reliability(normal, abnormal, "image", scores + shift, labels)
            own.append([rate["share"] for rate in found["false_positive_rates"]])
    assert np.mean(shares[0], axis=0) == pytest.approx([0.05, 0.1, 0.2], abs=0.015)
    assert np.mean(shares[1], axis=0)[0] > 0.2


def test_probabilities():
    normal, abnormal = drawn(60, 40, seed=1)
    scores, labels = images_of_both(150, 100, seed=2)
    found = reliability(normal, abnormal, "case", scores, labels)
    assert (found["by"], found["normals"], found["abnormals"]) == ("case", 60, 40)
    known = np.concatenate([normal, abnormal]).astype(np.float64)
    scaled = (known - known.mean()) / known.std()
    model = LogisticRegression().fit(scaled[:, None], [0] * 60 + [1] * 40)
    asked = (scores - known.mean()) / known.std()
    probabilities = model.predict_proba(asked[:, None])[:, 1]
    errors = found["probability"]
    assert errors["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    assert errors["abnormal_share"] == 0.4
    order = np.argsort(probabilities)
    gaps = [
        abs(probabilities[rows].mean() - labels[rows].mean()) * len(rows) / 250
        for rows in np.array_split(order, 10)
    ]
    assert errors["calibration_error"] == pytest.approx(sum(gaps))


@pytest.mark.parametrize(("n", "m"), [(29, 40), (40, 29), (40, 0)])
def test_no_probability_of_fewer_than_30_of_a_label(n, m):
    found = reliability(*drawn(n, m, 3), "image", *images_of_both(20, 20, 4))
    assert found["probability"] is None


def test_equal_probabilities_are_in_one_bin():
    """Whatever the order of the images, which is by label in a test set."""
    labels = np.array([False] * 50 + [True] * 50)
    assert calibration_error(np.full(100, 0.5), labels) == pytest.approx(0)
    assert calibration_error(np.full(100, 0.8), labels) == pytest.approx(0.3)
    assert calibration_error(np.where(labels, 0.9, 0.2), labels) == pytest.approx(0.15)
