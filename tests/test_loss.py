"""Losses against loops over numbers, gradients against finite differences."""

import math
import random

import pytest
import torch

from loss import dice_loss, focal_loss
from tests.conftest import TOLERANCE, released_objective


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
    focal = [focal_by_hand(a, b) for a, b in zip(p, m, strict=True)]
    dice = [dice_by_hand(a, b) for a, b in zip(p, m, strict=True)]
    probability = torch.tensor(p, dtype=torch.float64).view(3, 3, 4)
    mask = torch.tensor(m).view(3, 3, 4)
    close = TOLERANCE[torch.float64]
    got = (focal_loss(probability, mask), dice_loss(probability, mask))
    for values, expected in zip(got, (focal, dice), strict=True):
        torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), **close)


def bilinear(values: torch.Tensor, side: int) -> torch.Tensor:
    """Upsample one map [P, P] pixel by pixel: bilinear, corners aligned."""
    p = len(values)
    out = torch.zeros(side, side, dtype=values.dtype)
    for y in range(side):
        for x in range(side):
            fy = y * (p - 1) / (side - 1)
            fx = x * (p - 1) / (side - 1)
            y0 = min(int(fy), p - 2)
            x0 = min(int(fx), p - 2)
            dy = fy - y0
            dx = fx - x0
            top = values[y0, x0] * (1 - dx) + values[y0, x0 + 1] * dx
            bottom = values[y0 + 1, x0] * (1 - dx) + values[y0 + 1, x0 + 1] * dx
            out[y, x] = top * (1 - dy) + bottom * dy
    return out


def test_objective_equals_loops():
    g = torch.Generator().manual_seed(7)
    logits = torch.randn(2, 3, 9, generator=g, dtype=torch.float64) * 3  # [B, L, N]
    labels = torch.tensor([1.0, 0.0])
    masks = torch.rand(2, 5, 5, generator=g) < 0.4
    det = []
    seg = []
    for b in range(2):
        image = 0.0
        pixel = 0.0
        for level in range(3):
            mean = sum(1 / (1 + math.exp(-v)) for v in logits[b, level].tolist()) / 9
            sigma = 1 / (1 + math.exp(-mean))  # the probability, taken for a logit
            image -= math.log(sigma if labels[b] else 1 - sigma)
            p = bilinear(logits[b, level].view(3, 3), 5).sigmoid().flatten().tolist()
            m = masks[b].int().flatten().tolist()
            pixel += focal_by_hand(p, m) + dice_by_hand(p, m)
        det.append(image)
        seg.append(pixel)
    objective = released_objective()
    expected_det = torch.tensor(det, dtype=torch.float64)
    expected_seg = torch.tensor(seg, dtype=torch.float64)
    torch.testing.assert_close(objective.det(logits, labels), expected_det)
    torch.testing.assert_close(objective.seg(logits, masks), expected_seg)


def test_paper_objective():
    logits = torch.tensor([[[-1.0, 2.0, 0.0, 1.0]]], dtype=torch.float64)
    paper = released_objective(bce_pool="max", bce_input="probability")
    expected = -math.log(1 / (1 + math.exp(-2.0)))
    assert paper.det(logits, torch.ones(1)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "objective",
    [released_objective(), released_objective(bce_pool="max", bce_input="probability")],
    ids=["released", "paper"],
)
def test_gradients(objective):
    g = torch.Generator().manual_seed(8)
    # token features of two images, four patches each
    tokens = torch.randn(2, 5, 6, generator=g, dtype=torch.float64, requires_grad=True)
    text = torch.randn(6, 2, generator=g, dtype=torch.float64)
    masks = torch.rand(2, 4, 4, generator=g) < 0.5
    labels = torch.tensor([0.0, 1.0])

    def loss(t: torch.Tensor) -> torch.Tensor:
        normed = torch.nn.functional.normalize(t[:, 1:], dim=-1)
        logits = (normed @ (text[:, 1] - text[:, 0]))[:, None]  # [B, 1, N]
        return objective.det(logits, labels) + objective.seg(logits, masks)

    assert torch.autograd.gradcheck(loss, (tokens,))
