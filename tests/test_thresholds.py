"""Thresholds are where plain counting puts them, and their rates are where their laws say."""

import math
import re
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import betaincinv
from scipy.stats import betabinom, binom, kstest, norm

from errors import UserError
from mvfa import thresholds
from mvfa.thresholds import beta_quantile, measured, position, promised, threshold
from tests.script_runs import ROOT

NOTHING = np.empty(0, np.float32)


def scores(*values: float) -> np.ndarray:
    return np.sort(np.asarray(values, np.float32))


def drawn(count: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).normal(size=count).astype(np.float32))


@pytest.mark.parametrize(
    ("share", "count", "k"),
    [
        ("0.05", 19, 1),
        ("0.1", 9, 1),
        ("0.29", 99, 29),  # 0.29 * 100 is 28.999999999999996
        ("0.57", 99, 57),  # 0.57 * 100 is 56.99999999999999
        ("0.01", 99, 1),
        ("0.05", 18, 0),
        ("0.07", 99, 7),  # 0.07 * 100 is 7.000000000000001
        ("1e-2", 98, 0),
    ],
)
def test_positions_are_exact(share, count, k):
    assert position(Fraction(share), count) == k
    if k:
        normal = drawn(count)
        assert threshold(f"fpr={share}", normal, NOTHING).value == sorted(normal)[count - k]


def test_a_specificity_is_exact_too():
    """1 - 0.95 is 0.050000000000000044, and 1 - 0.9 is 0.09999999999999998."""
    for share, count in (("0.95", 19), ("0.9", 9), ("0.71", 99)):
        abnormal = drawn(count)
        k = round((1 - float(share)) * (count + 1))
        assert threshold(f"sens={share}", NOTHING, abnormal).value == sorted(abnormal)[k - 1]


@pytest.mark.parametrize("count", [1, 4, 9, 19, 20, 35, 39, 113])
@pytest.mark.parametrize("percent", [1, 2, 5, 10, 20, 50, 99])
def test_the_rate_is_the_highest_that_is_allowed(count, percent):
    """In whole numbers: k of n + 1 is at most the rate, k + 1 would be above it."""
    rule = f"fpr={percent / 100}"
    normal = drawn(count, percent)
    allowed = [k for k in range(1, count + 1) if 100 * k <= percent * (count + 1)]
    if not allowed:
        with pytest.raises(UserError, match=f"{count} normals allow no false positive rate below"):
            threshold(rule, normal, NOTHING)
        return
    found = threshold(rule, normal, NOTHING)
    assert sum(score >= found.value for score in normal) == allowed[-1]
    assert found.false_positive_rate.value == allowed[-1] / (count + 1)


def test_refusals_say_what_is_allowed_and_needed():
    four = scores(1, 2, 3, 4)
    refusal = (
        r"threshold fpr=0.05: 4 normals allow no false positive rate below 1/5 = 0.2; choose "
        r"a higher rate, max or a number, or calibrate with 19 normals or more"
    )
    with pytest.raises(UserError, match=f"^{refusal}$"):
        threshold("fpr=0.05", four, four)
    with pytest.raises(UserError, match="or calibrate with 99 normals or more"):
        threshold("fpr=0.01", four, four)
    with pytest.raises(UserError, match=r"below 1/5 = 0.2; choose a higher rate, max or a number$"):
        threshold("fpr=0", four, four)
    refusal = r"4 abnormals allow no sensitivity above 4/5 = 0.8; .* with 19 abnormals or more"
    with pytest.raises(UserError, match=refusal):
        threshold("sens=0.95", four, four)
    with pytest.raises(UserError, match="0 abnormals allow no sensitivity above 0/1"):
        threshold("sens=0.5", four, NOTHING)
    for rule in ("sens=1", "sens=1.0"):
        with pytest.raises(UserError, match=r"choose a lower one, max or a number$"):
            threshold(rule, four, four)
    with pytest.raises(UserError, match="got 4 normals and 0 abnormals"):
        threshold("f1", four, NOTHING)
    with pytest.raises(UserError, match="got 0 normals and 4 abnormals"):
        threshold("f1", NOTHING, four)
    with pytest.raises(UserError, match="with 1 different scores"):
        threshold("f1", scores(2, 2), scores(2))
    with pytest.raises(UserError, match="no normals"):
        threshold("max", NOTHING, four)


@pytest.mark.parametrize(
    "rule",
    [
        *("", "fpr", "fpr=", "fpr=1", "fpr=5 %", "fpr=-0.1", "fpr=nan", "fpr=1e-999"),
        *("sens=0", "sens=1.1", "F1", "best", "nan", "inf", "0.5.5", "fpr=0.1,sens=0.9"),
    ],
)
def test_other_rules_are_refused(rule):
    with pytest.raises(UserError, match=r"allowed are fpr=A and sens=S .*, f1, max, or a number"):
        threshold(rule, drawn(200), drawn(200))


@pytest.mark.parametrize("rule", ["fpr=0.10", "fpr=.1", "fpr=1e-1", " fpr=0.1 "])
def test_a_rate_may_be_written_in_several_ways(rule):
    found = threshold(rule, drawn(39), NOTHING)
    assert found.value == sorted(drawn(39))[-4]
    assert found.rule == rule.strip()


def brute_f1(normal: np.ndarray, abnormal: np.ndarray) -> tuple[float, float]:
    """Return the best F1 of all midpoints, and the highest midpoint that has it."""
    values = sorted({float(v) for v in [*normal, *abnormal]})
    found = []
    for low, high in pairwise(values):
        middle = (low + high) / 2
        true = sum(float(v) > middle for v in abnormal)
        false = sum(float(v) > middle for v in normal)
        precision = true / (true + false)
        recall = true / len(abnormal)
        f1 = 2 * precision * recall / (precision + recall) if true else 0.0
        found.append((round(f1, 12), middle))
    return max(found)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_f1(seed):
    rng = np.random.default_rng(seed)
    normal = scores(*rng.normal(0, 1, 15).round(1))
    abnormal = scores(*rng.normal(1, 1, 7).round(1))
    found = threshold("f1", normal, abnormal)
    f1, middle = brute_f1(normal, abnormal)
    assert found.value == middle
    assert f"{f1:.3g}" in found.sentences[0]
    assert scores(*normal, *abnormal)[0] < found.value  # never the minimum


def test_a_number_is_taken_as_it_is():
    found = threshold("-0.25", scores(-1, -0.25, 0, 1), scores(-0.25, 2, 3))
    assert found.value == -0.25
    assert found.false_positive_rate.value == 2 / 4  # the equal one is not above it
    assert found.sensitivity.value == 2 / 3


def test_with_few_normals_no_rate_is_promised():
    found = threshold("max", scores(1, 2, 3, 4), scores(3, 5))
    assert found.value == 4
    assert found.false_positive_rate is None
    assert "above all 4 normals" in found.sentences[0]
    assert "4 normals allow no false positive rate below 1/5" in found.sentences[1]
    enough = threshold("max", drawn(19), NOTHING)
    assert enough.value == drawn(19).max()
    assert enough.false_positive_rate.value == 1 / 20
    assert enough.sensitivity is None
    assert "unknown" in enough.sentences[2]


def test_the_default_depends_on_how_many_normals_there_are():
    assert thresholds.default_rule(19)[0] == "fpr=0.05"
    rule, reason = thresholds.default_rule(18)
    assert rule == "max"
    assert "18 normals allow no false positive rate below 1/19" in reason
    for n in range(1, 60):  # the default is never refused
        threshold(thresholds.default_rule(n)[0], drawn(n), NOTHING)


def test_equal_scores_are_not_flagged_by_a_rate():
    """Of equals that straddle the position none is above it: fewer are flagged, never more."""
    tied = scores(*[0.0] * 30, *[1.0] * 9)
    found = threshold("fpr=0.05", tied, NOTHING)
    assert found.value == 1
    assert (tied > found.value).sum() == 0


def test_equal_scores_are_flagged_by_a_sensitivity():
    """All of them, or an abnormal image like them would be missed."""
    tied = scores(*[0.5] * 10, *[1.0] * 29)
    found = threshold("sens=0.95", scores(0.2, 0.7), tied)
    assert found.value < 0.5
    assert found.value == pytest.approx(0.5)
    assert (tied > found.value).sum() == 39
    assert "just below" in found.sentences[0]


def test_the_table_of_the_document():
    """Smallest p-value, mean and 95 % point of the rate above all n normals."""
    text = (ROOT / "docs/calibration.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) % \|$", text, re.MULTILINE)
    assert len(rows) == 8
    for n, *shown in rows:
        law = promised(1, int(n))
        assert law.high == pytest.approx(1 - 0.05 ** (1 / int(n)))  # the law's own closed form
        numbers = (1 / (int(n) + 1), 100 * law.value, 100 * law.high)
        assert shown == [f"{number:.3g}" for number in numbers]


@pytest.mark.parametrize(("percent", "normals"), [(20, 14), (10, 29), (5, 59), (1, 299)])
def test_normals_for_a_promise_of_one_set(percent, normals):
    assert promised(1, normals).high <= percent / 100 < promised(1, normals - 1).high


def test_clopper_and_pearson():
    """The ends are where the found number is just as unlikely as 5 %."""
    for found, count in ((0, 5), (3, 5), (5, 5), (41, 44), (1, 100)):
        share = measured(found, count)
        assert share.value == found / count
        if found:
            assert binom.sf(found - 1, count, share.low) == pytest.approx(0.05)
        else:
            assert share.low == 0
        if found < count:
            assert binom.cdf(found, count, share.high) == pytest.approx(0.05)
        else:
            assert share.high == 1
    for count, low in ((4, 0.47), (16, 0.83), (44, 0.93)):
        assert measured(count, count).low == pytest.approx(low, abs=0.005)


@pytest.mark.parametrize("count", [1, 2, 5, 19, 139, 3715])
def test_quantiles_are_those_of_scipy(count):
    for a in sorted({1, 2, count // 2 + 1, count} & set(range(1, count + 1))):
        for share in (0.025, 0.05, 0.95, 0.975):
            expected = betaincinv(a, count + 1 - a, share)
            assert beta_quantile(share, a, count + 1 - a) == pytest.approx(expected, rel=1e-9)


def test_sentences_hold_the_numbers():
    normal = drawn(39)
    abnormal = scores(*np.linspace(0, 4, 44))
    found = threshold("fpr=0.05", normal, abnormal)
    text = " ".join(found.sentences)
    assert f"{found.value:.6g} (fpr=0.05): the 2nd largest of 39 normal scores" in text
    assert "k = floor(0.05 * 40) = 2" in text
    law = found.false_positive_rate
    assert (
        f"5 % on average over calibration sets, for a given one between {100 * law.low:.3g}" in text
    )
    assert "Beta(2, 38)" in text
    above = int((abnormal > found.value).sum())
    assert f"{above} of the calibration's 44 abnormals are above it" in text
    assert f"at least {100 * found.sensitivity.low:.3g} %" in text


@pytest.mark.parametrize(
    ("k", "words"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (112, "112th")]
)
def test_ordinals(k, words):
    assert thresholds.ordinal(k) == words


# ---------------------------------------------------------------- coverage

DRAWS = 1_000
NORMALS = 39
TESTED = 200
RATE = 0.05
BETA = (2, 38)  # k = floor(0.05 * 40), n + 1 - k


def simulate(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw calibration and test normals many times.

    Return, of each draw, how many test normals are flagged at fpr=0.05, and the share of all
    normals that there are which would be.
    """
    rng = np.random.default_rng(seed)
    flagged = []
    rates = []
    for _ in range(DRAWS):
        normal = np.sort(rng.normal(size=NORMALS).astype(np.float32))
        tested = rng.normal(size=TESTED).astype(np.float32)
        value = threshold(f"fpr={RATE}", normal, NOTHING).value
        flagged.append(int((tested > value).sum()))
        rates.append(norm.sf(value))
    return np.asarray(flagged), np.asarray(rates)


def check_coverage(flagged: np.ndarray, rates: np.ndarray) -> None:
    """Raise AssertionError unless the rates are those of the law."""
    law = betabinom(TESTED, *BETA)
    error = law.std() / TESTED / math.sqrt(DRAWS)
    assert abs(flagged.mean() / TESTED - RATE) < 4 * error
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        share = (flagged <= law.ppf(quantile)).mean()
        expected = law.cdf(law.ppf(quantile))
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / DRAWS)
    assert kstest(rates, "beta", args=BETA).pvalue > 1e-3


def test_rates_lie_where_the_law_says():
    check_coverage(*simulate(seed=1))


@pytest.mark.parametrize("off", [-1, 1])
def test_a_position_off_by_one_is_caught(monkeypatch, off):
    exact = position
    monkeypatch.setattr(thresholds, "position", lambda share, count: exact(share, count) + off)
    with pytest.raises(AssertionError):
        check_coverage(*simulate(seed=1))


def test_sensitivities_lie_where_their_law_says():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(DRAWS):
        abnormal = np.sort(rng.normal(size=NORMALS).astype(np.float32))
        found.append(norm.sf(threshold("sens=0.9", NOTHING, abnormal).value))
    k = 4  # floor(0.1 * 40)
    assert kstest(found, "beta", args=(NORMALS + 1 - k, k)).pvalue > 1e-3
    law = threshold("sens=0.9", NOTHING, drawn(NORMALS)).sensitivity
    assert law.value == pytest.approx(0.9)
    assert (np.asarray(found) < law.low).mean() == pytest.approx(0.05, abs=0.03)
