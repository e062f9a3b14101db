"""Intervals against plain loops, SciPy, and the truth that they should hold."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.coverage import Population, coverage
from mvfa.intervals import binomial_interval, bootstrap_cases, bootstrap_images
from tests.scored_sets import scored_cases


def plain_bootstrap(scores, labels, draws) -> dict[str, list[float]]:
    """Compute 95 % intervals of scikit-learn's metrics over lists of rows."""
    s = scores.numpy()
    y = labels.numpy()
    areas = [roc_auc_score(y[rows], s[rows]) for rows in draws]
    precisions = [average_precision_score(y[rows], s[rows]) for rows in draws]
    return {
        name: [pytest.approx(np.quantile(values, q), abs=1e-12) for q in (0.025, 0.975)]
        for name, values in (("auroc", areas), ("average_precision", precisions))
    }


@pytest.mark.parametrize("kind", ["smooth", "tied"])
def test_bootstrap_by_image_equals_a_plain_loop(kind):
    scores, labels, _ = scored_cases(kind)
    generator = torch.Generator().manual_seed(5)
    normal = [i for i, label in enumerate(labels) if not label]
    abnormal = [i for i, label in enumerate(labels) if label]
    draws = []
    for _ in range(40):
        picked = []
        for group in (normal, abnormal):
            places = torch.randint(len(group), (len(group),), generator=generator)
            picked += [group[place] for place in places]
        draws.append(picked)
    assert bootstrap_images(scores, labels, 40, seed=5) == plain_bootstrap(scores, labels, draws)


def test_intervals_shrink_with_images():
    g = torch.Generator().manual_seed(3)
    widths = []
    for n in (60, 600):
        labels = torch.arange(n) % 3 == 0
        scores = (torch.rand(n, generator=g) * 0.8 + 0.2 * labels).clamp(0, 1)
        intervals = bootstrap_images(scores, labels, 300, seed=5)
        assert intervals == bootstrap_images(scores, labels, 300, seed=5)
        for name, value in (("auroc", roc_auc_score(labels, scores)), ("average_precision", None)):
            low, high = intervals[name]
            assert 0 <= low < high <= 1
            assert value is None or low < value < high
        widths.append(intervals["auroc"][1] - intervals["auroc"][0])
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize("kind", ["smooth", "tied"])
def test_bootstrap_by_case_equals_a_plain_loop(kind):
    scores, labels, cases = scored_cases(kind)
    names = sorted(set(cases), key=cases.index)
    generator = torch.Generator().manual_seed(7)
    draws = []
    for _ in range(40):
        drawn = torch.randint(len(names), (len(names),), generator=generator)
        rows = [i for case in drawn for i in range(len(cases)) if cases[i] == names[case]]
        if 0 < sum(bool(labels[i]) for i in rows) < len(rows):
            draws.append(rows)
    assert 20 < len(draws) < 40  # one case has all the abnormal images
    found = bootstrap_cases(scores, labels, cases, 40, seed=7)
    expected = plain_bootstrap(scores, labels, draws)
    assert found == expected | {"cases": len(names), "resamples": len(draws)}


def test_an_image_without_a_case_is_its_own():
    scores, labels, _ = scored_cases("smooth")
    found = bootstrap_cases(scores, labels, [None] * len(labels), 20, seed=1)
    assert found == bootstrap_cases(scores, labels, list(map(str, range(len(labels)))), 20, seed=1)
    assert found["cases"] == len(labels)


def test_one_case_has_no_interval():
    scores, labels, _ = scored_cases("smooth")
    assert bootstrap_cases(scores, labels, ["a"] * len(labels), 20, seed=1) is None


def test_intervals_by_case_hold_the_truth_where_images_are_alike():
    """60 test sets of 10 patients; those by image are far too narrow. docs/trust.md has more."""
    alike = Population(cases=10, images=20, correlation=0.5, mixed=False)
    by_image, by_case = coverage(alike, trials=60, resamples=100, seed=1)
    assert by_image < 0.65
    assert by_case > 0.75
    apart = Population(cases=30, images=20, correlation=0.0)
    by_image, by_case = coverage(apart, trials=60, resamples=100, seed=1)
    assert min(by_image, by_case) > 0.85


@pytest.mark.parametrize(("hits", "n"), [(0, 4), (4, 4), (1, 20), (13, 17), (950, 1000)])
@pytest.mark.parametrize("level", [0.95, 0.9])
def test_binomial_interval_equals_scipy(hits, n, level):
    expected = binomtest(hits, n).proportion_ci(level, method="exact")
    assert binomial_interval(hits, n, level) == pytest.approx((expected.low, expected.high))
