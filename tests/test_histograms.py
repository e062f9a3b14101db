"""Histograms: exact ones, adaptive bins, and the bound that streaming ones state."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from errors import UserError
from mvfa.histograms import AdaptiveBins, StreamingHistogram, exact_histogram
from mvfa.metrics import auroc
from tests.scored_sets import scored_sets


def test_equal_scores_share_a_bin():
    scores = torch.tensor([0.5, 0.25, 0.5, 1.0, 0.25])
    labels = torch.tensor([True, False, False, True, True])
    weights = torch.tensor([0.5, 1.0, 0.25])
    histogram = exact_histogram(scores, labels, weights)
    assert histogram.thresholds.tolist() == [0.25, 0.5, 1.0]
    assert histogram.positives.tolist() == [1, 1, 1]
    assert histogram.negatives.tolist() == [1, 1, 0]
    assert histogram.region_weights.tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("name", ["smooth", "ties", "constant", "separable"])
@pytest.mark.parametrize("limit", [10_000, 50, 0])
def test_streaming_histograms(name, limit):
    scores, labels = scored_sets()[name]
    streaming = StreamingHistogram(limit)
    for first in range(0, 400, 100):
        part = slice(first, first + 100)
        streaming.update(scores[part].view(10, 10), labels[part].view(10, 10))
    histogram = streaming.histogram()
    area, bound = auroc(histogram)
    assert histogram.exact == (limit > 400)
    assert abs(area - roc_auc_score(labels.numpy(), scores.numpy())) <= bound + 1e-12
    if name == "smooth":  # elsewhere ties count into the bound
        assert bound <= 1e-3


def test_bins_are_in_the_order_of_the_scores():
    g = torch.Generator().manual_seed(8)
    special = torch.tensor([0.0, 1.0, 0.5, 1e-30, 1e-40])
    scores = torch.cat([torch.rand(3_000, generator=g) ** 8, special]).sort().values
    bins = AdaptiveBins(torch.rand(500, generator=g) ** 2, 4_096)
    # compared by their bits: a run in this process may have made numbers next to zero equal to it
    index = bins.index(scores).long()
    lowest = bins.thresholds().view(torch.int32)
    bits = scores.view(torch.int32)
    assert (index.diff() >= 0).all()
    assert index.max() < bins.total == len(lowest)
    assert (lowest.diff() > 0).all()
    assert (lowest[index] <= bits).all()
    below = index + 1 < bins.total
    assert (bits[below] < lowest[(index + 1)[below]]).all()


def test_the_bound_holds_where_the_sample_misled():
    g = torch.Generator().manual_seed(4)
    first = torch.rand(50, generator=g) * 0.1
    first_labels = torch.zeros(50, dtype=torch.bool)
    coarse = StreamingHistogram(exact_limit=0, bins=16)
    coarse.update(first, first_labels)
    labels = torch.rand(5_000, generator=g) < 0.1
    scores = 0.7 + (torch.rand(5_000, generator=g) * 0.6 + 0.4 * labels) * 0.01
    coarse.update(scores, labels)
    area, bound = auroc(coarse.histogram())
    truth = roc_auc_score(
        torch.cat([first_labels, labels]).numpy(), torch.cat([first, scores]).numpy()
    )
    assert 0 < abs(area - truth) <= bound < 0.1


def test_zeros_of_either_sign_and_numbers_next_to_zero_are_counted():
    scores = torch.tensor([0.0, -0.0, 1e-40, 1e-39, 0.2, 1.0])
    labels = torch.tensor([False, True, False, True, False, True])
    streaming = StreamingHistogram(exact_limit=0)
    streaming.update(scores, labels)
    histogram = streaming.histogram()
    assert int(histogram.positives.sum()) == int(histogram.negatives.sum()) == 3
    area, bound = auroc(histogram)
    assert abs(area - roc_auc_score(labels.numpy(), scores.numpy())) <= bound + 1e-12


@pytest.mark.parametrize("shape", ["narrow", "saturated", "even"])
def test_many_pixels_keep_the_stated_bound(shape):
    """Also where nearly all scores are below 1e-10, as those of a confident model are."""
    g = torch.Generator().manual_seed(5)
    streaming = StreamingHistogram(exact_limit=100_000)
    blocks = []
    for _ in range(8):
        labels = torch.rand(100_000, generator=g) < 0.02
        noise = torch.randn(100_000, generator=g)
        scores = {
            "narrow": (noise * 0.01 + 0.1 + 0.01 * labels).clamp(0, 1),
            "saturated": (noise * 6 - 30 + 8 * labels).sigmoid(),
            "even": torch.rand(100_000, generator=g) ** (1 - 0.5 * labels.float()),
        }[shape]
        streaming.update(scores, labels)
        blocks.append((scores, labels))
    scores, labels = (torch.cat(column) for column in zip(*blocks, strict=True))
    area, bound = auroc(streaming.histogram())
    assert abs(area - roc_auc_score(labels.numpy(), scores.numpy())) <= bound <= 1e-6


def test_nothing_is_held_but_counts():
    """Whatever the number of scores, once there are more than the limit."""
    g = torch.Generator().manual_seed(6)
    sizes = []
    streaming = StreamingHistogram(exact_limit=1_000, bins=4_096)
    for _ in range(6):
        scores = torch.rand(400, generator=g)
        labels = torch.rand(400, generator=g) < 0.5
        streaming.update(scores, labels, torch.ones(int(labels.sum())))
        if streaming.bins is not None:
            assert streaming.held == []
            assert streaming.region_weights is not None
            sizes.append((streaming.counts.numel(), streaming.region_weights.numel()))
    assert len(sizes) == 4
    assert len(set(sizes)) == 1
    histogram = streaming.histogram()
    assert int(histogram.positives.sum() + histogram.negatives.sum()) == 2_400
    assert float(histogram.region_weights.sum()) == int(histogram.positives.sum())


@pytest.mark.parametrize("unit", ["images", "pixels"])
def test_one_label_or_nan_is_refused(unit):
    with pytest.raises(UserError, match=f"needs both labels: got 0 abnormal and 3 normal {unit}"):
        exact_histogram(torch.rand(3), torch.zeros(3).bool(), unit=unit)
    with pytest.raises(UserError, match="not finite"):
        exact_histogram(torch.tensor([0.1, math.nan]), torch.tensor([False, True]), unit=unit)


@pytest.mark.parametrize("value", [math.inf, math.nan, -0.1, 1.1])
def test_streaming_refuses_what_is_no_score(value):
    with pytest.raises(UserError, match="not finite or not in"):
        StreamingHistogram().update(torch.tensor([0.5, value]), torch.tensor([True, False]))


@pytest.mark.parametrize("limit", [1, 100])
def test_streaming_refuses_one_label(limit):
    streaming = StreamingHistogram(exact_limit=limit)
    streaming.update(torch.rand(5), torch.zeros(5, dtype=torch.bool))
    with pytest.raises(UserError, match="both labels"):
        streaming.histogram()
