"""Every metric of a scored test set beside AUROC, for each branch: text, memory, both.

Letters: n images, B images of a block, S image side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvfa.evaluation import Evaluation, Maps
from mvfa.histograms import Histogram, StreamingHistogram, exact_histogram
from mvfa.intervals import binomial_interval, bootstrap_cases, bootstrap_images
from mvfa.memory import large_blocks_returned
from mvfa.metrics import (
    OPERATING_POINT,
    aupro,
    auroc,
    average_precision,
    best_f1,
    f1_at,
    rates,
    sensitivity_at,
    specificity_at,
)
from mvfa.predictions import Predictions
from mvfa.run_schema import CURVE_NAMES
from mvfa.strata import within

BRANCHES = ("text", "memory", "both")
POINTS = 200  # of a stored curve


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


def operating_points(histogram: Histogram) -> dict[str, Any]:
    """Return sensitivity at 95 % specificity and the reverse, each with its 95 % interval.

    The intervals are those of shares of independent images (Clopper and Pearson, 1934), at
    thresholds that were chosen on these very images.
    """
    measures = {
        f"sensitivity_at_{OPERATING_POINT}_specificity": sensitivity_at(histogram),
        f"specificity_at_{OPERATING_POINT}_sensitivity": specificity_at(histogram),
    }
    found: dict[str, Any] = {}
    for name, (hits, count) in measures.items():
        found[name] = hits / count
        found[f"{name}_interval"] = list(binomial_interval(hits, count))
    return found


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
        **operating_points(histogram),
        **curves(histogram),
    }


def case_details(
    scores: Tensor,
    labels: Tensor,
    cases: Sequence[str | None],
    slices: Sequence[int | None],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the intervals over cases, and AUROCs within cases and within slice numbers.

    scores [n], labels [n] bool; None where no case, or no slice number, is known.
    """
    values: dict[str, Any] = dict.fromkeys(("interval_by_case", "within_case", "within_slice"))
    if any(case is not None for case in cases):
        values["within_case"] = within(scores, labels, cases).as_dict()
        if resamples:
            values["interval_by_case"] = bootstrap_cases(scores, labels, cases, resamples, seed)
    if any(number is not None for number in slices):
        values["within_slice"] = within(scores, labels, slices).as_dict()
    return values


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

    A branch that the method does not have is None; "both" is then the other one.
    """
    there = (predictions.logits is not None, predictions.distance is not None)
    used = BRANCHES if all(there) else BRANCHES[:1] if there[0] else BRANCHES[1:2]
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
    details["both"] = details["both"] or details["text"] or details["memory"]
    return details


@large_blocks_returned()
def measure(
    evaluation: Evaluation,
    predictions: Predictions,
    *,
    threshold: float | None = None,
    resamples: int = 1_000,
    seed: int = 0,
    cases: Sequence[str | None] = (),
    slices: Sequence[int | None] = (),
) -> dict[str, Any]:
    """Return all metrics of a scored test set, by images and (with masks) by pixels.

    Each is there for the branches text, memory and both; one that the method does not have is None,
    and both is the other. `cases` and
    `slices` hold the case and the slice number of each image, None where one is unknown; empty:
    none is known.
    """
    labels = predictions.labels.bool()

    def of_images(scores: Tensor) -> dict[str, Any]:
        return {
            **image_details(scores, labels, threshold),
            "interval": bootstrap_images(scores, labels, resamples, seed) if resamples else None,
            **case_details(scores, labels, cases, slices, resamples, seed),
        }

    text = evaluation.text_scores
    memory = evaluation.memory_scores
    images: dict[str, Any] = dict.fromkeys(BRANCHES)
    images["text"] = None if text is None else of_images(text)
    images["memory"] = None if memory is None else of_images(memory)
    images["both"] = images["text"] or images["memory"]
    if images["text"] and images["memory"]:
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
                    name: value for name, value in values.items() if name not in CURVE_NAMES
                }
                split[granularity][branch] = {name: values[name] for name in CURVE_NAMES}
    return metrics, split
