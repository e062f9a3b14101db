"""Tests of two scores of the same images: whether one AUROC is higher by more than chance.

Neither torch nor scipy is loaded by importing this module. Letters: n images, P abnormal and
N normal ones, C cases.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mvfa.strata import case_numbers

LEVEL = 0.95  # of the interval
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """Two AUROCs of the same images as fractions, and what their difference is worth.

    Args:
        first: AUROC of the first score.
        second: AUROC of the second score.
        difference: first minus second.
        low: lower end of the difference's 95 % interval, clipped to [-1, 1]; None where the
            variance cannot be estimated.
        high: its upper end.
        p: two-sided p-value of no difference; None as above.

    """

    first: float
    second: float
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def wins(scores: Floats, labels: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return for each abnormal [P] and normal image [N] how many of the other label it beats.

    An abnormal image beats the normal ones below it, a normal image the abnormal ones above it;
    ties count half. These are the structural components of DeLong and others (1988) times N and P,
    from midranks (Sun and Xu, 2014); as counts they are exact.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    abnormal = ranks[labels] - rankdata(scores[labels])
    normal = ranks[~labels] - rankdata(scores[~labels])
    return abnormal, labels.sum() - normal


def delong(first: npt.ArrayLike, second: npt.ArrayLike, labels: npt.ArrayLike) -> Paired:
    """Compare two scores of the same images by the test of DeLong and others (1988).

    first, second: [n], in any scales; labels [n] bool, both present. Images count as independent:
    slices of one patient are not, see `permute_cases`. The interval and the p-value are None with
    fewer than two images of a label, or where scores separate the labels so well that the estimated
    variance is 0 although the AUROCs differ.
    """
    from scipy.stats import norm

    truth = np.asarray(labels, np.bool_)
    won = [wins(np.asarray(scores, np.float64), truth) for scores in (first, second)]
    counts = (int(truth.sum()), int((~truth).sum()))  # P and N
    pairs = counts[0] * counts[1]
    one, two = (float(abnormal.sum() / pairs) for abnormal, _ in won)
    gained = [a - b for a, b in zip(*won, strict=True)]  # by abnormal [P] and normal images [N]
    difference = float(gained[0].sum() / pairs)
    if min(counts) < 2:
        return Paired(one, two, difference)
    variance = sum(np.var(gain, ddof=1) * len(gain) for gain in gained) / pairs**2
    error = float(np.sqrt(variance))
    if error == 0:
        return Paired(one, two, difference) if difference else Paired(one, two, 0.0, 0.0, 0.0, 1.0)
    margin = float(norm.ppf((1 + LEVEL) / 2)) * error
    low = max(difference - margin, -1.0)
    high = min(difference + margin, 1.0)
    return Paired(one, two, difference, low, high, 2 * float(norm.sf(abs(difference) / error)))


def twice_won(ranks: npt.NDArray[np.int64], labels: npt.NDArray[np.bool_], highest: int) -> int:
    """Return 2 P N times the AUROC of whole numbers [n] from 0 to `highest`, exactly."""
    abnormal = np.bincount(ranks[labels], minlength=highest + 1)
    normal = np.bincount(ranks[~labels], minlength=highest + 1)
    below = np.cumsum(normal) - normal
    return int(abnormal @ (2 * below + normal))


def swaps(count: int, rounds: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield which of C cases swap their scores, [C] bool.

    All 2^C ways if these are `rounds` at most, else `rounds` random ones.
    """
    if count < rounds.bit_length():  # 2^C <= rounds
        bits = np.arange(count)
        yield from (((number >> bits) & 1).astype(np.bool_) for number in range(2**count))
        return
    generator = np.random.default_rng(seed)
    yield from (generator.random(count) < 0.5 for _ in range(rounds))


def permute_cases(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    labels: npt.ArrayLike,
    cases: Sequence[str | None],
    rounds: int,
    seed: int,
) -> float:
    """Return the two-sided p-value of no difference in AUROC, by permutation of whole cases.

    first, second: [n], in any scales, which become midranks; labels [n] bool, both present; an
    image without a case is a case of its own. Without a difference the two scores of a case could
    as well be swapped, for all its images at once (after Venkatraman and Begg, 1996, who swap image
    by image). Exact over all 2^C ways where `rounds` are as many; else (1 + number of rounds whose
    difference is as large) / (rounds + 1).
    """
    from scipy.stats import rankdata

    truth = np.asarray(labels, np.bool_)
    numbers = case_numbers(cases)
    count = int(numbers.max()) + 1
    # midranks are halves of whole numbers
    one, two = ((2 * rankdata(np.asarray(s))).astype(np.int64) for s in (first, second))

    def difference(swapped: npt.NDArray[np.bool_]) -> int:
        pair = (np.where(swapped, two, one), np.where(swapped, one, two))
        a, b = (twice_won(ranks, truth, 2 * len(truth)) for ranks in pair)
        return abs(a - b)

    seen = difference(np.zeros(len(truth), np.bool_))
    ways = [difference(swapped[numbers]) >= seen for swapped in swaps(count, rounds, seed)]
    exact = len(ways) == 2**count
    return (sum(ways) + (not exact)) / (len(ways) + (not exact))
