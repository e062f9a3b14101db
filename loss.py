"""Focal loss, Dice loss and the training objective of MVFA (SPEC section 4).

Letters: B images, L levels, N patches, S image side in pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils import upsample

FOCAL_POWER = 2
FOCAL_SMOOTH = 1e-5  # clamps the one-hot target, and is added to its probability
DICE_SMOOTH = 1.0


def focal_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Compute the two-class focal loss of each image: two tensors [B, ...] -> [B].

    `probability` is that of "abnormal", in [0, 1]; `mask` is 1 on lesions, else 0. With the one-hot
    target t clamped to [1e-5, 1 - 1e-5] and pt = sum(t * p) + 1e-5: mean of -(1 - pt)^2 log pt.
    """
    target = mask.to(probability.dtype).clamp(FOCAL_SMOOTH, 1 - FOCAL_SMOOTH)
    pt = target * probability + (1 - target) * (1 - probability) + FOCAL_SMOOTH
    return (-((1 - pt) ** FOCAL_POWER) * pt.log()).flatten(1).mean(dim=1)  # [B, ...] -> [B]


def dice_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Compute the Dice loss of each image: two tensors [B, ...] -> [B].

    With probabilities p of "abnormal" and mask m: 1 - (2 sum(p m) + 1) / (sum p + sum m + 1).
    """
    p = probability.flatten(1)  # [B, ...] -> [B, pixels]
    m = mask.to(probability.dtype).flatten(1)  # [B, ...] -> [B, pixels]
    return 1 - (2 * (p * m).sum(dim=1) + DICE_SMOOTH) / (p.sum(dim=1) + m.sum(dim=1) + DICE_SMOOTH)


@dataclass(frozen=True)
class Objective:
    """Loss of each image of a batch: `det` for all objects, plus `seg` for objects with masks.

    Args:
        bce_pool: how patch probabilities become an image's: "mean" or "max".
        bce_input: what the image loss takes that probability for. "probability" is the correct
            cross entropy; "logit" is the released code's, which applies a sigmoid to it once more.

    """

    bce_pool: str
    bce_input: str

    def det(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the image loss, summed over levels: [B, L, N], [B] -> [B].

        `logits` are abnormal minus normal text logits of the det head; `labels` are 0 or 1.
        """
        probability = logits.sigmoid()  # [B, L, N]
        pooled = probability.mean(-1) if self.bce_pool == "mean" else probability.amax(-1)  # [B, L]
        target = labels.to(pooled.dtype)[:, None].expand_as(pooled)  # [B, L]
        if self.bce_input == "logit":
            bce = F.binary_cross_entropy_with_logits(pooled, target, reduction="none")
        else:
            bce = F.binary_cross_entropy(pooled, target, reduction="none")
        return bce.sum(dim=1)

    def seg(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Compute the pixel loss, focal + Dice, summed over levels: [B, L, N], [B, S, S] -> [B].

        `logits` are abnormal minus normal text logits of the seg head; `masks` are 0 or 1.
        """
        levels = upsample(logits, masks.shape[-1]).sigmoid().unbind(dim=1)  # L times [B, S, S]
        losses = [focal_loss(level, masks) + dice_loss(level, masks) for level in levels]
        return torch.stack(losses).sum(dim=0)  # [L, B] -> [B]
