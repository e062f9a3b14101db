"""Histograms of scores per label: exact while they fit in memory, adaptively binned beyond that.

Everything that `metrics` measures of pixels is a function of such a histogram.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dataset.check import check_labels
from errors import UserError
from mvfa.accelerator import is_cuda

EXACT_LIMIT = 2**19  # scores that are sorted; more go into bins
BINS = 2**20  # distributed by where the scores are
SEGMENT_BITS = 15  # low bits of a float within a segment; the other bits number the segment
SEGMENTS = (0x3F800000 >> SEGMENT_BITS) + 1  # the last one holds 1.0
LEAST = 2**16  # one bin in so many goes to every segment, however few scores the sample has there
NOT_FINITE = (
    "a score is not finite or not in [0, 1]; run again with --precision fp32 and check the images"
)


@dataclass(frozen=True)
class Histogram:
    """How many scores lie in each bin, bins in rising order.

    thresholds float32 [n]: the lowest score of each bin; positives and negatives int64 [n].
    region_weights float64 [n], where they were given: sums over positives of 1 / the size of their
    region. exact: a bin is a single score.
    """

    thresholds: Tensor
    positives: Tensor
    negatives: Tensor
    region_weights: Tensor | None = None
    exact: bool = True


def exact_histogram(
    scores: Tensor, labels: Tensor, region_weights: Tensor | None = None, *, unit: str = "images"
) -> Histogram:
    """Count scores [n] by labels [n] bool, one bin a distinct score.

    `region_weights` holds a value for each positive, in order. `unit` says in errors what the
    scores are of: "images" or "pixels". Raises UserError if a label is missing or a score is not
    finite.
    """
    check_labels(int(labels.sum()), int((~labels).sum()), unit)
    if not torch.isfinite(scores).all():
        raise UserError(NOT_FINITE)
    values, bins = torch.unique(scores, return_inverse=True)
    everything = torch.bincount(bins, minlength=len(values))
    positives = torch.bincount(bins[labels], minlength=len(values))
    weights = None
    if region_weights is not None:
        weights = torch.bincount(bins[labels], region_weights.double(), len(values))
    return Histogram(values, positives, everything - positives, weights)


class AdaptiveBins:
    """Bins over [0, 1] that are finest where a sample of scores [n] lies; about `bins` of them.

    Floats in [0, 1] have the order of their bits read as integers. The upper bits number a segment;
    each segment is cut into equal bins, as many as its part of the sample, up to one bin a float.
    Scores that are nearly all close to zero, as a confident model's, are thus resolved as well as
    evenly spread ones.
    """

    def __init__(self, sample: Tensor, bins: int) -> None:
        segments = sample.view(torch.int32) >> SEGMENT_BITS
        wanted = torch.bincount(segments, minlength=SEGMENTS) * (bins / len(sample))
        least = max(1, bins // LEAST)
        self.width = wanted.ceil().clamp(least, 1 << SEGMENT_BITS).int()  # bins of each segment
        self.first = (self.width.cumsum(0) - self.width).int()
        self.total = int(self.width.sum())

    def index(self, scores: Tensor) -> Tensor:
        """Return the number of the bin of each score: float32 [n] in [0, 1] -> int32 [n]."""
        bits = scores.view(torch.int32)
        segments = bits >> SEGMENT_BITS
        within = bits & ((1 << SEGMENT_BITS) - 1)
        within *= self.width.index_select(0, segments)
        return (within >> SEGMENT_BITS).add_(self.first.index_select(0, segments))

    def thresholds(self) -> Tensor:
        """Return the lowest score of each bin: float32 [bins], rising."""
        device = self.width.device
        numbers = torch.arange(SEGMENTS, dtype=torch.int32, device=device)
        segments = torch.repeat_interleave(numbers, self.width)
        position = torch.arange(self.total, dtype=torch.int32, device=device)
        position = position.sub_(self.first[segments])
        width = self.width[segments]
        # position << bits, divided by the width and rounded up
        within = position.bitwise_left_shift_(SEGMENT_BITS).add_(width - 1).floor_divide_(width)
        return segments.bitwise_left_shift_(SEGMENT_BITS).add_(within).view(torch.float32)


class StreamingHistogram:
    """Histogram of pixel scores in [0, 1] that arrive in blocks.

    Exact up to `exact_limit` scores, then in bins, which are made for the scores that came first:
    blocks that resemble the whole give the finest result. From then on nothing is held but the
    histogram, whatever the number of scores.
    """

    def __init__(self, exact_limit: int = EXACT_LIMIT, bins: int = BINS) -> None:
        self.exact_limit = exact_limit
        self.bin_count = bins
        self.held: list[tuple[Tensor, Tensor, Tensor | None]] = []  # scores, labels, weights
        self.bins: AdaptiveBins | None = None
        self.counts: Tensor  # int64 [bins, 2]: negatives and positives
        self.region_weights: Tensor | None = None  # float64 [bins]
        self.fine: Tensor | None = None  # bool [] on a GPU: whether all scores were in [0, 1]

    def update(self, scores: Tensor, labels: Tensor, region_weights: Tensor | None = None) -> None:
        """Add scores float32 in [0, 1] and labels bool of one shape, and a weight per positive.

        Raises UserError for a score that is not in [0, 1]; `histogram` does so for those of a GPU.
        """
        scores = self._checked(scores)
        # adding zero turns minus zero into zero
        block = (scores.flatten() + 0.0, labels.flatten(), region_weights)
        if self.bins is not None:
            self._count(self.bins, *block)
            return
        self.held.append(block)
        if sum(len(held) for held, _, _ in self.held) > self.exact_limit:
            self._start_bins(scores.device, weighted=region_weights is not None)

    def _checked(self, scores: Tensor) -> Tensor:
        """Return scores that are all in [0, 1]; raise UserError if they are not.

        A GPU is not waited for: what is wrong becomes 0, and `histogram` raises.
        """
        low, high = scores.aminmax()
        if not is_cuda(scores.device):
            if not (low >= 0 and high <= 1):
                raise UserError(NOT_FINITE)
            return scores
        fine = (low >= 0) & (high <= 1)
        self.fine = fine if self.fine is None else self.fine & fine
        return scores.nan_to_num(nan=0.0).clamp(0, 1)

    def _start_bins(self, device: torch.device, weighted: bool) -> None:
        """Make the bins for the scores held so far, and count these."""
        self.bins = AdaptiveBins(torch.cat([held for held, _, _ in self.held]), self.bin_count)
        self.counts = torch.zeros(self.bins.total, 2, dtype=torch.int64, device=device)
        if weighted:
            self.region_weights = torch.zeros(self.bins.total, dtype=torch.float64, device=device)
        while self.held:
            self._count(self.bins, *self.held.pop())

    def _count(
        self, bins: AdaptiveBins, scores: Tensor, labels: Tensor, region_weights: Tensor | None
    ) -> None:
        """Add a block to the counts, in place."""
        index = bins.index(scores)
        if region_weights is not None and self.region_weights is not None:
            self.region_weights.index_add_(0, index[labels], region_weights.double())
        cell = index.mul_(2).add_(labels)
        one = torch.ones((), dtype=torch.int64, device=cell.device)
        self.counts.view(-1).index_add_(0, cell, one.expand_as(cell))

    def histogram(self) -> Histogram:
        """Return the histogram of everything added. Raises UserError if a label is missing."""
        if self.fine is not None and not self.fine:
            raise UserError(NOT_FINITE)
        if self.bins is None:
            scores, labels, weights = zip(*self.held, strict=True)
            given = [weight for weight in weights if weight is not None]
            joined = torch.cat(given) if given else None
            return exact_histogram(torch.cat(scores), torch.cat(labels), joined, unit="pixels")
        negatives, positives = self.counts.unbind(dim=1)
        check_labels(int(positives.sum()), int(negatives.sum()), "pixels")
        thresholds = self.bins.thresholds()
        return Histogram(thresholds, positives, negatives, self.region_weights, exact=False)
