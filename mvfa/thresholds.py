"""Thresholds from the scores of known images, and their error rates (docs/calibration.md, C4).

Neither torch nor scipy is loaded by importing this module. A score is flagged if it is above the
threshold.

Letters: n normal and m abnormal scores, each [n] or [m] float32 and sorted; `a` a false positive
rate, `s` a sensitivity.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from errors import UserError

Scores = npt.NDArray[np.float32]

ENOUGH = 19  # normals that allow a false positive rate of 5 %
DEFAULT_RULE = "fpr=0.05"
FALLBACK_RULE = "max"
CONFIDENCE = 0.95  # of each end of an interval
BISECTIONS = 64  # the last halves 1e-19
SHARE_RULE = re.compile(r"(fpr|sens)=((?:\d+\.?\d*|\.\d+)(?:[eE]-?\d{1,2})?)")
RULES = "fpr=A and sens=S with shares between 0 and 1, f1, max, or a number"


class Rate(NamedTuple):
    """A share, and its lower and upper end, each held with CONFIDENCE."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Threshold:
    """A threshold, and what it is known to do (C4).

    Args:
        value: scores above it are flagged.
        rule: the rule that it follows, as given.
        sentences: what a program says about it.
        false_positive_rate: promised by the rule, else measured on the normal scores; None where
            there are too few of them to say anything.
        sensitivity: promised by the rule, else measured on the abnormal scores; None without any.

    """

    value: float
    rule: str
    sentences: tuple[str, ...]
    false_positive_rate: Rate | None = None
    sensitivity: Rate | None = None


def default_rule(n: int) -> tuple[str, str]:
    """Return the rule that is used with n normals if none is given, and why (C4)."""
    if n >= ENOUGH:
        return DEFAULT_RULE, f"{ENOUGH} normals or more allow a false positive rate of 5 %"
    return FALLBACK_RULE, f"{n} normals allow no false positive rate below {least_rate(n)}"


def least_rate(n: int) -> str:
    """Return the least false positive rate that n normals allow: "1/5 = 0.2"."""
    return f"1/{n + 1} = {1 / (n + 1):.3g}"


def threshold(rule: str, normal: Scores, abnormal: Scores) -> Threshold:
    """Return the threshold of a rule: fpr=A, sens=S, f1, max or a number (C4).

    Raises UserError for another rule, or one that there are too few scores for.
    """
    text = rule.strip()
    if found := SHARE_RULE.fullmatch(text):
        share = Fraction(found[2])
        if found[1] == "fpr" and share < 1:
            return of_false_positive_rate(text, share, normal, abnormal)
        if found[1] == "sens" and 0 < share <= 1:
            return of_sensitivity(text, share, normal, abnormal)
    elif text == "f1":
        return of_f1(normal, abnormal)
    elif text == "max":
        return of_maximum(normal, abnormal)
    elif (value := finite(text)) is not None:
        return of_number(text, value, normal, abnormal)
    raise UserError(f"threshold {rule}: allowed are {RULES}")


def finite(text: str) -> float | None:
    """Return a finite number, None for other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def of_false_positive_rate(
    rule: str, rate: Fraction, normal: Scores, abnormal: Scores
) -> Threshold:
    """Return the k-th largest normal score, k = floor(a (n + 1)). UserError if k is 0."""
    n = len(normal)
    k = position(rate, n)
    if not k:
        remedy = "choose a higher rate, max or a number"
        if rate:
            remedy += f", or calibrate with {math.ceil(1 / rate) - 1} normals or more"
        raise UserError(
            f"threshold {rule}: {n} normals allow no false positive rate below {least_rate(n)}; "
            f"{remedy}"
        )
    value = float(normal[-k])
    law = promised(k, n)
    first = (
        f"Threshold {value:.6g} ({rule}): the {ordinal(k)} largest of {n} normal scores, "
        f"k = floor({float(rate):g} * {n + 1}) = {k}."
    )
    second = f"False positive rate: {describe_law(law)} Beta({k}, {n + 1 - k}))."
    sensitivity, third = sensitivity_of(value, abnormal)
    return Threshold(value, rule, (first, second, third), law, sensitivity)


def of_sensitivity(rule: str, share: Fraction, normal: Scores, abnormal: Scores) -> Threshold:
    """Return the k-th smallest abnormal score, k = floor((1 - s) (m + 1)). UserError if k is 0.

    If another abnormal score equals it, the threshold is the next number below, so that the equal
    ones are flagged.
    """
    m = len(abnormal)
    k = position(1 - share, m)
    if not k:
        remedy = "choose a lower one, max or a number"
        if share < 1:
            remedy += f", or calibrate with {math.ceil(1 / (1 - share)) - 1} abnormals or more"
        raise UserError(
            f"threshold {rule}: {m} abnormals allow no sensitivity above {m}/{m + 1} = "
            f"{m / (m + 1):.3g}; {remedy}"
        )
    smallest = abnormal[k - 1]
    tied = int((abnormal == smallest).sum()) > 1
    value = float(np.nextafter(smallest, np.float32(-np.inf)) if tied else smallest)
    missed = promised(k, m)
    law = Rate(1 - missed.value, 1 - missed.high, 1 - missed.low)
    first = (
        f"Threshold {value:.6g} ({rule}): {'just below ' if tied else ''}the {ordinal(k)} smallest "
        f"of {m} abnormal scores, k = floor({float(1 - share):g} * {m + 1}) = {k}."
    )
    second = f"Sensitivity: {describe_law(law)} Beta({m + 1 - k}, {k}))."
    rate, third = false_positives_of(value, normal)
    return Threshold(value, rule, (first, second, third), rate, law)


def of_f1(normal: Scores, abnormal: Scores) -> Threshold:
    """Return the threshold of the best F1, halfway between neighbouring scores; of equals, the top.

    Raises UserError without both labels, or if all scores are equal.
    """
    values = np.unique(np.concatenate([normal, abnormal]).astype(np.float64))
    n = len(normal)
    m = len(abnormal)
    if not n or not m or len(values) == 1:
        raise UserError(
            f"threshold f1: needs different scores of normal and abnormal images; got {n} normals "
            f"and {m} abnormals with {len(values)} different scores; choose fpr=A, max or a number"
        )
    middles = (values[1:] + values[:-1]) / 2
    true = m - np.searchsorted(abnormal.astype(np.float64), middles, side="right")
    false = n - np.searchsorted(normal.astype(np.float64), middles, side="right")
    f1 = 2 * true / (true + false + m)
    best = int((f1 == f1.max()).nonzero()[0][-1])
    value = float(middles[best])
    sentence = (
        f"Threshold {value:.6g} (f1): the best F1, {f1[best]:.3g}, with {true[best]} of {m} "
        f"abnormals and {false[best]} of {n} normals above it. It is chosen and measured on the "
        "same images, so it is optimistic, and no rate is promised."
    )
    return Threshold(value, "f1", (sentence,))


def of_maximum(normal: Scores, abnormal: Scores) -> Threshold:
    """Return the largest normal score. UserError if there is none."""
    n = len(normal)
    if not n:
        raise UserError("threshold max: the calibration has no normals; choose a number")
    value = float(normal[-1])
    first = f"Threshold {value:.6g} (max): what is above all {n} normals is flagged."
    sensitivity, third = sensitivity_of(value, abnormal)
    if n < ENOUGH:
        second = (
            f"{n} normals allow no false positive rate below {least_rate(n)}: none is promised."
        )
        return Threshold(value, "max", (first, second, third), None, sensitivity)
    law = promised(1, n)
    second = f"False positive rate: {describe_law(law)} Beta(1, {n}))."
    return Threshold(value, "max", (first, second, third), law, sensitivity)


def of_number(rule: str, value: float, normal: Scores, abnormal: Scores) -> Threshold:
    """Return a threshold that was given, with what it does to the known images."""
    rate, of_normals = false_positives_of(value, normal)
    sensitivity, of_abnormals = sensitivity_of(value, abnormal)
    sentences = (f"Threshold {value:.6g}, as given.", of_normals, of_abnormals)
    return Threshold(value, rule, sentences, rate, sensitivity)


# -------------------------------------------------------------------- rates


def position(share: Fraction, count: int) -> int:
    """Return floor(share * (count + 1)), exactly: as a float, 0.29 * 100 is below 29."""
    return math.floor(share * (count + 1))


def promised(k: int, count: int) -> Rate:
    """Return the share of new scores beyond the k-th most extreme of `count` (C3).

    For one set of known images it is drawn from Beta(k, count + 1 - k). The value is the mean, the
    ends are the points that 5 % of sets are beyond, on either side.
    """
    low, high = (beta_quantile(share, k, count + 1 - k) for share in (1 - CONFIDENCE, CONFIDENCE))
    return Rate(k / (count + 1), low, high)


def measured(found: int, count: int) -> Rate:
    """Return a share, found / count, with the ends of Clopper and Pearson (1934); count > 0.

    Each end holds with 95 % confidence: where all are found, the lower one is 0.05^(1 / count).
    """
    low = beta_quantile(1 - CONFIDENCE, found, count + 1 - found) if found else 0.0
    high = beta_quantile(CONFIDENCE, found + 1, count - found) if found < count else 1.0
    return Rate(found / count, low, high)


def beta_quantile(share: float, a: int, b: int) -> float:
    """Return the point that a share of Beta(a, b) lies below, for whole a and b from 1 on.

    Beta(a, b) lies below x as often as n = a + b - 1 draws, each a hit with probability x, give a
    hits or more; bisection finds x. It is scipy.special.betaincinv, which takes longer to import
    than all else that predict.py does with an image's score.
    """
    n = a + b - 1
    hits = np.arange(a, n + 1)
    ways = np.array(
        [math.lgamma(n + 1) - math.lgamma(h + 1) - math.lgamma(n - h + 1) for h in hits]
    )
    low = 0.0
    high = 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        logs = ways + hits * math.log(middle) + (n - hits) * math.log1p(-middle)
        if np.exp(logs).sum() < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def sensitivity_of(value: float, abnormal: Scores) -> tuple[Rate | None, str]:
    """Return the share of abnormal scores above a threshold, and a sentence."""
    return share_above(value, abnormal, "Sensitivity", "abnormals")


def false_positives_of(value: float, normal: Scores) -> tuple[Rate | None, str]:
    """Return the share of normal scores above a threshold, and a sentence."""
    return share_above(value, normal, "False positive rate", "normals")


def share_above(value: float, scores: Scores, name: str, unit: str) -> tuple[Rate | None, str]:
    """Return the share of scores above a threshold, None without scores, and a sentence."""
    if not len(scores):
        return None, f"{name}: unknown, the calibration has no {unit}."
    above = int((scores.astype(np.float64) > value).sum())
    share = measured(above, len(scores))
    return share, (
        f"{name}: {above} of the calibration's {len(scores)} {unit} are above it, "
        f"{percent(share.value)} (at least {percent(share.low)} and at most {percent(share.high)}, "
        "each with 95 % confidence)."
    )


def describe_law(law: Rate) -> str:
    """Say what is promised, up to the name of the distribution."""
    return (
        f"{percent(law.value)} on average over calibration sets, for a given one between "
        f"{percent(law.low)} and {percent(law.high)} (5 % and 95 % points of"
    )


def percent(share: float) -> str:
    """Return a share in percent, with three digits."""
    return f"{100 * share:.3g} %"


def ordinal(k: int) -> str:
    """Return 1 as "1st", 2 as "2nd", 11 as "11th"."""
    last = {1: "st", 2: "nd", 3: "rd"}.get(k % 10, "th")
    return f"{k}{'th' if k % 100 in {11, 12, 13} else last}"
