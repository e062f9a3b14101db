"""The adapters of MadCLIP and its loss (docs/SPEC_madclip.md, M1 and M3).

Letters: B images, S image side, L levels, N patches, D vision width, E joint width.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loss import dice_loss, focal_loss
from utils import upsample

SLOPE = 0.01  # of the leaky ReLUs
LAYERS = {"det": "fc2", "seg": "fc3"}  # of an adapter, by head


class LevelAdapter(nn.Module):
    """What reads the tokens of one level: a shared layer, then one layer a head; no biases.

    Args:
        width: D.
        embed_dim: E.
        generator: draws the initial weights as nn.Linear does; None: torch's global generator.

    """

    def __init__(self, width: int, embed_dim: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.fc1 = layer(width, width, generator)
        self.fc2 = layer(width, embed_dim, generator)
        self.fc3 = layer(width, embed_dim, generator)

    def forward(self, x: Tensor, heads: Sequence[str]) -> list[Tensor]:
        """Compute unit token features of each head: [B, N, D] -> [B, N, E] a head."""
        hidden = self.norm(F.leaky_relu(self.fc1(x), SLOPE))  # [B, N, D]
        outputs = [getattr(self, LAYERS[head])(hidden) for head in heads]
        return [F.normalize(F.leaky_relu(output, SLOPE), dim=-1) for output in outputs]

    def norm(self, x: Tensor) -> Tensor:
        """Normalise each token over its channels: [B, N, D] -> [B, N, D]."""
        return F.layer_norm(x, x.shape[-1:])


def layer(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Sequential:
    """Return a linear layer without bias, whose weights are drawn as nn.Linear does."""
    weight = torch.empty(outputs, inputs)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    linear = nn.Linear(inputs, outputs, bias=False, device="meta")
    linear.weight = nn.Parameter(weight)
    return nn.Sequential(linear)  # checkpoints name it fc1.0


def det_loss(similarities: Tensor, labels: Tensor) -> Tensor:
    """Compute the image loss, summed over levels: [B, L, N, 2], [B] -> [B].

    A mean over patches of -log sigmoid(-s S_n) - log sigmoid(s S_a), s = 1 for abnormal images,
    else -1.
    """
    sign = (2 * labels - 1).to(similarities.dtype)[:, None, None]  # [B, 1, 1]
    normal, abnormal = similarities.unbind(dim=-1)  # each [B, L, N]
    losses = -F.logsigmoid(-sign * normal) - F.logsigmoid(sign * abnormal)  # [B, L, N]
    return losses.mean(dim=-1).sum(dim=-1)


def seg_loss(similarities: Tensor, masks: Tensor) -> Tensor:
    """Compute the pixel loss, focal + Dice, summed over levels: [B, L, N, 2], [B, S, S] -> [B].

    The softmax over both classes is the sigmoid of their difference.
    """
    logits = similarities[..., 1] - similarities[..., 0]  # [B, L, N]
    levels = upsample(logits, masks.shape[-1]).sigmoid().unbind(dim=1)  # L times [B, S, S]
    losses = [focal_loss(level, masks) + dice_loss(level, masks) for level in levels]
    return torch.stack(losses).sum(dim=0)  # [L, B] -> [B]
