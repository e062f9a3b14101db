"""Every metric of a scored test set beside AUROC, for each branch: text, memory, both.

Letters: n images, B images of a block, S image side.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvfa.evaluation import Evaluation, Maps
from mvfa.histograms import Histogram, StreamingHistogram, exact_histogram
from mvfa.memory import large_blocks_returned
from mvfa.metrics import aupro, auroc, average_precision, best_f1, f1_at, rates
from mvfa.predictions import Predictions

BRANCHES = ("text", "memory", "both")
CURVES = ("roc", "pr")
POINTS = 200  # of a stored curve
INTERVAL = (0.025, 0.975)  # quantiles of resampled metrics


def curves(histogram: Histogram) -> dict[str, list[list[float]]]:
    """Return ROC as [false, true positive rate] and precision-recall as [recall, precision].

    POINTS points at most, evenly spaced along the ROC curve.
    """
    true, false = rates(histogram)
    seen = true + false > 0
    tpr = (true / true[-1])[seen]
    fpr = (false / false[-1])[seen]
    precision = (true / (true + false))[seen]
    along = tpr + fpr
    even = torch.linspace(float(along[0]), 2, POINTS, dtype=along.dtype, device=along.device)
    chosen = torch.searchsorted(along, even).clamp_max(len(along) - 1).unique()

    def points(x: Tensor, y: Tensor) -> list[list[float]]:
        pairs = zip(x[chosen].tolist(), y[chosen].tolist(), strict=True)
        return [[round(a, 6), round(b, 6)] for a, b in pairs]

    return {"roc": [[0.0, 0.0], *points(fpr, tpr)], "pr": points(tpr, precision)}


def bootstrap(scores: Tensor, labels: Tensor, resamples: int, seed: int) -> dict[str, list[float]]:
    """Return 95 % intervals of AUROC and average precision of one run.

    scores [n], labels [n] bool. Images are resampled with replacement, normal and abnormal ones
    apart. This is the spread over test images, not over trainings.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = [(labels == state).nonzero().squeeze(1) for state in (False, True)]
    metrics = []
    for _ in range(resamples):
        drawn = [g[torch.randint(len(g), (len(g),), generator=generator)] for g in groups]
        rows = torch.cat(drawn)
        histogram = exact_histogram(scores[rows], labels[rows])
        metrics.append((auroc(histogram)[0], average_precision(histogram)))
    low, high = np.quantile(np.array(metrics), INTERVAL, axis=0)
    names = ("auroc", "average_precision")
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(names)}


def image_details(scores: Tensor, labels: Tensor, threshold: float | None) -> dict[str, Any]:
    """Return metrics of one score an image: scores [n] in [0, 1], labels [n] bool.

    Scores at or above the threshold count as abnormal. Without a threshold it is the one with the
    best F1 on these very images: an oracle.
    """
    from sklearn.metrics import (  # slow to import, and needed once a test
        average_precision_score,
        roc_auc_score,
    )

    histogram = exact_histogram(scores, labels)
    highest, best = best_f1(histogram)
    chosen = scores >= (best if threshold is None else threshold)
    return {
        "auroc": float(roc_auc_score(labels.numpy(), scores.numpy())),
        "average_precision": float(average_precision_score(labels.numpy(), scores.numpy())),
        "best_f1": highest,
        "threshold": best if threshold is None else threshold,
        "sensitivity": float(chosen[labels].double().mean()),
        "specificity": float((~chosen[~labels]).double().mean()),
        **curves(histogram),
    }


def region_weights(masks: Tensor) -> Tensor:
    """Return, for every foreground pixel of masks [B, S, S] bool in order, 1 / its region's size.

    A region is a connected one; pixels that touch at a corner are connected.
    """
    import cv2  # slow to import, and needed once a test

    weights = []
    for mask in masks.numpy():
        _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
        weights.append(1.0 / stats[:, cv2.CC_STAT_AREA][regions[mask]])
    return torch.from_numpy(np.concatenate(weights))


def pixel_details(histogram: Histogram, threshold: float | None) -> dict[str, Any]:
    """Return metrics of pixels.

    Without a threshold, Dice is the best that any threshold gives on these very images.
    """
    highest, best = best_f1(histogram)
    return {
        "auroc": auroc(histogram)[0],
        "average_precision": average_precision(histogram),
        "aupro": aupro(histogram),
        "dice": highest if threshold is None else f1_at(histogram, threshold),
        "threshold": best if threshold is None else threshold,
        **curves(histogram),
    }


def measure_pixels(predictions: Predictions, threshold: float | None) -> dict[str, Any]:
    """Return metrics of the pixels of a test set with masks, by branch.

    Without a memory branch, "both" is "text".
    """
    used = BRANCHES if predictions.distance is not None else BRANCHES[:1]
    histograms = {branch: StreamingHistogram() for branch in used}
    for block, maps in Maps(predictions):
        masks = predictions.block_masks(block)
        weights = region_weights(masks)
        by_branch = dict(zip(BRANCHES, maps, strict=True))
        for branch, histogram in histograms.items():
            scores = by_branch[branch]
            assert scores is not None
            histogram.update(scores, masks.to(scores.device), weights.to(scores.device))
    details: dict[str, Any] = dict.fromkeys(BRANCHES)
    for branch, histogram in histograms.items():
        details[branch] = pixel_details(histogram.histogram(), threshold)
    details["both"] = details["both"] or details["text"]
    return details


@large_blocks_returned()
def measure(
    evaluation: Evaluation,
    predictions: Predictions,
    *,
    threshold: float | None = None,
    resamples: int = 1_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return all metrics of a scored test set, by images and (with masks) by pixels.

    Each is there for the branches text, memory and both; memory is None in zero-shot.
    """
    labels = predictions.labels.bool()

    def of_images(scores: Tensor) -> dict[str, Any]:
        interval = bootstrap(scores, labels, resamples, seed) if resamples else None
        return image_details(scores, labels, threshold) | {"interval": interval}

    images: dict[str, Any] = {"text": of_images(evaluation.text_scores), "memory": None}
    images["both"] = images["text"]
    if evaluation.memory_scores is not None:
        images["memory"] = of_images(evaluation.memory_scores)
        images["both"] = of_images(evaluation.scores)
    with_masks = predictions.masks is not None
    return {
        "image": images,
        "pixel": measure_pixels(predictions, threshold) if with_masks else None,
    }


def split_curves(details: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split what `measure` returns into metrics and curves, both by granularity and branch."""
    metrics: dict[str, Any] = {}
    split: dict[str, Any] = {}
    for granularity, branches in details.items():
        metrics[granularity] = None
        split[granularity] = None
        if branches is None:
            continue
        metrics[granularity] = dict.fromkeys(branches)
        split[granularity] = dict.fromkeys(branches)
        for branch, values in branches.items():
            if values is not None:
                metrics[granularity][branch] = {
                    name: value for name, value in values.items() if name not in CURVES
                }
                split[granularity][branch] = {name: values[name] for name in CURVES}
    return metrics, split
