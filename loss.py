"""Focal loss, Dice loss and the objective of MVFA (SPEC section 4)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mvfa.scoring import image_score, upsample

FOCAL_POWER = 2
FOCAL_SMOOTH = 1e-5  # clamps the one-hot target, and is added to its probability
DICE_SMOOTH = 1.0


def focal_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Two-class focal loss, one value an image: probability of "abnormal" and mask {0, 1}, [B, ...] -> [B].

    The one-hot target t is clamped to [1e-5, 1 - 1e-5], pt = sum(t * p) + 1e-5, mean of -(1 - pt)^2 log pt.
    """
    target = mask.to(probability.dtype).clamp(FOCAL_SMOOTH, 1 - FOCAL_SMOOTH)
    pt = target * probability + (1 - target) * (1 - probability) + FOCAL_SMOOTH
    return (-((1 - pt) ** FOCAL_POWER) * pt.log()).flatten(1).mean(dim=1)


def dice_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """1 - (2 sum(p m) + 1) / (sum p + sum m + 1), one value an image: [B, ...] twice -> [B]."""
    p, m = probability.flatten(1), mask.to(probability.dtype).flatten(1)
    return 1 - (2 * (p * m).sum(dim=1) + DICE_SMOOTH) / (p.sum(dim=1) + m.sum(dim=1) + DICE_SMOOTH)


@dataclass(frozen=True)
class Objective:
    """Loss of a batch. The defaults are the released code's: a probability goes to a loss that expects a logit."""

    bce_pool: str = "mean"  # of the patch probabilities: "mean" or "max"
    bce_input: str = "logit"  # what the pooled probability is taken for: "logit" or "probability"

    def det(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Image loss, summed over levels: logit differences [B, L, N], labels [B] in {0, 1} -> [B]."""
        pooled = image_score(logits.sigmoid(), self.bce_pool)  # [B, L]
        target = labels.to(pooled.dtype)[:, None].expand_as(pooled)
        bce = (
            F.binary_cross_entropy_with_logits
            if self.bce_input == "logit"
            else F.binary_cross_entropy
        )
        return bce(pooled, target, reduction="none").sum(dim=1)

    def seg(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Pixel loss, summed over levels: logit differences [B, L, N], masks [B, S, S] in {0, 1} -> [B]."""
        levels = upsample(logits, masks.shape[-1]).sigmoid().unbind(dim=1)  # each [B, S, S]
        return torch.stack(
            [focal_loss(level, masks) + dice_loss(level, masks) for level in levels]
        ).sum(dim=0)
