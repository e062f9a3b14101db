"""AUROC within strata against scikit-learn, one stratum at a time."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mvfa.strata import Within, case_numbers, within


def test_the_mean_over_strata_with_both_labels():
    g = np.random.default_rng(0)
    strata = ["a"] * 30 + ["b"] * 10 + ["c"] * 5 + [None] * 4
    labels = g.random(49) < 0.5
    labels[40:45] = True  # all of c
    scores = np.round(g.normal(size=49) + labels, 1)
    parts = [roc_auc_score(labels[rows], scores[rows]) for rows in (slice(30), slice(30, 40))]
    expected = Within(pytest.approx(np.mean(parts)), used=2, left_out=1, images=40)
    assert within(scores, labels, strata) == expected


def test_a_score_that_knows_the_stratum_only_has_a_half():
    strata = [1, 2, 3] * 20
    labels = np.arange(60) % 7 < np.array(strata) * 2
    assert roc_auc_score(labels, strata) > 0.7
    assert within(strata, labels, strata).auroc == 0.5
    # and what is added within strata is seen, whatever the strata are worth
    assert within(np.array(strata) * -9 + labels, labels, strata).auroc == 1.0


def test_no_stratum_with_both_labels():
    assert within([1, 2, 3], [True, True, False], ["a", "a", "b"]) == Within(None, 0, 2, 0)
    assert within([1, 2], [True, False], [None, None]).as_dict() == {
        "auroc": None,
        "used": 0,
        "left_out": 0,
        "images": 0,
    }


def test_case_numbers():
    assert case_numbers(["b", None, "a", "b", None]).tolist() == [0, 1, 2, 0, 3]
