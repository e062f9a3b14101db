"""Tests of two scores against the definition, exact enumeration, and scikit-learn."""

import math
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import kstest, rankdata
from sklearn.metrics import roc_auc_score

from mvfa.paired import Paired, delong, permute_cases


def scores_of_two(kind: str, n: int = 80, seed: int = 0):
    """Return two correlated scores of the same images, and labels."""
    g = np.random.default_rng(seed)
    labels = g.random(n) < 0.4
    common = g.normal(size=n) + 0.8 * labels
    first = common + g.normal(size=n) + 0.6 * labels
    second = common + g.normal(size=n)
    if kind == "tied":
        first = np.round(first)
        second = np.round(2 * second)
    return first, second, labels


def by_definition(first, second, labels) -> tuple[float, float]:
    """Compute the difference of two AUROCs and its standard error, pair by pair (DeLong, 1988)."""
    abnormal = [i for i, label in enumerate(labels) if label]
    normal = [i for i, label in enumerate(labels) if not label]

    def kernel(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    def components(s):
        by_abnormal = [sum(kernel(s[i], s[j]) for j in normal) / len(normal) for i in abnormal]
        by_normal = [sum(kernel(s[i], s[j]) for i in abnormal) / len(abnormal) for j in normal]
        return by_abnormal, by_normal

    one = components(first)
    two = components(second)
    variance = 0.0
    for a, b in zip(one, two, strict=True):  # covariance matrix of the two AUROCs, [2, 2]
        matrix = np.cov(np.array([a, b])) / len(a)
        variance += matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1]
    return np.mean(one[0]) - np.mean(two[0]), math.sqrt(variance)


@pytest.mark.parametrize("kind", ["smooth", "tied"])
def test_delong_equals_its_definition(kind):
    first, second, labels = scores_of_two(kind)
    difference, error = by_definition(first, second, labels)
    found = delong(first, second, labels)
    assert found.first == pytest.approx(roc_auc_score(labels, first), abs=1e-12)
    assert found.second == pytest.approx(roc_auc_score(labels, second), abs=1e-12)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    normal = NormalDist()
    margin = normal.inv_cdf(0.975) * error
    assert (found.low, found.high) == pytest.approx((difference - margin, difference + margin))
    assert found.p == pytest.approx(2 * (1 - normal.cdf(abs(difference) / error)))


def test_delong_does_not_see_scales():
    first, second, labels = scores_of_two("smooth")
    assert delong(np.exp(first), 3 * second + 7, labels) == delong(first, second, labels)
    turned = delong(second, first, labels)
    assert turned.p == delong(first, second, labels).p
    assert turned.difference == -delong(first, second, labels).difference


def test_delong_where_there_is_nothing_to_estimate():
    labels = np.array([0, 0, 0, 1, 1, 1])
    scores = np.array([1, 2, 5, 3, 4, 6])
    assert delong(scores, 2 * scores, labels) == Paired(7 / 9, 7 / 9, 0.0, 0.0, 0.0, 1.0)
    assert delong(labels, -labels, labels) == Paired(1.0, 0.0, 1.0)  # variance 0
    assert delong(scores[:4], -scores[:4], labels[:4]).p is None  # one abnormal image
    # every component differs by 1/7, which is not the same float everywhere
    flat = np.zeros(14)
    better = np.r_[np.zeros(7), np.ones(7)]
    assert delong(better, flat, better).p is None


@pytest.mark.parametrize("kind", ["smooth", "tied"])
def test_permutation_is_exact_where_all_ways_are_tried(kind):
    first, second, labels = scores_of_two(kind, n=40)
    cases = [str(i % 7) for i in range(40)]
    ranks = [rankdata(first), rankdata(second)]

    def gap(swap) -> float:
        one = [ranks[swap[i % 7]][i] for i in range(40)]
        two = [ranks[1 - swap[i % 7]][i] for i in range(40)]
        return abs(roc_auc_score(labels, one) - roc_auc_score(labels, two))

    gaps = [gap(swap) for swap in product((0, 1), repeat=7)]
    expected = np.mean([value >= gaps[0] - 1e-12 for value in gaps])
    assert 0.02 < expected < 0.9
    assert permute_cases(first, second, labels, cases, 128, seed=0) == pytest.approx(expected)
    # one round less, and ways are drawn
    drawn = permute_cases(first, second, labels, cases, 127, seed=0)
    assert drawn != expected
    many = np.mean([permute_cases(first, second, labels, cases, 127, seed=s) for s in range(30)])
    assert many == pytest.approx(expected, abs=0.03)


def test_permutation_does_not_see_scales():
    first, second, labels = scores_of_two("smooth")
    cases = [str(i // 8) for i in range(80)]
    p = permute_cases(first, second, labels, cases, 200, seed=3)
    assert permute_cases(np.exp(first), 3 * second + 7, labels, cases, 200, seed=3) == p
    assert permute_cases(first, 2 * first, labels, cases, 200, seed=3) == 1.0
    assert permute_cases(first, second, labels, ["a"] * 80, 200, seed=3) == 1.0


def test_p_values_are_uniform_without_a_difference_and_delong_is_fooled_by_cases():
    """200 test sets of 12 patients whose images share a good deal of both scores."""
    g = np.random.default_rng(4)
    cases = [str(i // 10) for i in range(120)]
    by_case = []
    by_image = []
    for seed in range(200):
        labels = np.arange(120) % 10 < g.integers(0, 11, 12).repeat(10)
        scores = g.normal(size=(2, 12, 1)).repeat(10, axis=2).reshape(2, 120)
        scores = scores + 0.3 * g.normal(size=(2, 120)) + 0.7 * labels
        by_case.append(permute_cases(*scores, labels, cases, 300, seed=seed))
        by_image.append(delong(*scores, labels).p)
    assert kstest(by_case, "uniform").pvalue > 0.01
    assert np.mean(np.array(by_case) <= 0.05) < 0.1
    assert np.mean(np.array(by_image) <= 0.05) > 0.2
