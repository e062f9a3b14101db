"""Turn token features into anomaly maps and scores: pure tensor maths (SPEC sections 3 and 4).

Letters: B images, P patches per side, N = P * P, E token width, L levels, M rows of a memory bank,
S image side.

The two text logits enter every formula through their difference only: a softmax over two classes is
the sigmoid of the difference, and bilinear upsampling is linear. So one value a patch and level is
all that is stored of an image.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from utils import upsample

LOGIT_SCALE = 100.0
NORM_FLOOR = 1e-8  # of token features in the memory branch
CHUNK = 8_192  # bank rows compared at once in float32
ALIGNED = 64  # tiles of a multiple of so many rows, which matrix units multiply at full rate
TILE = 2**24  # similarities compared at once in float16: 32 MiB, which stay in a GPU's own cache


def text_logits(tokens: Sequence[Tensor], text: Tensor) -> Tensor:
    """Return the abnormal minus the normal text logit of each patch, [B, L, N] float32.

    `tokens`: L times [B, 1 + N, E]; `text` [E, 2] or [B, E, 2], columns normal and abnormal. SPEC
    section 3: 100 * (t / |t|) @ text; the class token is dropped.
    """
    direction = text[..., 1] - text[..., 0]  # [E] or [B, E]
    direction = direction if direction.ndim == 1 else direction[:, :, None]
    logits = [F.normalize(t[:, 1:].float(), dim=-1) @ direction for t in tokens]
    return LOGIT_SCALE * torch.stack([row.flatten(1) for row in logits], dim=1)


def normalise_bank(tokens: Sequence[Tensor], class_token: bool = True) -> list[Tensor]:
    """Return the memory bank of n normal images: L times [n, 1 + N, E] -> L times [M, E] of norm 1.

    M = n (1 + N), or n N without class tokens.
    """
    first = 0 if class_token else 1
    return [F.normalize(t[:, first:].float().flatten(0, 1), dim=-1, eps=NORM_FLOOR) for t in tokens]


def memory_distance(
    tokens: Sequence[Tensor],
    bank: Sequence[Tensor],
    reduction: str = "sum",
    *,
    half: bool = False,
) -> Tensor:
    """Return each patch's cosine distance to the nearest bank row, over levels: [B, N] float32.

    `tokens`: L times [B, 1 + N, E]; `bank`: L times [M, E] of norm 1. `half`: the nearest row is
    searched in float16, see `similarity_half`.
    """
    similarity = similarity_half if half else similarity_exact
    distances = []
    for level, rows in zip(tokens, bank, strict=True):
        patches = F.normalize(level[:, 1:].float(), dim=-1, eps=NORM_FLOOR)  # [B, N, E]
        distances.append(1 - similarity(patches, rows))
    return over_levels(torch.stack(distances, dim=1), reduction)


def similarity_exact(patches: Tensor, rows: Tensor) -> Tensor:
    """Return the similarity to the nearest row: [B, N, E], [M, E] -> [B, N] float32.

    Both are of norm 1. Computed in float32, a block of rows at a time.
    """
    nearest = [(patches @ block.T).amax(dim=-1) for block in rows.split(CHUNK)]
    return torch.stack(nearest).amax(dim=0)


def similarity_half(patches: Tensor, rows: Tensor) -> Tensor:
    """Return what `similarity_exact` does, of the row that is nearest in float16.

    Tile by tile of the rows the best similarity so far and its row are kept, so that at most TILE
    similarities exist at once, however large the bank. That row's similarity is then computed
    again in float32: it is never above the exact value, and below it by at most twice the error
    of a float16 similarity (docs/speed.md).
    """
    flat = patches.flatten(0, 1)  # [B N, E]
    queries = flat.half()
    best = torch.full((len(flat),), -torch.inf, dtype=torch.float16, device=flat.device)
    winners = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
    size = max(ALIGNED, TILE // max(1, len(flat)) // ALIGNED * ALIGNED)
    for first in range(0, len(rows), size):
        tile = rows[first : first + size].half()  # [rows of the tile, E]
        found, where = (queries @ tile.T).max(dim=-1)  # each [B N]
        winners = torch.where(found > best, where + first, winners)
        best = torch.maximum(found, best)
    return (flat * rows[winners]).sum(dim=-1).view(patches.shape[:2])  # [B N] -> [B, N]


def text_map(logits: Tensor, side: int, reduction: str = "sum") -> Tensor:
    """Return each pixel's abnormal probability over levels: logits [B, L, N] -> [B, S, S]."""
    return over_levels(upsample(logits, side).sigmoid_(), reduction)


def memory_map(distance: Tensor, side: int) -> Tensor:
    """Return the upsampled memory distance: [B, N] -> [B, S, S]."""
    return upsample(distance[:, None], side)[:, 0]


def image_score(values: Tensor, pool: str) -> Tensor:
    """Return the mean or the maximum over the last dimension: [..., N] -> [...]."""
    return values.mean(dim=-1) if pool == "mean" else values.amax(dim=-1)


def memory_scores(distance: Tensor, pool: str, side: int) -> Tensor:
    """Return memory scores [B] of distances [B, N]: their maximum, or the mean of the map."""
    if pool == "max":
        return image_score(distance, pool)
    return image_score(memory_map(distance, side).flatten(1), pool)


def over_levels(values: Tensor, reduction: str) -> Tensor:
    """Return the sum or the mean over levels: [B, L, ...] -> [B, ...]."""
    return values.mean(dim=1) if reduction == "mean" else values.sum(dim=1)


def min_max(values: Tensor, low: float, high: float) -> Tensor:
    """Return (values - low) / (high - low); all zero where low equals high."""
    if low == high:
        return torch.zeros_like(values)
    return (values - low) / (high - low)
