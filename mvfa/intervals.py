"""Intervals of one run's metrics: bootstrap over images or over cases, and of a share.

All are spreads over test images or patients, not over trainings. Letters: n images, C cases.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvfa.histograms import exact_histogram
from mvfa.metrics import auroc, average_precision
from mvfa.strata import case_numbers

LEVEL = 0.95  # of every interval
METRICS = ("auroc", "average_precision")  # that are resampled


def measured(scores: Tensor, labels: Tensor, rows: Tensor) -> tuple[float, float]:
    """Return AUROC and average precision of some images, rows [n]; an image may be there twice."""
    histogram = exact_histogram(scores[rows], labels[rows])
    return auroc(histogram)[0], average_precision(histogram)


def interval(metrics: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
    """Return the interval of each of METRICS: quantiles of its resampled values (Efron, 1979)."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.array(metrics), (tail, 1 - tail), axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(METRICS)}


def bootstrap_images(
    scores: Tensor, labels: Tensor, resamples: int, seed: int
) -> dict[str, list[float]]:
    """Return 95 % intervals of AUROC and average precision, as if images were independent.

    scores [n], labels [n] bool. Images are resampled with replacement, normal and abnormal ones
    apart.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = [(labels == state).nonzero().squeeze(1) for state in (False, True)]
    metrics = []
    for _ in range(resamples):
        drawn = [g[torch.randint(len(g), (len(g),), generator=generator)] for g in groups]
        metrics.append(measured(scores, labels, torch.cat(drawn)))
    return interval(metrics)


def bootstrap_cases(
    scores: Tensor, labels: Tensor, cases: Sequence[str | None], resamples: int, seed: int
) -> dict[str, Any] | None:
    """Return 95 % intervals of AUROC and average precision over cases (patients).

    scores [n], labels [n] bool. Cases are resampled with replacement, each with all its images; an
    image without a case is a case of its own. Resamples whose images have one label only are left
    out. The result also has `cases`, C, and `resamples`, the number of those used. None if there is
    one case, or if no resample has both labels.
    """
    numbers = torch.from_numpy(case_numbers(cases))  # [n]
    count = int(numbers.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    metrics = []
    for _ in range(resamples if count > 1 else 0):
        times = torch.randint(count, (count,), generator=generator).bincount(minlength=count)  # [C]
        rows = torch.repeat_interleave(times[numbers])
        if 0 < int(labels[rows].sum()) < len(rows):
            metrics.append(measured(scores, labels, rows))
    if not metrics:
        return None
    return interval(metrics) | {"cases": count, "resamples": len(metrics)}


def binomial_interval(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the two-sided interval of a share, hits / n with n > 0 (Clopper and Pearson, 1934).

    It covers the true share with a probability of at least `level`.
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = beta.ppf(tail, hits, n - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)
