"""Patch values and masks of a synthetic test set, to measure metrics alone.

Letters: n images, L levels, N patches, S image side in pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import baseline
from dataset.items import pack_mask, unpack_masks
from mvfa.forms import score_form
from mvfa.predictions import Predictions
from mvfa.recipe import LEVELS, RECIPES

MAKE_SEED = 0
GRID = 17  # patches per side at 240 pixels
NORMAL = 640 / 3_715  # fraction of normal images in the Brain test split


@dataclass(frozen=True)
class Invented:
    """A synthetic test set of n images, whose lesions are discs."""

    side: int
    logits: Tensor  # [n, L, N] float32, abnormal minus normal text logits
    distance: Tensor  # [n, N] float32, of the memory branch
    labels: Tensor  # [n] float32, 1 abnormal
    masks: list[bytes]  # packed, n

    def __len__(self) -> int:
        return len(self.labels)


def disc(side: int, generator: torch.Generator) -> Tensor:
    """Draw a disc [S, S] bool at a random place, of a random size."""
    x, y, r = torch.rand(3, generator=generator).tolist()
    line = torch.linspace(0, 1, side)
    return (line[:, None] - y) ** 2 + (line - x) ** 2 < (0.05 + 0.2 * r) ** 2


def make(count: int, side: int) -> Invented:
    """Make a test set of noise, raised inside the masks so that AUROCs lie between 0.5 and 1."""
    generator = torch.Generator().manual_seed(MAKE_SEED)
    logits = torch.randn(count, len(LEVELS), GRID * GRID, generator=generator)
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


def predictions(invented: Invented) -> Predictions:
    """Return the test set as the program stores it."""
    return Predictions(
        form=score_form(RECIPES["released"]),
        side=invented.side,
        labels=invented.labels,
        members=list(range(len(invented))),
        masks=invented.masks,
        logits=invented.logits,
        distance=invented.distance,
    )


def maps(invented: Invented) -> baseline.Outputs:
    """Return the test set as the baseline stores it: full-size maps and int64 masks."""
    outputs = baseline.Outputs(invented.labels.int().tolist())
    side = invented.side
    for i in range(len(invented)):
        levels = [
            torch.stack([torch.zeros_like(level), level], dim=1) for level in invented.logits[i]
        ]  # L times [N, 2]
        distance = baseline.enlarge(invented.distance[i][:, None], side)[0, 0]  # [S, S]
        outputs.text_maps.append(baseline.text_map(levels, side).numpy())
        outputs.memory_maps.append(distance.numpy())
        outputs.masks.append(unpack_masks([invented.masks[i]], side)[0].long().numpy())
    return outputs
