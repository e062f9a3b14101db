"""Scores and labels to counts by rising score: exact where all scores fit, else in bins made for the scores.

Everything that `metrics` measures of pixels is a function of such counts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dataset.check import check_labels
from errors import UserError

EXACT_LIMIT = 2**19  # scores that are sorted; more go into bins
BINS = 2**20  # shared out by where the scores are
CELL_BITS = 15  # of a float's bits that tell scores within a cell apart; the others number the cell
CELLS = (0x3F800000 >> CELL_BITS) + 1  # the last one holds 1.0
LEAST = 2**16  # one bin in so many goes to every cell, however few scores the sample has there
NOT_FINITE = (
    "a score is not finite or not in [0, 1]; run again with --precision fp32 and check the images"
)


@dataclass(frozen=True)
class Histogram:
    """How many scores lie in each place, in the order of the scores.

    thresholds float32 [n]: the lowest score of each place; positives, negatives int64 [n]. shares float64 [n], where
    they were given: sums over positives of the share that each has in its region. exact: a place is a single score.
    """

    thresholds: Tensor
    positives: Tensor
    negatives: Tensor
    shares: Tensor | None = None
    exact: bool = True


def count(
    scores: Tensor, labels: Tensor, shares: Tensor | None = None, *, unit: str = "images"
) -> Histogram:
    """Exact counts of scores [n], labels [n] (bool) and, for each positive in order, its share of its region.

    `unit` says in errors what the scores are of: "images" or "pixels". Raises UserError if a label is missing or a
    score is not finite.
    """
    check_labels(int(labels.sum()), int((~labels).sum()), unit)
    if not torch.isfinite(scores).all():
        raise UserError(NOT_FINITE)
    values, place = torch.unique(scores, return_inverse=True)
    everything = torch.bincount(place, minlength=len(values))
    positives = torch.bincount(place[labels], minlength=len(values))
    summed = None if shares is None else torch.bincount(place[labels], shares.double(), len(values))
    return Histogram(values, positives, everything - positives, summed)


class Bins:
    """Bins over [0, 1] that are finest where a sample of scores lies.

    Floats of [0, 1] have the order of their bits read as whole numbers. The upper bits number a cell; each cell is cut
    into equal bins, so many as its share of the sample, up to one bin a float. Scores of which nearly all are close to
    zero, as those of a sure model, are so told apart as well as evenly spread ones.
    """

    def __init__(self, sample: Tensor, bins: int) -> None:
        cells = sample.view(torch.int32) >> CELL_BITS
        wanted = torch.bincount(cells, minlength=CELLS) * (bins / len(sample))
        self.width = (
            wanted.ceil().clamp(max(1, bins // LEAST), 1 << CELL_BITS).int()
        )  # bins of each cell
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
        device = self.width.device
        cells = torch.repeat_interleave(
            torch.arange(CELLS, dtype=torch.int32, device=device), self.width
        )
        place = torch.arange(self.total, dtype=torch.int32, device=device).sub_(self.first[cells])
        width = self.width[cells]
        within = (
            place.bitwise_left_shift_(CELL_BITS).add_(width - 1).floor_divide_(width)
        )  # rounded up
        return cells.bitwise_left_shift_(CELL_BITS).add_(within).view(torch.float32)


class StreamingHistogram:
    """Histogram of pixel scores in [0, 1] that come in blocks: exact up to `exact_limit` of them, then in bins.

    The bins are made for the scores that came first, so blocks that resemble the whole give the finest result. From
    then on nothing is held but the counts, whatever the number of scores.
    """

    def __init__(self, exact_limit: int = EXACT_LIMIT, bins: int = BINS) -> None:
        self.exact_limit, self.bins = exact_limit, bins
        self.held: list[
            tuple[Tensor, Tensor, Tensor | None]
        ] = []  # blocks of scores, labels and shares
        self.found: Bins | None = None
        self.counted: Tensor  # int64 [bins, 2]: negatives and positives
        self.shares: Tensor | None = None  # float64 [bins]

    def update(self, scores: Tensor, labels: Tensor, shares: Tensor | None = None) -> None:
        """Add scores float32 in [0, 1] and labels (bool) of the same shape, and the share of each positive in order."""
        low, high = scores.aminmax()
        if not (low >= 0 and high <= 1):
            raise UserError(NOT_FINITE)
        block = scores.flatten() + 0.0, labels.flatten(), shares  # minus zero becomes zero
        if self.found is not None:
            self._count(self.found, *block)
            return
        self.held.append(block)
        if sum(len(held) for held, _, _ in self.held) > self.exact_limit:
            self.found = Bins(torch.cat([held for held, _, _ in self.held]), self.bins)
            self.counted = torch.zeros(self.found.total, 2, dtype=torch.int64, device=scores.device)
            if shares is not None:
                self.shares = torch.zeros(
                    self.found.total, dtype=torch.float64, device=scores.device
                )
            while self.held:
                self._count(self.found, *self.held.pop())

    def _count(self, bins: Bins, scores: Tensor, labels: Tensor, shares: Tensor | None) -> None:
        """Add a block to the counts, in place."""
        index = bins.index(scores)
        if shares is not None and self.shares is not None:
            self.shares.index_add_(0, index[labels], shares.double())
        place = index.mul_(2).add_(labels)
        one = torch.ones((), dtype=torch.int64, device=place.device)
        self.counted.view(-1).index_add_(0, place, one.expand_as(place))

    def counts(self) -> Histogram:
        """Histogram of everything added. Raises UserError if a label is missing."""
        if self.found is None:
            scores, labels, shares = zip(*self.held, strict=True)
            known = [share for share in shares if share is not None]
            return count(
                torch.cat(scores),
                torch.cat(labels),
                torch.cat(known) if known else None,
                unit="pixels",
            )
        negatives, positives = self.counted.unbind(dim=1)
        check_labels(int(positives.sum()), int(negatives.sum()), "pixels")
        return Histogram(self.found.thresholds(), positives, negatives, self.shares, exact=False)
