"""Turn predictions into scores and AUROCs, in two passes over patch values (SPEC section 4).

The first pass measures the range of each map over the whole test set, the second scales, fuses and
measures. Full-size maps exist only for a block of images at a time. Letters: n images, L levels,
N patches, S image side.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mvfa import scoring
from mvfa.distributed import World
from mvfa.engine import Predictions
from mvfa.histograms import StreamingHistogram
from mvfa.memory import large_blocks_returned
from mvfa.metrics import auroc, image_auroc

FUSION = (0.5, 0.5)  # weights of the text and the memory branch
BLOCK = 8  # images whose full-size maps exist at once


@dataclass(frozen=True)
class Evaluation:
    """Scores [n] float32 on the CPU, each in [0, 1] after min-max over the test set, and AUROCs.

    AUROCs are fractions; pixel_bound is the most by which pixel_auroc can differ from the exact
    value. memory_scores is None in zero-shot, pixel_auroc and pixel_bound where there are no masks.
    """

    scores: Tensor
    text_scores: Tensor
    memory_scores: Tensor | None
    image_auroc: float
    pixel_auroc: float | None
    pixel_bound: float | None


class Maps:
    """Scaled full-size maps of a test set, made block by block from its patch values."""

    def __init__(self, predictions: Predictions) -> None:
        assert predictions.logits is not None, "maps need patch values"
        self.logits = predictions.logits
        self.distance = predictions.distance
        self.side = predictions.side
        self.reduction = predictions.form.level_reduction
        self.text_range = self._range(self._text(block) for block in self._blocks())
        self.memory_range = None
        if self.distance is not None:
            self.memory_range = self._range(self._memory(block) for block in self._blocks())

    def _blocks(self) -> Iterator[slice]:
        """Yield images in blocks, each a sample of the whole set: every k-th image."""
        step = -(-len(self.logits) // BLOCK)
        return (slice(start, None, step) for start in range(step))

    def _text(self, block: slice) -> Tensor:
        return scoring.text_map(self.logits[block], self.side, self.reduction)

    def _memory(self, block: slice) -> Tensor:
        assert self.distance is not None
        return scoring.memory_map(self.distance[block], self.side)

    @staticmethod
    def _range(maps: Iterator[Tensor]) -> tuple[float, float]:
        # Numbers, not tensors: small long-lived tensors between large short-lived ones fragment the
        # heap (measured: gigabytes).
        ranges = [tuple(value.item() for value in block.aminmax()) for block in maps]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def block(self, block: slice) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return text, memory and final map of some images, each [B, S, S] in [0, 1].

        There is no memory map in zero-shot.
        """
        text = scoring.min_max(self._text(block), *self.text_range)
        if self.memory_range is None:
            return text, None, text
        memory = scoring.min_max(self._memory(block), *self.memory_range)
        return text, memory, FUSION[0] * text + FUSION[1] * memory

    def __iter__(self) -> Iterator[tuple[slice, tuple[Tensor, Tensor | None, Tensor]]]:
        return ((block, self.block(block)) for block in self._blocks())


def scaled(values: Tensor) -> Tensor:
    """Return branch scores [n] after min-max over the test set, on the CPU."""
    values = values.float().cpu()
    return scoring.min_max(values, float(values.min()), float(values.max()))


def pixel_results(predictions: Predictions) -> tuple[tuple[float, float], Tensor]:
    """Return pixel AUROC and its bound, and each map's maxima: [3, n] for text, memory, final."""
    pixels = StreamingHistogram()
    maxima = torch.zeros(3, len(predictions.labels))
    for block, maps in Maps(predictions):
        final = maps[2]
        pixels.update(final, predictions.block_masks(block).to(final.device))
        for row, values in zip(maxima, maps, strict=True):
            if values is not None:
                row[block] = values.amax(dim=(1, 2)).cpu()
    return auroc(pixels.histogram()), maxima


@large_blocks_returned()
def evaluate_here(predictions: Predictions) -> Evaluation:
    """Return final scores and AUROCs of a test set, computed by this process.

    Raises UserError if a label is missing or a score is not finite.
    """
    pixel = None
    bound = None
    if predictions.masks is not None:
        (pixel, bound), maxima = pixel_results(predictions)
    if predictions.text_scores is not None:
        text_scores = scaled(predictions.text_scores)
        memory_scores = None
        scores = text_scores
        if predictions.memory_scores is not None:
            memory_scores = scaled(predictions.memory_scores)
            scores = FUSION[0] * text_scores + FUSION[1] * memory_scores
    else:
        text_scores, memory_scores, scores = maxima
    return Evaluation(
        scores=scores,
        text_scores=text_scores,
        memory_scores=memory_scores,
        image_auroc=image_auroc(scores, predictions.labels),
        pixel_auroc=pixel,
        pixel_bound=bound,
    )


def evaluate(predictions: Predictions, world: World | None = None) -> Evaluation:
    """Return final scores and AUROCs of a test set: the one way from predictions to metrics.

    With several processes the first rank computes them, and every rank gets them. Raises UserError
    if a label is missing or a score is not finite.
    """
    return (world or World()).from_first(lambda: evaluate_here(predictions))
