"""Scores and labels to counts by rising score: exact where all scores fit, else in bins made for the scores.

Everything that `metrics` measures of pixels is a function of such counts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from errors import UserError

EXACT_LIMIT = 2**22  # scores that are sorted; more go into bins, so many at a time
BINS = 2**20  # shared out by where the scores are
CELL_BITS = 15  # of a float's bits that tell scores within a cell apart; the others number the cell
CELLS = (0x3F800000 >> CELL_BITS) + 1  # the last one holds 1.0
LEAST = 2**16  # one bin in so many goes to every cell, however few scores the sample has there
NOT_FINITE = "a score is not finite or not in [0, 1]; run again with --precision fp32 and check the images"


@dataclass(frozen=True)
class Counts:
    """How many scores lie in each place, in the order of the scores.

    thresholds float32 [n]: the lowest score of each place; positives, negatives int64 [n]. shares float64 [n], where
    they were given: sums over positives of the share that each has in its region. exact: a place is a single score.
    """

    thresholds: Tensor
    positives: Tensor
    negatives: Tensor
    shares: Tensor | None = None
    exact: bool = True


def check_labels(abnormal: int, normal: int) -> None:
    """Raise UserError if a label is missing."""
    if not (abnormal and normal):
        raise UserError(
            f"AUROC needs both labels: got {abnormal} abnormal and {normal} normal; check the test folder and its masks"
        )


def count(scores: Tensor, labels: Tensor, shares: Tensor | None = None) -> Counts:
    """Exact counts of scores [n], labels [n] (bool) and, for each positive in order, its share of its region.

    Raises UserError if a label is missing or a score is not finite.
    """
    check_labels(int(labels.sum()), int((~labels).sum()))
    if not torch.isfinite(scores).all():
        raise UserError(NOT_FINITE)
    values, place = torch.unique(scores, return_inverse=True)
    everything = torch.bincount(place, minlength=len(values))
    positives = torch.bincount(place[labels], minlength=len(values))
    summed = None if shares is None else torch.bincount(place[labels], shares.double(), len(values))
    return Counts(values, positives, everything - positives, summed)


class Bins:
    """Bins over [0, 1] that are finest where a sample of scores lies.

    Floats of [0, 1] have the order of their bits read as whole numbers. The upper bits number a cell; each cell is cut
    into equal bins, so many as its share of the sample, up to one bin a float. Scores of which nearly all are close to
    zero, as those of a sure model, are so told apart as well as evenly spread ones.
    """

    def __init__(self, sample: Tensor, bins: int) -> None:
        cells = sample.view(torch.int32) >> CELL_BITS
        wanted = torch.bincount(cells, minlength=CELLS) * (bins / len(sample))
        self.width = wanted.ceil().clamp(max(1, bins // LEAST), 1 << CELL_BITS).int()  # bins of each cell
        self.first = (self.width.cumsum(0) - self.width).int()
        self.total = int(self.width.sum())

    def index(self, scores: Tensor) -> Tensor:
        """Number of the bin of each score: float32 [n] in [0, 1] -> int32 [n]."""
        bits = scores.view(torch.int32)
        cells, within = bits >> CELL_BITS, bits & ((1 << CELL_BITS) - 1)
        within *= self.width.index_select(0, cells)
        return (within >> CELL_BITS).add_(self.first.index_select(0, cells))

    def thresholds(self) -> Tensor:
        """The lowest score of each bin: float32 [bins], rising."""
        width = self.width.long()
        cells = torch.repeat_interleave(torch.arange(CELLS, device=width.device), width)
        place = torch.arange(self.total, device=width.device) - self.first[cells]
        within = -(-(place << CELL_BITS) // width[cells])  # rounded up
        return ((cells << CELL_BITS) + within).int().view(torch.float32)


class StreamingCounts:
    """Counts of scores in [0, 1] that come in blocks: exact up to `exact_limit` of them, then in bins.

    The bins are made for the scores that came first, so blocks that resemble the whole give the finest result.
    """

    def __init__(self, exact_limit: int = EXACT_LIMIT, bins: int = BINS) -> None:
        self.exact_limit, self.bins = exact_limit, bins
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.shares: list[Tensor] = []
        self.held = 0
        self.found: Bins | None = None
        self.counted: list[Tensor] = []  # all, positives, and shares if there are any

    def update(self, scores: Tensor, labels: Tensor, shares: Tensor | None = None) -> None:
        """Add scores float32 in [0, 1] and labels (bool) of the same shape, and the share of each positive in order."""
        low, high = scores.aminmax()
        if not (low >= 0 and high <= 1):
            raise UserError(NOT_FINITE)
        self.scores.append(scores.flatten())
        self.labels.append(labels.flatten())
        if shares is not None:
            self.shares.append(shares)
        self.held += scores.numel()
        if self.held > self.exact_limit:
            self._spill()

    def _spill(self) -> None:
        """Count what is held."""
        scores, labels = torch.cat(self.scores).add_(0.0), torch.cat(self.labels)  # minus zero becomes zero
        if self.found is None:
            self.found = Bins(scores, self.bins)
        index, size = self.found.index(scores), self.found.total
        chosen = index[labels]
        parts = [torch.bincount(index, minlength=size), torch.bincount(chosen, minlength=size)]
        if self.shares:
            parts.append(torch.bincount(chosen, torch.cat(self.shares).double(), size).double())  # of none: int64
        self.counted = [a.add_(b) for a, b in zip(self.counted, parts, strict=True)] if self.counted else parts
        self.scores, self.labels, self.shares, self.held = [], [], [], 0

    def counts(self) -> Counts:
        """Counts of everything added. Raises UserError if a label is missing."""
        if self.found is None:
            shares = torch.cat(self.shares) if self.shares else None
            return count(torch.cat(self.scores), torch.cat(self.labels), shares)
        if self.held:
            self._spill()
        everything, positives, *weighed = self.counted
        negatives = everything - positives
        check_labels(int(positives.sum()), int(negatives.sum()))
        return Counts(self.found.thresholds(), positives, negatives, weighed[0] if weighed else None, exact=False)
