"""Everything that is measured of a scored test set beside AUROC, for each branch: text, memory, both.

Letters: n images, B of a block, S image side.
"""

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from mvfa.engine import Predictions
from mvfa.evaluation import Evaluation, Maps
from mvfa.features import FeatureLoader
from mvfa.histograms import Histogram, StreamingHistogram, count
from mvfa.metrics import aupro, auroc, average_precision, best_f1, f1_at, rates
from utils import large_blocks_returned

BRANCHES = ("text", "memory", "both")
POINTS = 200  # of a stored curve
INTERVAL = (0.025, 0.975)  # quantiles of resampled figures


def curves(counts: Histogram) -> dict[str, list[list[float]]]:
    """ROC as [false positive rate, true positive rate] and precision-recall as [recall, precision].

    POINTS points at most, evenly spaced along the ROC curve.
    """
    true, false = rates(counts)
    seen = true + false > 0
    tpr, fpr = (true / true[-1])[seen], (false / false[-1])[seen]
    precision = (true / (true + false))[seen]
    along = tpr + fpr
    even = torch.linspace(float(along[0]), 2, POINTS, dtype=along.dtype, device=along.device)
    keep = torch.searchsorted(along, even).clamp_max(len(along) - 1).unique()

    def pairs(x: Tensor, y: Tensor) -> list[list[float]]:
        return [
            [round(a, 6), round(b, 6)]
            for a, b in zip(x[keep].tolist(), y[keep].tolist(), strict=True)
        ]

    return {"roc": [[0.0, 0.0], *pairs(fpr, tpr)], "pr": pairs(tpr, precision)}


def bootstrap(scores: Tensor, labels: Tensor, resamples: int, seed: int) -> dict[str, list[float]]:
    """95 % intervals of AUROC and average precision of one run: scores [n], labels [n] bool.

    Images are drawn again with replacement, normal and abnormal ones apart. This is the spread over test images, not
    over trainings.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = [(labels == state).nonzero().squeeze(1) for state in (False, True)]
    found = []
    for _ in range(resamples):
        drawn = torch.cat(
            [g[torch.randint(len(g), (len(g),), generator=generator)] for g in groups]
        )
        counts = count(scores[drawn], labels[drawn])
        found.append((auroc(counts)[0], average_precision(counts)))
    low, high = np.quantile(np.array(found), INTERVAL, axis=0)
    names = ("auroc", "average_precision")
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(names)}


def image_details(scores: Tensor, labels: Tensor, threshold: float | None) -> dict[str, Any]:
    """Metrics of one score an image: scores [n] in [0, 1], labels [n] bool. A score at the threshold is abnormal.

    Without a threshold it is the one with the best F1 on these very images: an oracle.
    """
    from sklearn.metrics import (  # slow to import, and needed once a test
        average_precision_score,
        roc_auc_score,
    )

    counts = count(scores, labels)
    highest, best = best_f1(counts)
    chosen = scores >= (best if threshold is None else threshold)
    return {
        "auroc": float(roc_auc_score(labels.numpy(), scores.numpy())),
        "average_precision": float(average_precision_score(labels.numpy(), scores.numpy())),
        "best_f1": highest,
        "threshold": best if threshold is None else threshold,
        "sensitivity": float(chosen[labels].double().mean()),
        "specificity": float((~chosen[~labels]).double().mean()),
        **curves(counts),
    }


def region_shares(masks: Tensor) -> Tensor:
    """For every foreground pixel of masks [B, S, S] bool, in order, 1 / the size of its connected region.

    Pixels that touch at a corner are connected.
    """
    shares = []
    for mask in masks.numpy():
        _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
        shares.append(1.0 / stats[:, cv2.CC_STAT_AREA][regions[mask]])
    return torch.from_numpy(np.concatenate(shares))


def pixel_details(counts: Histogram, threshold: float | None) -> dict[str, Any]:
    """Metrics of pixels. Without a threshold, Dice is the best that any threshold gives on these very images."""
    highest, best = best_f1(counts)
    return {
        "auroc": auroc(counts)[0],
        "average_precision": average_precision(counts),
        "aupro": aupro(counts),
        "dice": highest if threshold is None else f1_at(counts, threshold),
        "threshold": best if threshold is None else threshold,
        **curves(counts),
    }


def pixels(found: Predictions, streams: FeatureLoader, threshold: float | None) -> dict[str, Any]:
    """Metrics of the pixels of a test set with masks, by branch; without a memory branch both is text."""
    maps, used = (
        Maps(found, streams.source.side),
        BRANCHES if found.distance is not None else BRANCHES[:1],
    )
    counters = {branch: StreamingHistogram() for branch in used}
    for block, values in maps:
        masks = streams.masks(range(len(streams))[block])
        shares = region_shares(masks)
        named = dict(zip(BRANCHES, values, strict=True))
        for branch, counter in counters.items():
            scores = named[branch]
            assert scores is not None
            counter.update(scores, masks.to(scores.device), shares.to(scores.device))
    measured = {
        branch: pixel_details(counter.counts(), threshold) for branch, counter in counters.items()
    }
    return {
        "text": measured["text"],
        "memory": measured.get("memory"),
        "both": measured.get("both", measured["text"]),
    }


@large_blocks_returned()
def measure(
    evaluation: Evaluation,
    found: Predictions,
    streams: FeatureLoader,
    *,
    threshold: float | None = None,
    resamples: int = 1_000,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics of a scored test set, by images and (with masks) by pixels, each for text, memory and both."""
    labels = streams.source.labels.bool()

    def images(scores: Tensor) -> dict[str, Any]:
        interval = bootstrap(scores, labels, resamples, seed) if resamples else None
        return image_details(scores, labels, threshold) | {"interval": interval}

    text, memory = images(evaluation.text_scores), None
    both = text
    if evaluation.memory_scores is not None:
        memory, both = images(evaluation.memory_scores), images(evaluation.scores)
    return {
        "image": {"text": text, "memory": memory, "both": both},
        "pixel": pixels(found, streams, threshold) if found.masks else None,
    }
