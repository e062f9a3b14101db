"""Every metric beside AUROC against scikit-learn or a plain implementation, on random and on tied scores."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import (
    auc,
    average_precision_score,
    f1_score,
    precision_recall_curve,
    recall_score,
    roc_auc_score,
)

from mvfa import details
from mvfa.details import bootstrap, image_details, region_shares
from mvfa.histograms import StreamingHistogram, count
from mvfa.metrics import aupro, auroc, average_precision, best_f1, f1_at


def pixels(kind: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [12, 32, 32] in [0, 1] and masks of a few blobs, some images without any."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(12, 32, 32, generator=g)
    smooth = torch.nn.functional.avg_pool2d(noise[:, None], 7, 1, 3)[:, 0]
    masks = smooth > 0.25
    masks[:4] = False
    scores = (0.5 * smooth + 0.15 * torch.randn(12, 32, 32, generator=g) + 0.4).clamp(0, 1)
    return ((scores * 9).round() / 9 if kind == "tied" else scores), masks


def plain_aupro(scores: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Area under per-region overlap over the false positive rate, threshold by threshold, region by region."""
    regions = []
    for score, mask in zip(scores, masks, strict=True):
        labelled, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [score[labelled == i] for i in range(1, number + 1)]
    normal = scores[~masks]
    x, y = [0.0], [0.0]
    for threshold in np.unique(scores)[::-1]:
        x.append(float((normal >= threshold).mean()))
        y.append(float(np.mean([(region >= threshold).mean() for region in regions])))
    inside = [i for i, value in enumerate(x) if value <= limit]
    x_cut, y_cut = [x[i] for i in inside], [y[i] for i in inside]
    if len(inside) < len(x):
        after = len(inside)
        x_cut.append(limit)
        y_cut.append(float(np.interp(limit, [x[after - 1], x[after]], [y[after - 1], y[after]])))
    return float(auc(x_cut, y_cut)) / limit


def counted(scores: torch.Tensor, masks: torch.Tensor, limit: int):
    streaming = StreamingHistogram(exact_limit=limit)
    for s, m in zip(scores.split(3), masks.split(3), strict=True):
        streaming.update(s, m, region_shares(m))
    return streaming.counts()


@pytest.mark.parametrize("kind", ["random", "tied"])
@pytest.mark.parametrize("limit", [10**6, 0], ids=["exact", "binned"])
def test_pixel_metrics(kind, limit):
    scores, masks = pixels(kind)
    counts, s, m = counted(scores, masks, limit), scores.flatten().numpy(), masks.flatten().numpy()
    assert counts.exact == (limit > 0)
    close = pytest.approx if limit else lambda value: pytest.approx(value, abs=1e-4)
    assert auroc(counts)[0] == close(roc_auc_score(m, s))
    assert average_precision(counts) == close(average_precision_score(m, s))
    precision, recall, thresholds = precision_recall_curve(m, s)
    f1 = (2 * precision * recall / (precision + recall).clip(1e-12))[:-1]
    value, threshold = best_f1(counts)
    assert value == close(f1.max())
    assert threshold == pytest.approx(float(thresholds[f1 == f1.max()].max()), abs=1e-3)
    assert f1_at(counts, 0.6) == close(f1_score(m, s >= 0.6))
    for share in (0.05, 0.3, 1.0):
        assert aupro(counts, share) == close(plain_aupro(scores.numpy(), masks.numpy(), share))


def test_aupro_counts_regions_and_not_pixels():
    """Of a large region found and a small one missed, half is found."""
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :8, :8], masks[0, 15, 15] = True, True
    scores = torch.zeros(1, 16, 16)
    scores[0, :8, :8] = 1.0
    counts = counted(scores, masks, 10**6)
    assert float(counts.shares.sum()) == pytest.approx(2)
    # half from the start; the missed region comes in with all normal pixels, at a false positive rate of 1
    assert aupro(counts, 0.3) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = torch.eye(4, dtype=torch.bool)[None]
    assert region_shares(mask).tolist() == [0.25] * 4
    assert region_shares(torch.zeros(2, 4, 4, dtype=torch.bool)).tolist() == []


@pytest.mark.parametrize("kind", ["random", "tied"])
@pytest.mark.parametrize("threshold", [None, 0.4])
def test_image_metrics(kind, threshold):
    g = torch.Generator().manual_seed(1)
    labels = torch.rand(200, generator=g) < 0.4
    scores = (0.5 * torch.rand(200, generator=g) + 0.3 * labels).clamp(0, 1)
    scores = (scores * 8).round() / 8 if kind == "tied" else scores
    found, s, y = image_details(scores, labels, threshold), scores.numpy(), labels.numpy()
    assert found["auroc"] == roc_auc_score(y, s)
    assert found["average_precision"] == average_precision_score(y, s)
    assert found["best_f1"] == pytest.approx(max(f1_score(y, s >= t) for t in np.unique(s)))
    if threshold is None:
        assert f1_score(y, s >= found["threshold"]) == pytest.approx(found["best_f1"])
    else:
        assert found["threshold"] == threshold
    assert found["sensitivity"] == pytest.approx(recall_score(y, s >= found["threshold"]))
    assert found["specificity"] == pytest.approx(recall_score(~y, ~(s >= found["threshold"])))
    fpr, tpr = zip(*found["roc"], strict=True)
    assert auc(fpr, tpr) == pytest.approx(found["auroc"], abs=1e-3)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_curves_are_short_and_end_to_end():
    g = torch.Generator().manual_seed(2)
    labels = torch.rand(50_000, generator=g) < 0.1
    scores = (torch.rand(50_000, generator=g) * 0.7 + 0.3 * labels).clamp(0, 1)
    found = details.curves(count(scores, labels))
    assert len(found["roc"]) <= details.POINTS + 1
    assert auc(*zip(*found["roc"], strict=True)) == pytest.approx(
        roc_auc_score(labels, scores), abs=1e-3
    )
    recall, precision = zip(*found["pr"], strict=True)
    assert recall[-1] == 1
    assert precision[-1] == pytest.approx(float(labels.double().mean()), abs=1e-4)


def test_bootstrap_intervals():
    g = torch.Generator().manual_seed(3)
    widths = []
    for n in (60, 600):
        labels = torch.arange(n) % 3 == 0
        scores = (torch.rand(n, generator=g) * 0.8 + 0.2 * labels).clamp(0, 1)
        found = bootstrap(scores, labels, 300, seed=5)
        assert found == bootstrap(scores, labels, 300, seed=5)
        for name, value in (("auroc", roc_auc_score(labels, scores)), ("average_precision", None)):
            low, high = found[name]
            assert 0 <= low < high <= 1
            assert value is None or low < value < high
        widths.append(found["auroc"][1] - found["auroc"][0])
    assert widths[1] < widths[0] / 2
