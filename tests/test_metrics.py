"""AUROCs against scikit-learn and a count of pairs; losses against loops; gradients against finite differences."""

import math
import random

import pytest
import torch
from sklearn.metrics import roc_auc_score

from errors import UserError
from loss import Objective, dice_loss, focal_loss
from mvfa import scoring
from mvfa.histograms import Bins, Histogram, StreamingHistogram, count
from mvfa.metrics import auroc, image_auroc
from tests.conftest import TOLERANCE


def cases() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Scores and labels: smooth, with ties, constant, and in half precision."""
    g = torch.Generator().manual_seed(3)
    labels = torch.rand(400, generator=g) < 0.3
    smooth = torch.rand(400, generator=g)
    return {
        "smooth": (smooth, labels),
        "ties": ((smooth * 7).round() / 7, labels),
        "constant": (torch.full((400,), 0.5), labels),
        "half": (smooth.half(), labels),
        "separable": (labels.float(), labels),
    }


def pairs(scores, labels) -> float:
    """AUROC by counting every pair of a positive and a negative."""
    won = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[labels].tolist()
        for n in scores[~labels].tolist()
    ]
    return sum(won) / len(won)


@pytest.mark.parametrize("name", cases())
def test_auroc_equals_sklearn_and_pairs(name):
    scores, labels = cases()[name]
    expected = roc_auc_score(labels.numpy(), scores.numpy())
    assert pairs(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert auroc(count(scores, labels)) == (pytest.approx(expected, abs=1e-12), 0)
    assert image_auroc(scores.float(), labels.float()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["smooth", "ties", "constant", "separable"])
@pytest.mark.parametrize("limit", [10_000, 50, 0])
def test_streaming_counts(name, limit):
    scores, labels = cases()[name]
    streaming = StreamingHistogram(limit)
    for part in range(0, 400, 100):
        streaming.update(
            scores[part : part + 100].view(10, 10), labels[part : part + 100].view(10, 10)
        )
    found, bound = auroc(counts := streaming.counts())
    assert counts.exact == (limit > 400)
    assert abs(found - roc_auc_score(labels.numpy(), scores.numpy())) <= bound + 1e-12
    if name == "smooth":  # elsewhere ties count into the bound
        assert bound <= 1e-3


def test_bins_are_in_the_order_of_the_scores():
    g = torch.Generator().manual_seed(8)
    scores = (
        torch.cat(
            [torch.rand(3_000, generator=g) ** 8, torch.tensor([0.0, 1.0, 0.5, 1e-30, 1e-40])]
        )
        .sort()
        .values
    )
    bins = Bins(torch.rand(500, generator=g) ** 2, 4_096)
    # compared by their bits, since a run in this process may have made numbers next to zero equal to it
    index, lowest, bits = (
        bins.index(scores).long(),
        bins.thresholds().view(torch.int32),
        scores.view(torch.int32),
    )
    assert (index.diff() >= 0).all()
    assert index.max() < bins.total == len(lowest)
    assert (lowest.diff() > 0).all()
    assert (lowest[index] <= bits).all()
    below = index + 1 < bins.total
    assert (bits[below] < lowest[(index + 1)[below]]).all()


def test_the_bound_holds_where_the_sample_misled():
    g = torch.Generator().manual_seed(4)
    coarse = StreamingHistogram(exact_limit=0, bins=16)
    coarse.update(torch.rand(50, generator=g) * 0.1, torch.zeros(50, dtype=torch.bool))
    labels = torch.rand(5_000, generator=g) < 0.1
    scores = 0.7 + (torch.rand(5_000, generator=g) * 0.6 + 0.4 * labels) * 0.01
    coarse.update(scores, labels)
    found, bound = auroc(coarse.counts())
    first = torch.rand(50, generator=torch.Generator().manual_seed(4)) * 0.1
    truth = roc_auc_score(
        torch.cat([torch.zeros(50).bool(), labels]).numpy(), torch.cat([first, scores]).numpy()
    )
    assert 0 < abs(found - truth) <= bound < 0.1


def test_zeros_of_either_sign_and_numbers_next_to_zero_are_counted():
    scores = torch.tensor([0.0, -0.0, 1e-40, 1e-39, 0.2, 1.0])
    labels = torch.tensor([False, True, False, True, False, True])
    streaming = StreamingHistogram(exact_limit=0)
    streaming.update(scores, labels)
    counts = streaming.counts()
    assert int(counts.positives.sum()) == int(counts.negatives.sum()) == 3
    found, bound = auroc(counts)
    assert abs(found - roc_auc_score(labels.numpy(), scores.numpy())) <= bound + 1e-12


@pytest.mark.parametrize("shape", ["narrow", "saturated", "even"])
def test_many_pixels_keep_the_stated_bound(shape):
    """Also where nearly all scores are below 1e-10, as those of a model that is sure."""
    g = torch.Generator().manual_seed(5)
    streaming, kept = StreamingHistogram(exact_limit=100_000), []
    for _ in range(8):
        labels = torch.rand(100_000, generator=g) < 0.02
        noise = torch.randn(100_000, generator=g)
        scores = {
            "narrow": (noise * 0.01 + 0.1 + 0.01 * labels).clamp(0, 1),
            "saturated": (noise * 6 - 30 + 8 * labels).sigmoid(),
            "even": torch.rand(100_000, generator=g) ** (1 - 0.5 * labels.float()),
        }[shape]
        streaming.update(scores, labels)
        kept.append((scores, labels))
    scores, labels = (torch.cat(column) for column in zip(*kept, strict=True))
    found, bound = auroc(streaming.counts())
    assert abs(found - roc_auc_score(labels.numpy(), scores.numpy())) <= bound <= 1e-6


def test_nothing_is_held_but_counts():
    """Whatever the number of scores, once there are more than the limit."""
    g, sizes = torch.Generator().manual_seed(6), []
    streaming = StreamingHistogram(exact_limit=1_000, bins=4_096)
    for _ in range(6):
        scores, labels = torch.rand(400, generator=g), torch.rand(400, generator=g) < 0.5
        streaming.update(scores, labels, torch.ones(int(labels.sum())))
        if streaming.found is not None:
            assert streaming.held == []
            assert streaming.shares is not None
            sizes.append((streaming.counted.numel(), streaming.shares.numel()))
    assert len(sizes) == 4
    assert len(set(sizes)) == 1
    counts = streaming.counts()
    assert int(counts.positives.sum() + counts.negatives.sum()) == 2_400
    assert float(counts.shares.sum()) == int(counts.positives.sum())


def test_one_label_or_nan_is_refused():
    for function in (lambda s, y: count(s, y.bool()), image_auroc):
        with pytest.raises(UserError, match="needs both labels: got 0 abnormal and 3 normal"):
            function(torch.rand(3), torch.zeros(3))
        with pytest.raises(UserError, match="not finite"):
            function(torch.tensor([0.1, math.nan]), torch.tensor([0, 1]))


@pytest.mark.parametrize("value", [math.inf, math.nan, -0.1, 1.1])
def test_streaming_refuses_what_is_no_score(value):
    with pytest.raises(UserError, match="not finite or not in"):
        StreamingHistogram().update(torch.tensor([0.5, value]), torch.tensor([True, False]))


@pytest.mark.parametrize("limit", [1, 100])
def test_streaming_refuses_one_label(limit):
    streaming = StreamingHistogram(exact_limit=limit)
    streaming.update(torch.rand(5), torch.zeros(5, dtype=torch.bool))
    with pytest.raises(UserError, match="both labels"):
        streaming.counts()


def test_auroc_needs_no_scores():
    counts = Histogram(
        torch.zeros(3), torch.tensor([0, 2, 1]), torch.tensor([3, 1, 0]), exact=False
    )
    area, tied = auroc(counts)
    assert area == pytest.approx((2 * 3 + 2 * 1 * 0.5 + 1 * 4) / 12)
    assert tied == pytest.approx(1 / 12)


def focal_by_hand(p: list[float], m: list[int]) -> float:
    total = 0.0
    for probability, foreground in zip(p, m, strict=True):
        target = min(max(foreground, 1e-5), 1 - 1e-5)
        pt = target * probability + (1 - target) * (1 - probability) + 1e-5
        total -= (1 - pt) ** 2 * math.log(pt)
    return total / len(p)


def dice_by_hand(p: list[float], m: list[int]) -> float:
    return 1 - (2 * sum(a * b for a, b in zip(p, m, strict=True)) + 1) / (sum(p) + sum(m) + 1)


def test_losses_equal_loops():
    generator = random.Random(6)
    p = [[generator.choice([0.0, 1.0, generator.random()]) for _ in range(12)] for _ in range(3)]
    m = [[generator.randint(0, 1) for _ in range(12)] for _ in range(3)]
    focal = torch.tensor(
        [focal_by_hand(a, b) for a, b in zip(p, m, strict=True)], dtype=torch.float64
    )
    dice = torch.tensor(
        [dice_by_hand(a, b) for a, b in zip(p, m, strict=True)], dtype=torch.float64
    )
    probability, mask = (
        torch.tensor(p, dtype=torch.float64).view(3, 3, 4),
        torch.tensor(m).view(3, 3, 4),
    )
    torch.testing.assert_close(focal_loss(probability, mask), focal, **TOLERANCE[torch.float64])
    torch.testing.assert_close(dice_loss(probability, mask), dice, **TOLERANCE[torch.float64])


def bilinear(values: torch.Tensor, side: int) -> torch.Tensor:
    """Corner-aligned bilinear upsampling of one map [P, P], pixel by pixel."""
    p, out = len(values), torch.zeros(side, side, dtype=values.dtype)
    for y in range(side):
        for x in range(side):
            fy, fx = y * (p - 1) / (side - 1), x * (p - 1) / (side - 1)
            y0, x0 = min(int(fy), p - 2), min(int(fx), p - 2)
            dy, dx = fy - y0, fx - x0
            top = values[y0, x0] * (1 - dx) + values[y0, x0 + 1] * dx
            bottom = values[y0 + 1, x0] * (1 - dx) + values[y0 + 1, x0 + 1] * dx
            out[y, x] = top * (1 - dy) + bottom * dy
    return out


def test_objective_equals_loops():
    g = torch.Generator().manual_seed(7)
    logits = torch.randn(2, 3, 9, generator=g, dtype=torch.float64) * 3  # [B, L, N]
    labels, masks = torch.tensor([1.0, 0.0]), torch.rand(2, 5, 5, generator=g) < 0.4
    det, seg = [], []
    for b in range(2):
        image = pixel = 0.0
        for level in range(3):
            mean = sum(1 / (1 + math.exp(-v)) for v in logits[b, level].tolist()) / 9
            sigma = 1 / (1 + math.exp(-mean))  # the probability, taken for a logit
            image -= math.log(sigma if labels[b] else 1 - sigma)
            p = bilinear(logits[b, level].view(3, 3), 5).sigmoid().flatten().tolist()
            m = masks[b].int().flatten().tolist()
            pixel += focal_by_hand(p, m) + dice_by_hand(p, m)
        det.append(image)
        seg.append(pixel)
    objective = Objective()
    torch.testing.assert_close(
        objective.det(logits, labels), torch.tensor(det, dtype=torch.float64)
    )
    torch.testing.assert_close(objective.seg(logits, masks), torch.tensor(seg, dtype=torch.float64))


def test_paper_objective():
    logits = torch.tensor([[[-1.0, 2.0, 0.0, 1.0]]], dtype=torch.float64)
    paper = Objective(bce_pool="max", bce_input="probability")
    expected = -math.log(1 / (1 + math.exp(-2.0)))
    assert paper.det(logits, torch.ones(1)).item() == pytest.approx(expected)


@pytest.mark.parametrize("objective", [Objective(), Objective("max", "probability")])
def test_gradients(objective):
    g = torch.Generator().manual_seed(8)
    tokens = torch.randn(
        2, 5, 6, generator=g, dtype=torch.float64, requires_grad=True
    )  # [B, 1 + N, E]
    text = torch.randn(6, 2, generator=g, dtype=torch.float64)
    masks, labels = torch.rand(2, 4, 4, generator=g) < 0.5, torch.tensor([0.0, 1.0])

    def loss(t: torch.Tensor) -> torch.Tensor:
        normed = torch.nn.functional.normalize(t[:, 1:], dim=-1)
        logits = (normed @ (text[:, 1] - text[:, 0]))[:, None]  # [B, 1, N]
        return objective.det(logits, labels) + objective.seg(logits, masks)

    assert torch.autograd.gradcheck(loss, (tokens,))


def test_two_class_softmax_is_the_sigmoid_of_the_difference():
    g = torch.Generator().manual_seed(9)
    tokens, text = [torch.randn(2, 10, 6, generator=g)], torch.randn(6, 2, generator=g)
    both = 100 * torch.nn.functional.normalize(tokens[0][:, 1:], dim=-1) @ text  # [B, N, 2]
    maps = scoring.upsample(both.transpose(1, 2), 7).softmax(dim=1)[:, 1]  # [B, S, S]
    torch.testing.assert_close(scoring.text_map(scoring.text_logits(tokens, text), 7), maps)
    many = text.expand(2, 6, 2)
    torch.testing.assert_close(scoring.text_logits(tokens, many), scoring.text_logits(tokens, text))
