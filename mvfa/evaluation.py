"""Predictions to scores and AUROCs, in two passes over patch-level values (SPEC section 4).

The first pass finds the range of each map over the whole test set, the second scales, fuses and measures. Full-size
maps exist only for a block of images at a time. Letters: n images, L levels, N patches, S image side.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mvfa import scoring
from mvfa.engine import Predictions
from mvfa.features import FeatureLoader
from mvfa.histograms import StreamingHistogram
from mvfa.metrics import auroc, image_auroc
from utils import large_blocks_returned

FUSION = (0.5, 0.5)  # weights of the text and the memory branch
BLOCK = 8  # images whose full-size maps exist at once


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
        assert found.logits is not None, "maps need patch values"
        self.logits, self.distance = found.logits, found.distance
        self.side, self.reduction = side, found.form.level_reduction
        self.text_range = self._range(self._text(b) for b in self._blocks())
        self.memory_range = (
            self._range(self._memory(b) for b in self._blocks())
            if self.distance is not None
            else None
        )

    def _blocks(self) -> Iterator[slice]:
        """Images in blocks, each a sample of the whole set: every so many-th image."""
        step = -(-len(self.logits) // BLOCK)
        return (slice(start, None, step) for start in range(step))

    def _text(self, block: slice) -> Tensor:
        return scoring.text_map(self.logits[block], self.side, self.reduction)

    def _memory(self, block: slice) -> Tensor:
        assert self.distance is not None
        return scoring.memory_map(self.distance[block], self.side)

    @staticmethod
    def _range(maps: Iterator[Tensor]) -> tuple[float, float]:
        # numbers, not tensors: small tensors that stay between large ones that go would tear the heap to gigabytes
        found = [tuple(value.item() for value in m.aminmax()) for m in maps]
        return min(low for low, _ in found), max(high for _, high in found)

    def block(self, block: slice) -> tuple[Tensor, Tensor | None, Tensor]:
        """Text, memory and final map of some images, each [B, S, S] in [0, 1] (no memory map in zero-shot)."""
        text = scoring.min_max(self._text(block), *self.text_range)
        if self.memory_range is None:
            return text, None, text
        memory = scoring.min_max(self._memory(block), *self.memory_range)
        return text, memory, FUSION[0] * text + FUSION[1] * memory

    def __iter__(self) -> Iterator[tuple[slice, tuple[Tensor, Tensor | None, Tensor]]]:
        return ((block, self.block(block)) for block in self._blocks())


def scaled(values: Tensor) -> Tensor:
    """Branch scores [n] after min-max over the test set, on the CPU."""
    values = values.float().cpu()
    return scoring.min_max(values, float(values.min()), float(values.max()))


@large_blocks_returned()
def evaluate(found: Predictions, streams: FeatureLoader) -> Evaluation:
    """Final scores and AUROCs of a test set. Raises UserError if a label is missing or a score is not finite."""
    pixel, bound = None, None
    if found.masks:
        pixels, maps = StreamingHistogram(), Maps(found, streams.source.side)
        maxima = torch.zeros(3, len(streams))
        for block, (text, memory, final) in maps:
            pixels.update(final, streams.masks(range(len(streams))[block]).to(final.device))
            for row, values in zip(maxima, (text, memory, final), strict=True):
                if values is not None:
                    row[block] = values.amax(dim=(1, 2)).cpu()
        pixel, bound = auroc(pixels.counts())
    if found.text_scores is not None:
        text_scores = scaled(found.text_scores)
        memory_scores = None if found.memory_scores is None else scaled(found.memory_scores)
        scores = (
            text_scores
            if memory_scores is None
            else FUSION[0] * text_scores + FUSION[1] * memory_scores
        )
    else:
        text_scores, memory_scores, scores = maxima
    return Evaluation(
        scores=scores,
        text_scores=text_scores,
        memory_scores=memory_scores,
        image_auroc=image_auroc(scores, streams.source.labels),
        pixel_auroc=pixel,
        pixel_bound=bound,
    )
