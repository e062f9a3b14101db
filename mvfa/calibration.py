"""What one score means: thresholds, p-values and ranks from the scores of known images.

The arithmetic, its sources and its limits are in docs/calibration.md, whose sections C2 to C5 are
cited here. Neither torch nor scipy is loaded by importing this module.

Letters: n normal and m abnormal scores of the calibration, `a` a false positive rate, `s`
a sensitivity. A score is flagged if it is above the threshold.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dataset.cases import group_by_case
from errors import UserError
from mvfa import thresholds
from mvfa.thresholds import Scores, Threshold

Range = tuple[float, float]

VALID = "valid-minus-shots"
NORMALS = "normals"
LEFT_OUT = "loo-shots"
SOURCES = {  # of the calibration's images, in words
    VALID: "images of valid/ that are no shots",
    NORMALS: "images of a folder of normal images",
    LEFT_OUT: "normal shots, each left out of the memory bank in turn",
}
UNITS = ("image", "case")  # what a score of the calibration is of
ENOUGH_FOR_PROBABILITY = 30  # normals, and abnormals
SHIFT_INPUTS = 20  # inputs from which on a shift is looked for
SHIFT_P_VALUE = 0.05
EXACT = 1e-9  # relative; closer than this, a p-value is at its bound


def pair(values: Any) -> Range:
    """Return the lower and upper end of a range of finite floats. Raises ValueError."""
    low, high = map(float, values)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"no range: {values}")
    return low, high


@dataclass(frozen=True, eq=False)
class Calibration:
    """Constants of the scores, and the scores of known images (C1, C2).

    Args:
        source: where the images are from, a key of SOURCES.
        names_sha256: `names_hash` of their file names.
        text: lowest and highest value of the text branch before fusion; None where there is none.
        memory: the same of the memory branch.
        normal_scores: [n] float32, sorted, not clipped.
        abnormal_scores: [m] float32, sorted; m may be 0.
        by: "case" where a score is the maximum over the slices of a case, else "image".
        selection_used_it: whether the same images chose the epoch of the adapters.

    Raises:
        ValueError: a value is of another kind, or a score is not finite.

    """

    source: str
    names_sha256: str
    text: Range | None
    memory: Range | None
    normal_scores: Scores
    abnormal_scores: Scores
    by: str
    selection_used_it: bool

    def __post_init__(self) -> None:
        if self.source not in SOURCES or self.by not in UNITS:
            raise ValueError(f"no source and unit of a calibration: {self.source}, {self.by}")
        if self.text is None and self.memory is None:
            raise ValueError("a calibration without constants")
        if not isinstance(self.selection_used_it, bool):
            raise ValueError(f"selection_used_it is {self.selection_used_it}")  # noqa: TRY004
        for name in ("normal_scores", "abnormal_scores"):
            scores = np.sort(np.asarray(getattr(self, name), np.float32))
            if scores.ndim != 1 or not np.isfinite(scores).all():
                raise ValueError(f"{name} are not finite scores, one each")
            object.__setattr__(self, name, scores)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the scores are stored apart, as tensors."""
        return {
            "source": self.source,
            "names_sha256": self.names_sha256,
            "lo_hi": {
                "text": self.text and list(self.text),
                "memory": self.memory and list(self.memory),
            },
            "by": self.by,
            "selection_used_it": self.selection_used_it,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], normal: Any, abnormal: Any) -> Self:
        """Return the calibration of `as_dict` and scores [n] and [m].

        Raises KeyError, TypeError or ValueError for values that `as_dict` cannot have made.
        """
        ranges = plain["lo_hi"]
        source = str(plain["source"])
        if source not in SOURCES:
            raise ValueError(f"images of an unknown source {source!r}")
        if ranges["text"] is None and ranges["memory"] is None:
            raise ValueError("no branch has a range")
        return cls(
            source=source,
            names_sha256=str(plain["names_sha256"]),
            text=None if ranges["text"] is None else pair(ranges["text"]),
            memory=None if ranges["memory"] is None else pair(ranges["memory"]),
            normal_scores=normal,
            abnormal_scores=abnormal,
            by=str(plain["by"]),
            selection_used_it=plain["selection_used_it"],
        )


def names_hash(names: Sequence[str]) -> str:
    """Return the SHA-256 of file names, whatever their order, as hexadecimal digits."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def scores_by_case(
    names: Sequence[str],
    scores: Sequence[float],
    pattern: str = "",
    known: Mapping[str, str] | None = None,
) -> tuple[list[float], str]:
    """Return one score a case, the maximum over its slices, and "case" (C2).

    Where no two names are of one case the scores are those of the images, and the unit is "image".
    `names` are different from each other; `pattern` and `known`: `dataset.cases.group_by_case`.
    """
    groups = group_by_case(names, pattern, known)
    by_name = dict(zip(names, scores, strict=True))
    unit = "image" if len(groups) == len(names) else "case"
    return [max(by_name[name] for name in group) for group in groups], unit


def scores_by_label(
    names: Sequence[str],
    labels: Sequence[int],
    scores: Sequence[float],
    pattern: str = "",
    known: Sequence[str | None] | None = None,
) -> tuple[Scores, Scores, str]:
    """Return normal and abnormal scores, float32, and their common unit, "case" or "image" (C2).

    The normal images decide the unit, since they are what a score is compared with: where each of
    them is a case of its own, the abnormal ones are not taken together either. `known` holds the
    case of each image that is known otherwise than by its name.
    """
    parts: list[tuple[list[str], list[float]]] = [([], []), ([], [])]
    listed: tuple[dict[str, str], dict[str, str]] = ({}, {})
    cases = known or [None] * len(names)
    for name, label, score, case in zip(names, labels, scores, cases, strict=True):
        parts[label][0].append(name)
        parts[label][1].append(score)
        if case:
            listed[label][name] = case
    normal, unit = scores_by_case(*parts[0], pattern, listed[0])
    abnormal = scores_by_case(*parts[1], pattern, listed[1])[0] if unit == "case" else parts[1][1]
    return np.asarray(normal, np.float32), np.asarray(abnormal, np.float32), unit


# -------------------------------------------------------------------- one image


def rank(score: float, normal_scores: Scores) -> tuple[int, int]:
    """Return how many of the normal scores are below a score, and how many there are."""
    below = int((normal_scores.astype(np.float64) < score).sum())
    return below, len(normal_scores)


def rank_words(below: int, n: int) -> str:
    """Say what `rank` returns: "above all 4 normals"."""
    share = "all" if n and below == n else f"{below} of" if below else "none of"
    return f"above {share} {n} normals"


def p_value(score: float, normal_scores: Scores) -> float:
    """Return the conformal p-value (1 + number of normal scores >= score) / (n + 1) (C3)."""
    below, n = rank(score, normal_scores)
    return (1 + n - below) / (n + 1)


def display(score: Any, threshold: float, low: float, high: float) -> Any:
    """Return clip((score - threshold) / (high - low) + 0.5, 0, 1), for showing (C4).

    `score` is a number or an array. Where low equals high, it is 0 below the threshold, 1 above.
    """
    difference = np.subtract(score, threshold)
    if high <= low:
        return 0.5 + 0.5 * np.sign(difference)
    return np.clip(difference / (high - low) + 0.5, 0, 1)


@dataclass(frozen=True)
class Logistic:
    """A probability of a score: 1 / (1 + exp(-(slope * score + intercept)))."""

    slope: float
    intercept: float

    def __call__(self, score: float) -> float:
        """Return the probability that an image of this score is abnormal."""
        logit = self.slope * score + self.intercept
        smaller = math.exp(-abs(logit))  # of the odds and their inverse: no overflow
        return (1 if logit > 0 else smaller) / (1 + smaller)


def fit_probability(normal: Scores, abnormal: Scores) -> Logistic | None:
    """Fit the probability that an image of a score is abnormal; None with too few scores (C4).

    normal [n], abnormal [m]; it holds for their share of abnormal images.
    """
    n = len(normal)
    m = len(abnormal)
    if min(n, m) < ENOUGH_FOR_PROBABILITY:
        return None
    from sklearn.linear_model import LogisticRegression

    scores = np.concatenate([normal, abnormal]).astype(np.float64)
    middle = scores.mean()
    spread = scores.std() or 1.0
    # in units of the spread, since the fit prefers small slopes: it has to where labels separate
    model = LogisticRegression().fit((scores[:, None] - middle) / spread, [0] * n + [1] * m)
    slope = float(model.coef_[0, 0] / spread)
    return Logistic(slope, float(model.intercept_[0] - slope * middle))


def probability(calibration: Calibration, prevalence: float | None = None) -> Logistic | None:
    """Return `fit_probability` of a calibration; None with too few scores (C4).

    `prevalence` is the share of abnormal images where it is used; None: that of the calibration.
    Raises UserError unless it is between 0 and 1.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise UserError(f"prevalence {prevalence:g}: allowed is a share between 0 and 1")
    fitted = fit_probability(calibration.normal_scores, calibration.abnormal_scores)
    if fitted is None or prevalence is None:
        return fitted
    odds = len(calibration.abnormal_scores) / len(calibration.normal_scores)
    shift = math.log(prevalence / (1 - prevalence)) - math.log(odds)
    return Logistic(fitted.slope, fitted.intercept + shift)


# -------------------------------------------------------------------- many images


def benjamini_hochberg(p_values: Sequence[float], rate: float) -> npt.NDArray[np.bool_]:
    """Return which p-values are discoveries at a false discovery rate (C4).

    The k smallest are, for the largest k whose k-th smallest is at most rate * k / their number.
    """
    values = np.asarray(p_values, np.float64)
    ordered = np.sort(values)
    bounds = rate * np.arange(1, len(values) + 1) / max(len(values), 1)
    allowed = ordered <= bounds * (1 + EXACT)  # 0.3 * 1 / 3 is below 0.1 in floating point
    if not allowed.any():
        return np.zeros(len(values), np.bool_)
    return values <= ordered[allowed.nonzero()[0][-1]]


def shift_warning(p_values: Sequence[float]) -> str:
    """Return a warning if inputs look unlike the calibration's normal images, else "" (C5)."""
    small = sum(p <= SHIFT_P_VALUE for p in p_values)
    if len(p_values) < SHIFT_INPUTS or 2 * small <= len(p_values):
        return ""
    return (
        f"{small} of {len(p_values)} inputs have p <= {SHIFT_P_VALUE}: most of them are abnormal, "
        "or they are unlike the calibration's normal images (another scanner, preparation or kind "
        "of image), and then neither p-values nor rates hold."
    )


# -------------------------------------------------------------------- thresholds


def default_rule(calibration: Calibration) -> tuple[str, str]:
    """Return the rule of the threshold if none is given, and why (C4)."""
    return thresholds.default_rule(len(calibration.normal_scores))


def threshold(rule: str, calibration: Calibration) -> Threshold:
    """Return the threshold of a rule: fpr=A, sens=S, f1, max or a number (C4).

    Raises UserError for another rule, or one that the calibration has too few images for.
    """
    return thresholds.threshold(rule, calibration.normal_scores, calibration.abnormal_scores)


def describe(calibration: Calibration, chosen: Threshold, reason: str = "") -> str:
    """Return one paragraph: the calibration's images, the threshold, and why it was chosen."""
    n = len(calibration.normal_scores)
    m = len(calibration.abnormal_scores)
    images = f"{n} normal and {m} abnormal {calibration.by}s"
    said = [f"Calibrated with {images}: {SOURCES[calibration.source]}.", *chosen.sentences]
    if reason:
        said.append(f"The rule {chosen.rule} is the default here: {reason}.")
    if calibration.source == LEFT_OUT:
        said.append("If adapters were trained on these images, the true rates are higher.")
    if calibration.selection_used_it:
        said.append("These images also chose the epoch of the adapters, so rates may be higher.")
    return " ".join(said)
