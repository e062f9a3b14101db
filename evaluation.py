"""Predictions to scores and AUROCs, in two passes over patch-level values (SPEC section 4).

The first pass finds the range of each map over the whole test set, the second scales, fuses and measures. Full-size
maps exist only for a block of images at a time. Letters: n images, L levels, N patches, S image side.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import scoring
from engine import Predictions
from metrics import StreamingAUROC, image_auroc
from streams import Streams

FUSION = (0.5, 0.5)  # weights of the text and the memory branch
BLOCK = 32  # images whose full-size maps exist at once


@dataclass(frozen=True)
class Evaluation:
    """Scores [n] float32 on the CPU, each in [0, 1] after min-max over the test set, and AUROCs as fractions.

    pixel_bound is the most by which pixel_auroc can differ from the exact value.
    """

    scores: Tensor
    text_scores: Tensor
    memory_scores: Tensor | None
    image_auroc: float
    pixel_auroc: float | None
    pixel_bound: float | None

    @property
    def selection(self) -> float:
        """What the released code chooses its checkpoint by: the sum of the AUROCs."""
        return self.image_auroc + (self.pixel_auroc or 0.0)


class Maps:
    """Scaled full-size maps of a test set, made block by block from its patch values."""

    def __init__(self, found: Predictions, side: int) -> None:
        self.logits, self.side, self.reduction = torch.cat(found.logits), side, found.form.level_reduction
        self.distance = torch.cat(found.distance) if found.distance else None
        self.text_range = self._range(self._text(b) for b in self._blocks())
        self.memory_range = self._range(self._memory(b) for b in self._blocks()) if self.distance is not None else None

    def _blocks(self) -> Iterator[slice]:
        return (slice(start, start + BLOCK) for start in range(0, len(self.logits), BLOCK))

    def _text(self, block: slice) -> Tensor:
        return scoring.text_map(self.logits[block], self.side, self.reduction)

    def _memory(self, block: slice) -> Tensor:
        assert self.distance is not None
        return scoring.memory_map(self.distance[block], self.side)

    @staticmethod
    def _range(maps: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        lows, highs = zip(*(m.aminmax() for m in maps), strict=True)
        return torch.stack(lows).min(), torch.stack(highs).max()

    def block(self, block: slice) -> tuple[Tensor, Tensor | None, Tensor]:
        """Text, memory and final map of some images, each [B, S, S] in [0, 1] (no memory map in zero-shot)."""
        text = scoring.min_max(self._text(block), *self.text_range)
        if self.memory_range is None:
            return text, None, text
        memory = scoring.min_max(self._memory(block), *self.memory_range)
        return text, memory, FUSION[0] * text + FUSION[1] * memory

    def __iter__(self) -> Iterator[tuple[slice, tuple[Tensor, Tensor | None, Tensor]]]:
        return ((block, self.block(block)) for block in self._blocks())


def scaled(parts: list[Tensor]) -> Tensor:
    """Branch scores [n] after min-max over the test set, on the CPU."""
    values = torch.cat(parts).float().cpu()
    return scoring.min_max(values, values.min(), values.max())


def evaluate(found: Predictions, streams: Streams) -> Evaluation:
    """Final scores and AUROCs of a test set. Raises UserError if a label is missing or a score is not finite."""
    pixels: StreamingAUROC | None = None
    maxima: list[list[Tensor]] = []
    if found.logits:
        pixels = StreamingAUROC()
        maps = Maps(found, streams.source.side)
        for block, (text, memory, final) in maps:
            index = range(len(streams))[block]
            pixels.update(final, streams.masks(index).to(final.device))
            maxima.append([m.amax(dim=(1, 2)).cpu() for m in (text, memory, final) if m is not None])
    if found.text_scores:
        text_scores = scaled(found.text_scores)
        memory_scores = scaled(found.memory_scores) if found.memory_scores else None
        scores = text_scores if memory_scores is None else FUSION[0] * text_scores + FUSION[1] * memory_scores
    else:
        text_scores, memory_scores, scores = (torch.cat(column) for column in zip(*maxima, strict=True))
    return Evaluation(
        scores=scores,
        text_scores=text_scores,
        memory_scores=memory_scores,
        image_auroc=image_auroc(scores, streams.source.labels),
        pixel_auroc=None if pixels is None else pixels.compute(),
        pixel_bound=None if pixels is None else pixels.bound,
    )
