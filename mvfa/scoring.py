"""Token features to anomaly maps and scores: pure tensor maths, batch first (SPEC sections 3 and 4).

Letters: B images, P patches per side, N = P * P, E token width, L levels, M rows of a memory bank, S image side.

The two text logits enter every formula through their difference only: a softmax over two classes is the sigmoid of
it, and bilinear upsampling is linear. So one value a patch and level is all that is kept of an image.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

LOGIT_SCALE = 100.0
NORM_FLOOR = 1e-8  # of token features in the memory branch
CHUNK = 8_192  # bank rows compared at once


def text_logits(tokens: Sequence[Tensor], text: Tensor) -> Tensor:
    """Abnormal minus normal logit of each patch: L times [B, 1 + N, E], text [E, 2] or [B, E, 2] -> [B, L, N] float32.

    SPEC section 3: 100 * (t / |t|) @ text; the class token is dropped.
    """
    direction = text[..., 1] - text[..., 0]  # [E] or [B, E]
    direction = direction if direction.ndim == 1 else direction[:, :, None]
    logits = [F.normalize(t[:, 1:].float(), dim=-1) @ direction for t in tokens]
    return LOGIT_SCALE * torch.stack([row.flatten(1) for row in logits], dim=1)


def patch_probability(logits: Tensor) -> Tensor:
    """Probability of "abnormal" in [0, 1], same shape as the logit differences."""
    return logits.sigmoid()


def normalise_bank(tokens: Sequence[Tensor], class_token: bool = True) -> list[Tensor]:
    """Memory bank: L times [n, 1 + N, E] -> L times [M, E] of norm 1, M = n (1 + N), or n N without class tokens."""
    first = 0 if class_token else 1
    return [F.normalize(t[:, first:].float().flatten(0, 1), dim=-1, eps=NORM_FLOOR) for t in tokens]


def memory_distance(
    tokens: Sequence[Tensor], bank: Sequence[Tensor], reduction: str = "sum"
) -> Tensor:
    """Cosine distance of each patch to the nearest row of the bank, over levels: [B, N] float32.

    L times [B, 1 + N, E] and L times [M, E] of norm 1. The bank is searched in blocks.
    """
    distances = []
    for level, rows in zip(tokens, bank, strict=True):
        patches = F.normalize(level[:, 1:].float(), dim=-1, eps=NORM_FLOOR)  # [B, N, E]
        nearest = [(patches @ block.T).amax(dim=-1) for block in rows.split(CHUNK)]
        distances.append(1 - torch.stack(nearest).amax(dim=0))
    return over_levels(torch.stack(distances, dim=1), reduction)


@cache
def interpolation(patches: int, side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights of linear interpolation, ends aligned: [S, P]."""
    unit = torch.eye(patches, dtype=dtype, device=device)
    return F.interpolate(unit[None], size=side, mode="linear", align_corners=True)[0].T.contiguous()


def upsample(values: Tensor, side: int) -> Tensor:
    """Bilinear, corners aligned: [B, C, N] with N = P * P -> [B, C, S, S].

    One matrix product an axis, which takes a fifth of the time of F.interpolate on a CPU.
    """
    patches = round(values.shape[-1] ** 0.5)
    weights = interpolation(patches, side, values.dtype, values.device)
    return weights @ values.unflatten(-1, (patches, patches)) @ weights.T


def text_map(logits: Tensor, side: int, reduction: str = "sum") -> Tensor:
    """Abnormal probability of each pixel, over levels: logit differences [B, L, N] -> [B, S, S]."""
    return over_levels(upsample(logits, side).sigmoid_(), reduction)


def memory_map(distance: Tensor, side: int) -> Tensor:
    """Upsampled memory distance: [B, N] -> [B, S, S]."""
    return upsample(distance[:, None], side)[:, 0]


def image_score(values: Tensor, pool: str) -> Tensor:
    """Mean or maximum over the last dimension: [..., N] -> [...]."""
    return values.mean(dim=-1) if pool == "mean" else values.amax(dim=-1)


def over_levels(values: Tensor, reduction: str) -> Tensor:
    """Sum or mean over levels: [B, L, ...] -> [B, ...]."""
    return values.mean(dim=1) if reduction == "mean" else values.sum(dim=1)


def min_max(values: Tensor, low: float, high: float) -> Tensor:
    """(values - low) / (high - low); all zero where low equals high."""
    if low == high:
        return torch.zeros_like(values)
    return (values - low) / (high - low)
