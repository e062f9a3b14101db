"""Patch values and masks of an invented test set, for the metrics alone.

Letters: n images, L levels, N patches, S image side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor

from benchmarks import baseline
from dataset.items import pack_mask, unpack_masks
from mvfa.engine import Predictions, ScoreForm
from mvfa.features import FeatureLoader

GRID = 17  # patches per side at 240 pixels
LEVELS = 4
NORMAL = 640 / 3_715  # share of normal images in the Brain test split


@dataclass(frozen=True)
class Invented:
    """Logit differences [n, L, N], distances [n, N], labels [n] and packed masks of n discs."""

    side: int
    logits: Tensor
    distance: Tensor
    labels: Tensor
    masks: list[bytes]

    def __len__(self) -> int:
        return len(self.labels)


def disc(side: int, generator: torch.Generator) -> Tensor:
    """A disc [S, S] bool somewhere in the image."""
    x, y, r = torch.rand(3, generator=generator).tolist()
    line = torch.linspace(0, 1, side)
    return (line[:, None] - y) ** 2 + (line - x) ** 2 < (0.05 + 0.2 * r) ** 2


def make(count: int, side: int, seed: int = 0) -> Invented:
    """Noise, raised where the mask is, so that the AUROC is neither 0.5 nor 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, LEVELS, GRID * GRID, generator=generator)
    distance = torch.rand(count, GRID * GRID, generator=generator)
    labels = (torch.arange(count) >= max(1, round(NORMAL * count))).float()
    masks = []
    for i in range(count):
        mask = disc(side, generator) & bool(labels[i])
        masks.append(pack_mask(mask))
        patches = torch.nn.functional.adaptive_avg_pool2d(mask[None].float(), GRID).flatten()  # [N]
        logits[i] += patches
        distance[i] += 0.3 * patches
    return Invented(side, logits, distance, labels, masks)


def predictions(invented: Invented) -> tuple[Predictions, FeatureLoader]:
    """As this program holds them: its predictions, and what its evaluation asks of the streams of a test set."""
    found = Predictions(ScoreForm(), True, logits=invented.logits, distance=invented.distance)

    class Masks:
        source = SimpleNamespace(side=invented.side, labels=invented.labels)

        def __len__(self) -> int:
            return len(invented)

        def masks(self, index: Sequence[int]) -> Tensor:
            return unpack_masks([invented.masks[i] for i in index], invented.side)

    return found, cast(FeatureLoader, Masks())


def maps(invented: Invented) -> baseline.Kept:
    """As the baseline holds them: full-size maps and int64 masks of every image."""
    kept, side = baseline.Kept(invented.labels.int().tolist()), invented.side
    for i in range(len(invented)):
        levels = [
            torch.stack([torch.zeros_like(level), level], dim=1) for level in invented.logits[i]
        ]  # [N, 2]
        kept.text_maps.append(baseline.text_map(levels, side).numpy())
        kept.memory_maps.append(baseline.enlarge(invented.distance[i][:, None], side)[0, 0].numpy())
        kept.masks.append(unpack_masks([invented.masks[i]], side)[0].long().numpy())
    return kept
