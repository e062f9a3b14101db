"""Scores to AUROC: exact where all scores fit, else by a histogram with a stated bound (SPEC section 4)."""

import torch
from torch import Tensor

from errors import UserError

EXACT_LIMIT = 2**23  # scores that are sorted; more go into a histogram, so many at a time
FLOAT_COUNTS = 2**24  # torch.histc counts in float32, which holds whole numbers up to here
AREA_CHUNK = 2**20  # places whose counts are multiplied at once
NOT_FINITE = "a score is not finite; run again with --precision fp32 and check the images"
BINS = 2**24  # of [0, 1]: as fine as float32 is in its upper half


def image_auroc(scores: Tensor, labels: Tensor) -> float:
    """AUROC of one score an image: scores [n], labels [n] in {0, 1}. Raises UserError as `auroc` does."""
    from sklearn.metrics import roc_auc_score  # slow to import, and needed once a test

    check(scores, labels)
    return float(roc_auc_score(labels.cpu().numpy(), scores.cpu().numpy()))


def check_labels(abnormal: int, normal: int) -> None:
    """Raise UserError if a label is missing."""
    if not (abnormal and normal):
        raise UserError(
            f"AUROC needs both labels: got {abnormal} abnormal and {normal} normal; check the test folder and its masks"
        )


def check(scores: Tensor, labels: Tensor) -> None:
    """Raise UserError if a label is missing or a score is not finite."""
    abnormal = int(labels.sum())
    check_labels(abnormal, len(labels) - abnormal)
    if not torch.isfinite(scores).all():
        raise UserError(NOT_FINITE)


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve of scores [n] and labels [n] (bool or {0, 1}); ties count half.

    Equals sklearn.metrics.roc_auc_score. Raises UserError if a label is missing or a score is not finite.
    """
    labels = labels.bool()
    check(scores, labels)
    _, place = torch.unique(scores, return_inverse=True)
    positives = torch.bincount(place[labels], minlength=int(place.max()) + 1)
    negatives = torch.bincount(place[~labels], minlength=len(positives))
    return area(positives, negatives)[0]


def area(positives: Tensor, negatives: Tensor) -> tuple[float, float]:
    """AUROC from counts by rising score, and the most by which ties within a count can have moved it.

    Integer counts [n]. Every pair of a positive and a negative in one place counts half, so no order inside the places
    could change the area by more than half of those pairs.
    """
    p, n = int(positives.sum()), int(negatives.sum())
    check_labels(p, n)
    won, tied, below = 0.0, 0.0, 0
    for abnormal, normal in zip(positives.split(AREA_CHUNK), negatives.split(AREA_CHUNK), strict=True):
        ranks = normal.cumsum(0, dtype=torch.float64).sub_(normal).add_(below)  # normal scores below each place
        won += float((abnormal * ranks).sum())
        tied += float((abnormal.double() * normal).sum()) / 2
        below += int(normal.sum())
    return (won + tied) / (p * n), tied / (p * n)


class StreamingAUROC:
    """AUROC of scores in [0, 1] that come in blocks.

    Up to `exact_limit` scores it is exact; beyond, scores are counted in BINS bins and `bound` says by how much the
    result can differ from the exact one.
    """

    def __init__(self, exact_limit: int = EXACT_LIMIT, bins: int = BINS) -> None:
        self.exact_limit, self.bins = exact_limit, bins
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.held = 0
        self.counts: Tensor | None = None  # [2, bins]: abnormal, all
        self.bound = 0.0

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Add scores float32 in [0, 1] and labels (bool), of the same shape and device."""
        if not torch.isfinite(scores).all():
            raise UserError(NOT_FINITE)
        self.scores.append(scores.flatten())
        self.labels.append(labels.flatten())
        self.held += scores.numel()
        if self.held > self.exact_limit:
            self._spill()

    def _spill(self) -> None:
        """Count what is held, abnormal scores and all."""
        scores, labels = torch.cat(self.scores), torch.cat(self.labels)
        self.scores, self.labels, self.held = [], [], 0
        if self.counts is None:
            self.counts = torch.zeros(2, self.bins, dtype=torch.int32, device=scores.device)
        for count, chosen in zip(self.counts, (scores[labels], scores), strict=True):
            for part in chosen.float().split(FLOAT_COUNTS):
                count.add_(torch.histc(part, self.bins, 0, 1).int())

    def compute(self) -> float:
        """The AUROC of everything added. Raises UserError if a label is missing."""
        if self.counts is None:
            return auroc(torch.cat(self.scores), torch.cat(self.labels))
        if self.held:
            self._spill()
        positives, everything = self.counts
        value, self.bound = area(positives, everything - positives)
        return value
