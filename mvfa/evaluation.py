"""Turn predictions into scores and AUROCs, in two passes over patch values (SPEC section 4).

The first pass measures the range of each map over the whole test set, the second scales, fuses and
measures. Full-size maps exist only for a block of images at a time. Letters: n images, L levels,
N patches, S image side.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from errors import UserError
from mvfa import scoring
from mvfa.accelerator import is_cuda, upload
from mvfa.distributed import World
from mvfa.histograms import Histogram, StreamingHistogram
from mvfa.memory import large_blocks_returned
from mvfa.metrics import auroc, f1_at, image_auroc
from mvfa.predictions import PATCH_VALUES, Predictions

FUSION = (0.5, 0.5)  # weights of the text and the memory branch
HOST_BLOCK = 8  # images whose full-size maps exist at once
DEVICE_BLOCK = 64  # on a GPU, which would wait for the launches of smaller blocks

Range = tuple[float, float]
Three = tuple[Tensor | None, Tensor | None, Tensor]  # of text, of memory, final


@dataclass(frozen=True)
class Evaluation:
    """Scores [n] float32 on the CPU, each in [0, 1] after min-max over the test set, and AUROCs.

    AUROCs are fractions; pixel_bound is the most by which pixel_auroc can differ from the exact
    value. text_scores or memory_scores is None where the method does not have that branch (memory:
    in zero-shot), pixel_auroc and pixel_bound where there are no masks.

    With constants, factor * scores + addend are the scores that these give, as a detector has them,
    and pixel_dice is the Dice of all pixels at a threshold of such scores, None without one.
    """

    scores: Tensor
    text_scores: Tensor | None
    memory_scores: Tensor | None
    image_auroc: float
    pixel_auroc: float | None
    pixel_bound: float | None
    pixel_dice: float | None = None
    factor: float = 1.0
    addend: float = 0.0


@dataclass(frozen=True)
class Constants:
    """Lowest and highest values of the branches before fusion (docs/calibration.md, C1).

    Of all pixels of all maps of a set, and of its image scores; None where there are none.
    """

    text_map: Range | None = None
    memory_map: Range | None = None
    text_score: Range | None = None
    memory_score: Range | None = None

    def as_dict(self) -> dict[str, Range]:
        """Return those that there are, by name."""
        return {name: ends for name, ends in asdict(self).items() if ends is not None}


def fusion_weights(own: Sequence[Range], constants: Sequence[Range]) -> tuple[float, float]:
    """Return weights of the text and the memory branch, each scaled by its own range over a set.

    Their sum orders scores as the sum with FUSION of branches that are scaled by `constants`: it
    differs from that by a factor and an addend only, and stays in [0, 1]. `own` and `constants`
    hold the ranges of text and memory. As in `min_max`, a branch of an empty range counts nothing.
    """
    shares = [
        weight * (high - low) / (to - start) if start < to else 0.0
        for weight, (low, high), (start, to) in zip(FUSION, own, constants, strict=True)
    ]
    total = sum(shares) or 1.0
    return shares[0] / total, shares[1] / total


def constants_line(own: Sequence[Range], constants: Sequence[Range]) -> tuple[float, float]:
    """Return the factor and the addend by which `fusion_weights` differs from `constants`.

    `own` and `constants` hold the ranges of text and memory; without memory those of text alone.
    """
    factor = 0.0
    addend = 0.0
    weights = FUSION if len(own) > 1 else (1.0,)
    for weight, (low, high), (start, to) in zip(weights, own, constants, strict=True):
        if start < to:
            factor += weight * (high - low) / (to - start)
            addend += weight * (low - start) / (to - start)
    return factor, addend


def fuse(text: Tensor | None, memory: Tensor | None, text_ends: Any, memory_ends: Any) -> Tensor:
    """Return 0.5 (T - lo) / (hi - lo) + 0.5 (M - lo) / (hi - lo), never clipped.

    text and memory: maps [..., S, S] or scores [...]; the ends are lo and hi of each
    (docs/calibration.md, C1). Without one of the branches, the other's term alone, whole.
    """
    if text is None:
        assert memory is not None, "a method has a branch"
        return scoring.min_max(memory, *memory_ends)
    scaled = scoring.min_max(text, *text_ends)
    if memory is None:
        return scaled
    return FUSION[0] * scaled + FUSION[1] * scoring.min_max(memory, *memory_ends)


class Maps:
    """Scaled full-size maps of a test set, made block by block from its patch values.

    They are scaled by their ranges over the set. With `constants` they are fused as if they were
    scaled by these, see `fusion_weights`.
    """

    def __init__(self, predictions: Predictions, constants: Constants | None = None) -> None:
        self.logits = predictions.logits
        self.distance = predictions.distance
        self.sizes = predictions.sizes
        self.side = predictions.side
        self.form = predictions.form
        stored = self.distance if self.logits is None else self.logits
        assert stored is not None, "maps were not asked for"
        self.images = len(stored)
        self.device = stored.device
        self.text_range = None
        self.memory_range = None
        if self.logits is not None:
            self.text_range = self._range(self._text)
        if self.distance is not None:
            self.memory_range = self._range(self._memory)
        self.weights = FUSION
        self.line = (1.0, 0.0)  # to maps as `constants` give them
        if constants is not None:
            own = both(self.text_range, self.memory_range)
            known = both(constants.text_map, constants.memory_map)
            self.line = constants_line(own, known)
            if len(own) > 1:
                self.weights = fusion_weights(own, known)

    def _blocks(self) -> list[slice]:
        """Return images in blocks, each a sample of the whole set: every k-th image."""
        step = -(-self.images // (DEVICE_BLOCK if is_cuda(self.device) else HOST_BLOCK))
        return [slice(start, None, step) for start in range(step)]

    def _text(self, block: slice) -> Tensor:
        assert self.logits is not None
        return self.form.text_map(self.logits[block], self.side)

    def _memory(self, block: slice) -> Tensor:
        assert self.distance is not None
        sizes = None if self.sizes is None else self.sizes[block]
        return self.form.memory_map(self.distance[block], sizes, self.side)

    def _range(self, maps: Callable[[slice], Tensor]) -> Range:
        blocks = self._blocks()
        # One tensor, made before the maps: small long-lived tensors between large short-lived ones
        # fragment the heap (measured: gigabytes). It is read once: a device is not waited for.
        ends = torch.empty(2, len(blocks), device=self.device)
        for column, block in enumerate(blocks):
            low, high = maps(block).aminmax()
            ends[0, column] = low
            ends[1, column] = high
        return ends[0].min().item(), ends[1].max().item()

    def block(self, block: slice) -> Three:
        """Return text, memory and final map of some images, each [B, S, S] in [0, 1].

        There is no map of a branch that the method does not have; memory: in zero-shot.
        """
        text = memory = None
        if self.text_range is not None:
            text = scoring.min_max(self._text(block), *self.text_range)
        if self.memory_range is not None:
            memory = scoring.min_max(self._memory(block), *self.memory_range)
        return text, memory, weighted(text, memory, self.weights)

    def __iter__(self) -> Iterator[tuple[slice, Three]]:
        return ((block, self.block(block)) for block in self._blocks())


def both(text: Range | None, memory: Range | None) -> tuple[Range, ...]:
    """Return the ranges of the branches that there are: of text, of memory, or of both."""
    return tuple(ends for ends in (text, memory) if ends is not None)


def weighted(text: Tensor | None, memory: Tensor | None, weights: tuple[float, float]) -> Tensor:
    """Return the weighted sum of two branches, or the only one as it is."""
    if text is None or memory is None:
        only = memory if text is None else text
        assert only is not None, "a method has a branch"
        return only
    return weights[0] * text + weights[1] * memory


def ends(values: Tensor) -> Range:
    """Return the lowest and the highest value."""
    return float(values.min()), float(values.max())


def fused_scores(
    text: Tensor | None, memory: Tensor | None, constants: Constants | None
) -> tuple[Tensor, Tensor | None, Tensor | None, tuple[float, float]]:
    """Return final, text and memory scores [n], after min-max over the test set, on the CPU.

    Also the factor and the addend of `constants_line`.
    """
    text_ends = memory_ends = None
    if text is not None:
        text = text.float().cpu()
        text_ends = ends(text)
        text = scoring.min_max(text, *text_ends)
    if memory is not None:
        memory = memory.float().cpu()
        memory_ends = ends(memory)
        memory = scoring.min_max(memory, *memory_ends)
    own = both(text_ends, memory_ends)
    line = (1.0, 0.0)
    weights = FUSION
    if constants is not None:
        known = both(constants.text_score, constants.memory_score)
        line = constants_line(own, known)
        if len(own) > 1:
            weights = fusion_weights(own, known)
    return weighted(text, memory, weights), text, memory, line


@large_blocks_returned()
def constants_of(predictions: Predictions) -> Constants:
    """Return the lowest and highest values of a set, which needs neither masks nor both labels.

    Raises UserError if one is not finite.
    """
    values = [getattr(predictions, name) for name in PATCH_VALUES]
    if not all(torch.isfinite(value).all() for value in values if value is not None):
        raise UserError("a score to calibrate with is not finite; run again with --precision fp32")
    found: dict[str, Range] = {}
    if predictions.logits is not None or predictions.distance is not None:
        maps = Maps(predictions)
        if maps.text_range is not None:
            found["text_map"] = maps.text_range
        if maps.memory_range is not None:
            found["memory_map"] = maps.memory_range
    if predictions.text_scores is not None:
        found["text_score"] = ends(predictions.text_scores.float())
    if predictions.memory_scores is not None:
        found["memory_score"] = ends(predictions.memory_scores.float())
    return Constants(**found)


def joined(parts: Sequence[Constants]) -> Constants:
    """Return the constants of several sets taken as one."""
    found: dict[str, Range] = {}
    for part in parts:
        for name, (low, high) in part.as_dict().items():
            lowest, highest = found.get(name, (low, high))
            found[name] = (min(low, lowest), max(high, highest))
    return Constants(**found)


def scan_maps(maps: Maps, predictions: Predictions) -> tuple[StreamingHistogram, Tensor]:
    """Return the pixels of final maps, and maxima [3, n] of text, memory and final maps."""
    pixels = StreamingHistogram()
    maxima = torch.zeros(3, len(predictions.labels), device=maps.device)
    for block, scaled in maps:
        final = scaled[2]
        pixels.update(final, upload(predictions.block_masks(block), final.device))
        for row, values in zip(maxima, scaled, strict=True):
            if values is not None:
                row[block] = values.amax(dim=(1, 2))
    return pixels, maxima.cpu()


def dice_at(pixels: Histogram, threshold: float | None, line: tuple[float, float]) -> float | None:
    """Return Dice at a threshold of scores factor * pixel + addend, `line`; None without one."""
    if threshold is None:
        return None
    factor, addend = line
    if factor == 0:  # all pixels are equal
        return f1_at(pixels, 0.0 if addend >= threshold else math.inf)
    return f1_at(pixels, (threshold - addend) / factor)


@large_blocks_returned()
def evaluate_here(
    predictions: Predictions,
    constants: Constants | None = None,
    pixel_threshold: float | None = None,
) -> Evaluation:
    """Return final scores and AUROCs of a test set, computed by this process; see `evaluate`.

    Raises UserError if a label is missing or a score is not finite.
    """
    line = (1.0, 0.0)
    pixel = None
    bound = None
    dice = None
    if predictions.masks is not None:
        maps = Maps(predictions, constants)
        pixels, maxima = scan_maps(maps, predictions)
        histogram = pixels.histogram()
        pixel, bound = auroc(histogram)
        line = maps.line
        dice = dice_at(histogram, pixel_threshold, line)
    if predictions.has_scores:
        scores, text_scores, memory_scores, line = fused_scores(
            predictions.text_scores, predictions.memory_scores, constants
        )
    else:
        scores = maxima[2]
        text_scores = None if predictions.logits is None else maxima[0]
        memory_scores = None if predictions.distance is None else maxima[1]
    return Evaluation(
        scores=scores,
        text_scores=text_scores,
        memory_scores=memory_scores,
        image_auroc=image_auroc(scores, predictions.labels),
        pixel_auroc=pixel,
        pixel_bound=bound,
        pixel_dice=dice,
        factor=line[0],
        addend=line[1],
    )


def evaluate(
    predictions: Predictions,
    world: World | None = None,
    constants: Constants | None = None,
    pixel_threshold: float | None = None,
) -> Evaluation:
    """Return final scores and AUROCs of a test set: the one way from predictions to metrics.

    With `constants`, the AUROCs and the order of the final scores are those of branches that are
    scaled by these instead of the test set's own ranges (docs/calibration.md, C1). Dice is that of
    pixels at or above `pixel_threshold`, in the scale of the constants.

    With several processes the first rank computes them, and every rank gets them. Raises UserError
    if a label is missing or a score is not finite.
    """
    return (world or World()).from_first(
        lambda: evaluate_here(predictions, constants, pixel_threshold)
    )
