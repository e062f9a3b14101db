"""p-values, discoveries and probabilities against brute force and other implementations."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from errors import UserError
from mvfa.calibration import (
    Calibration,
    benjamini_hochberg,
    default_rule,
    describe,
    display,
    names_hash,
    p_value,
    probability,
    rank,
    rank_words,
    scores_by_case,
    scores_by_label,
    shift_warning,
    threshold,
)
from tests.script_runs import ROOT

EXACT = 1e-12


def calibration(normal, abnormal=(), **changes) -> Calibration:
    fields = {
        "source": "valid-minus-shots",
        "names_sha256": names_hash(["a.png"]),
        "text": (0.0, 2.0),
        "memory": (0.5, 1.0),
        "normal_scores": np.asarray(normal, np.float32),
        "abnormal_scores": np.asarray(abnormal, np.float32),
        "by": "image",
        "selection_used_it": False,
    }
    return Calibration(**(fields | changes))


def overlapping(n: int, m: int, seed: int = 0) -> Calibration:
    rng = np.random.default_rng(seed)
    return calibration(rng.normal(0, 0.1, n), rng.normal(0.15, 0.1, m))


# ---------------------------------------------------------------- the record


def test_a_calibration_survives_its_file():
    before = overlapping(5, 3)
    plain = json.loads(json.dumps(before.as_dict()))
    assert plain["lo_hi"] == {"text": [0.0, 2.0], "memory": [0.5, 1.0]}
    assert not [name for name in plain if name.endswith("_scores")]
    after = Calibration.from_dict(plain, before.normal_scores, before.abnormal_scores)
    for name in vars(before):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    alone = calibration([1.0], memory=None).as_dict()
    assert Calibration.from_dict(json.loads(json.dumps(alone)), [1.0], []).memory is None


def test_scores_are_sorted_float32():
    found = calibration([3, 1, 2], [5, 4])
    assert found.normal_scores.tolist() == [1, 2, 3]
    assert found.abnormal_scores.tolist() == [4, 5]
    assert found.normal_scores.dtype == np.float32


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "elsewhere"},
        {"by": "patient"},
        {"selection_used_it": "no"},
        {"lo_hi": {"text": [1.0, 0.0], "memory": None}},
        {"lo_hi": {"text": [0.0, math.nan], "memory": None}},
        {"lo_hi": {"text": [0.0], "memory": None}},
        {"lo_hi": {"text": None, "memory": None}},
        {"lo_hi": {"text": [0.0, 1.0]}},
        {"lo_hi": 3},
    ],
)
def test_a_description_that_cannot_be_is_refused(changes):
    plain = calibration([1.0]).as_dict() | changes
    with pytest.raises((KeyError, TypeError, ValueError)):
        Calibration.from_dict(plain, [1.0], [])


@pytest.mark.parametrize("scores", [[[1.0]], [math.nan], [math.inf]])
def test_scores_that_cannot_be_are_refused(scores):
    with pytest.raises(ValueError, match="normal_scores"):
        calibration(scores)


def test_the_hash_is_of_the_names_in_any_order():
    assert names_hash(["b.png", "a.png"]) == names_hash(["a.png", "b.png"])
    assert names_hash(["ab"]) != names_hash(["a", "b"])
    assert len(names_hash([])) == 64


# ---------------------------------------------------------------- cases

SLICES = ["p1_3.png", "p1_4.png", "p2_7.png", "p3_1.png", "p3_2.png"]


def test_a_case_has_the_maximum_of_its_slices():
    assert scores_by_case(SLICES, [0.1, 0.5, 0.3, 0.9, 0.2]) == ([0.5, 0.3, 0.9], "case")
    order = [4, 0, 3, 2, 1]
    shuffled = scores_by_case(
        [SLICES[i] for i in order], [[0.1, 0.5, 0.3, 0.9, 0.2][i] for i in order]
    )
    assert sorted(shuffled[0]) == [0.3, 0.5, 0.9]


def test_names_that_show_no_cases_are_images():
    names = ["000.png", "001.png", "002.png"]
    assert scores_by_case(names, [0.3, 0.1, 0.2]) == ([0.3, 0.1, 0.2], "image")
    assert scores_by_case(["s_1.png", "s_2.png"], [0.1, 0.2])[1] == "image"


def test_a_pattern_says_what_a_case_is():
    names = ["x-A.png", "x-B.png", "y-A.png"]
    assert scores_by_case(names, [1.0, 3.0, 2.0], r"(?P<case>.)-.") == ([3.0, 2.0], "case")


def test_the_normal_images_decide_what_a_score_is_of():
    """A maximum over slices is not compared with single slices."""
    names = ["a_1", "b_1", "c_1", "c_2", "d_1"]
    normal, abnormal, unit = scores_by_label(names, [0, 0, 1, 1, 1], [1, 2, 3, 4, 5])
    assert (normal.tolist(), abnormal.tolist(), unit) == ([1, 2], [3, 4, 5], "image")
    names = ["c_1", "c_2", "d_1", "a_1", "b_1"]
    normal, abnormal, unit = scores_by_label(names, [0, 0, 0, 1, 1], [3, 4, 5, 1, 2])
    assert (normal.tolist(), abnormal.tolist(), unit) == ([4, 5], [1, 2], "case")


# ---------------------------------------------------------------- one image


def test_p_values_and_ranks_are_counts():
    rng = np.random.default_rng(0)
    normal = np.sort(rng.normal(size=30).round(1).astype(np.float32))  # with ties
    for score in [*normal.tolist(), -9.0, 9.0, 0.05]:
        at_least = sum(float(other) >= score for other in normal)
        assert p_value(score, normal) == (1 + at_least) / 31
        assert rank(score, normal) == (30 - at_least, 30)


def test_a_p_value_is_never_zero_and_of_no_number_is_one():
    normal = np.asarray([1, 2, 3, 4], np.float32)
    assert p_value(5, normal) == 1 / 5
    assert p_value(0, normal) == 1
    assert p_value(math.nan, normal) == 1
    assert p_value(5, normal[:0]) == 1


def test_scores_are_compared_as_they_are():
    """Not rounded to float32."""
    normal = np.asarray([0.1], np.float32)  # 0.10000000149
    assert p_value(0.1, normal) == 1
    assert p_value(0.10000000149011612, normal) == 1
    assert p_value(0.1000000015, normal) == 0.5


@pytest.mark.parametrize("share", ["0.05", "0.1", "0.29", "0.5"])
def test_what_a_rate_flags_has_a_p_value_up_to_it(share):
    rng = np.random.default_rng(5)
    for n in (19, 39, 99):
        known = calibration(rng.normal(size=n).round(1))
        found = threshold(f"fpr={share}", known).value
        for score in np.linspace(-3, 3, 121).round(2).tolist():
            small = 100 * round(p_value(score, known.normal_scores) * (n + 1))
            assert (score > found) == (small <= round(100 * float(share)) * (n + 1))


def test_p_values_of_normal_images_are_valid():
    """Over calibration sets and test images P(p <= a) = floor(a (n + 1)) / (n + 1)."""
    rng = np.random.default_rng(3)
    values = []
    for _ in range(4_000):
        *normal, score = rng.normal(size=20).astype(np.float32)
        values.append(p_value(float(score), np.sort(np.asarray(normal))))
    values = np.asarray(values)
    for a in (0.05, 0.1, 0.5):
        error = math.sqrt(a * (1 - a) / len(values))
        assert (values <= a + EXACT).mean() == pytest.approx(a, abs=4 * error)


@pytest.mark.parametrize(("below", "words"), [(4, "all 4"), (3, "3 of 4"), (0, "none of 4")])
def test_a_rank_in_words(below, words):
    assert rank_words(below, 4) == f"above {words} normals"


def test_the_display_has_the_threshold_in_its_middle():
    assert display(3.0, 3.0, 1.0, 5.0) == 0.5
    assert display(4.0, 3.0, 1.0, 5.0) == 0.75
    values = np.asarray([[-9, 3], [4, 9]], np.float32)
    shown = display(values, 3.0, 1.0, 5.0)
    np.testing.assert_array_equal(shown, [[0, 0.5], [0.75, 1]])
    assert shown.dtype == np.float32
    np.testing.assert_array_equal(display(values, 3.0, 2.0, 2.0), [[0, 0.5], [1, 1]])


# ---------------------------------------------------------------- probabilities


def test_a_probability_needs_thirty_of_each():
    assert probability(overlapping(29, 30)) is None
    assert probability(overlapping(30, 29)) is None
    assert probability(overlapping(30, 30)) is not None


def test_a_probability_is_the_true_one():
    """Of two normal distributions of one width: logit = (d x - d^2 / 2) / width^2, d apart."""
    found = probability(overlapping(20_000, 20_000))
    for score in (-0.1, 0.0, 0.075, 0.2):
        logit = (0.15 * score - 0.15**2 / 2) / 0.1**2
        assert found(score) == pytest.approx(1 / (1 + math.exp(-logit)), abs=0.01)


def test_the_prevalence_shifts_the_probability():
    """By Bayes: the odds are multiplied by those of the prevalence over the calibration's."""
    known = overlapping(60, 30)
    plain = probability(known)
    for prevalence in (0.01, 1 / 3, 0.5):
        moved = probability(known, prevalence)
        for score in (-0.1, 0.1, 0.3):
            odds = plain(score) / (1 - plain(score))
            odds *= prevalence / (1 - prevalence) / (30 / 60)
            assert moved(score) == pytest.approx(odds / (1 + odds), rel=1e-9)
    for prevalence in (0.0, 1.0, -0.1):
        with pytest.raises(UserError, match="a share between 0 and 1"):
            probability(known, prevalence)


def test_a_probability_does_not_depend_on_the_unit_of_scores():
    known = overlapping(40, 40)
    larger = calibration(1_000 * known.normal_scores + 7, 1_000 * known.abnormal_scores + 7)
    one = probability(known)
    other = probability(larger)
    for score in (-0.1, 0.0, 0.2):
        assert other(1_000 * score + 7) == pytest.approx(one(score), rel=1e-3)


def test_probabilities_of_separate_and_of_equal_scores_are_finite():
    apart = probability(calibration(np.linspace(0, 1, 30), np.linspace(5, 6, 30)))
    assert 0 < apart(0.5) < 0.1
    assert 0.9 < apart(5.5) < 1
    assert apart(1e6) == 1
    assert apart(-1e6) == 0
    assert probability(calibration([1.0] * 30, [1.0] * 30))(1.0) == pytest.approx(0.5)


# ---------------------------------------------------------------- many images


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_discoveries_are_scipys(seed, rate):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 41, 50) ** 2 // 40 + 1
    values = np.minimum(counts, 40) / 40
    expected = false_discovery_control(values, method="bh") <= rate + EXACT
    np.testing.assert_array_equal(benjamini_hochberg(values.tolist(), rate), expected)


def test_discoveries_at_the_bound_count():
    """0.3 * 1 / 3 is 0.09999999999999999, below the 0.1 that it is."""
    assert benjamini_hochberg([0.1, 1.0, 1.0], 0.3).tolist() == [True, False, False]
    assert benjamini_hochberg([0.1001, 1.0, 1.0], 0.3).tolist() == [False] * 3


def test_a_later_p_value_takes_earlier_ones_along():
    assert benjamini_hochberg([0.06, 0.9, 0.05], 0.1).tolist() == [True, False, True]
    assert benjamini_hochberg([], 0.1).tolist() == []


def test_false_discoveries_of_shared_p_values_are_as_few_as_asked():
    """On average, though all p-values share one set of normal images."""
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(400):
        normal = np.sort(rng.normal(size=199).astype(np.float32))
        tested = np.concatenate([rng.normal(size=40), rng.normal(4, 1, 10)])
        found = benjamini_hochberg([p_value(score, normal) for score in tested.tolist()], 0.2)
        shares.append(found[:40].sum() / max(1, found.sum()))
    error = np.std(shares) / math.sqrt(len(shares))
    bound = 0.2 * 40 / 50
    assert bound / 2 < np.mean(shares) <= bound + 4 * error


def test_a_shift_is_said_of_enough_inputs_only():
    assert shift_warning([0.01] * 19) == ""
    assert shift_warning([0.01] * 10 + [0.5] * 10) == ""  # half is not more than half
    assert shift_warning([0.05] * 11 + [0.5] * 9).startswith("11 of 20 inputs have p <= 0.05")
    assert shift_warning([0.0501] * 20) == ""


def test_normal_inputs_cause_no_warning():
    rng = np.random.default_rng(6)
    normal = np.sort(rng.normal(size=39).astype(np.float32))
    same = [p_value(float(score), normal) for score in rng.normal(size=200)]
    assert shift_warning(same) == ""
    shifted = [p_value(float(score), normal) for score in rng.normal(3, 1, size=200)]
    assert shift_warning(shifted)


# ---------------------------------------------------------------- words


def test_a_paragraph_says_images_threshold_and_reason():
    few = calibration([0.1, 0.2, 0.3, 0.4], source="loo-shots", selection_used_it=True)
    rule, reason = default_rule(few)
    text = describe(few, threshold(rule, few), reason)
    assert "4 normal and 0 abnormal images: normal shots, each left out" in text
    assert "above all 4 normals" in text
    assert "The rule max is the default here: 4 normals allow no false positive rate below" in text
    assert "If adapters were trained on these images" in text
    assert "chose the epoch" in text
    assert "\n" not in text
    many = overlapping(39, 10)
    rule, reason = default_rule(many)
    text = describe(many, threshold(rule, many), reason)
    assert "39 normal and 10 abnormal images: images of valid/ that are no shots" in text
    assert "fpr=0.05" in text
    assert "trained on these" not in text
    assert "chose the epoch" not in text


def test_importing_it_is_cheap():
    code = (
        "import sys, mvfa.calibration; print([m for m in ('torch', 'scipy', 'sklearn', 'pandas') "
    )
    code += "if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
