"""AUROCs of a test set whose scores are scaled by constants of other images (docs/calibration.md).

A detector knows no test set: its constants come from a calibration set (C1). A test shows what that
changes, and with images of `valid/` what their scores promise of the test's: the Dice of their best
pixel threshold, and the reliability of p-values and probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from dataset.catalog import ObjectInfo
from dataset.folder import ImageSet
from dataset.medical_few import SupportSource
from dataset.shots import Shots
from errors import UserError
from mvfa.calibration import LEFT_OUT, SOURCES, VALID, scores_by_label
from mvfa.calibration_set import (
    CalibrationSet,
    calibration_images,
    leave_one_out,
    shot_of_rows,
)
from mvfa.console import note, show
from mvfa.distributed import World
from mvfa.engine import predict
from mvfa.evaluation import (
    Constants,
    Evaluation,
    Maps,
    constants_of,
    evaluate,
    fused_scores,
    joined,
    scan_maps,
)
from mvfa.loaders import Loaders
from mvfa.memory import large_blocks_returned
from mvfa.methods.base import Method
from mvfa.metrics import best_f1
from mvfa.options import Options
from mvfa.predictions import Predictions
from mvfa.reliability import reliability


@dataclass(frozen=True)
class Known:
    """What known images give: constants, and of images of `valid/` more.

    Args:
        constants: their lowest and highest values.
        scores: their image scores [k] float32, scaled by the constants; None of other images.
        pixel_threshold: the threshold of their final maps with the best Dice; None where there is
            no mask or no abnormal pixel.

    """

    constants: Constants
    scores: Tensor | None = None
    pixel_threshold: float | None = None


@dataclass(frozen=True)
class Calibrated:
    """The evaluation of a test set with constants, and the images these are of.

    AUROCs, Dice and the order of the scores are calibrated, see `mvfa.evaluation.evaluate`.

    Args:
        evaluation: of the test set, with the constants.
        known: what the images gave.
        images: the number of images.
        source: where they are from, a key of `mvfa.calibration.SOURCES`.
        reliability: see `mvfa.reliability.reliability`; None unless the images are of `valid/`, one
            of them normal.

    """

    evaluation: Evaluation
    known: Known
    images: int
    source: str
    reliability: dict[str, Any] | None = None

    def line(self, name: str) -> str:
        """Return the line that a test of an object prints."""
        values = f"AUC {self.evaluation.image_auroc:.4f}"
        if self.evaluation.pixel_auroc is not None:
            values += f", pAUC {self.evaluation.pixel_auroc:.4f}"
        return f"{name} calibrated: {values} (constants of {self.images} {SOURCES[self.source]})"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for metrics.json."""
        return {
            "image_auroc": self.evaluation.image_auroc,
            "pixel_auroc": self.evaluation.pixel_auroc,
            "pixel_dice": self.evaluation.pixel_dice,
            "pixel_threshold": self.known.pixel_threshold,
            "source": self.source,
            "images": self.images,
            "lo_hi": self.known.constants.as_dict(),
            "reliability": self.reliability,
        }


def known_images(
    options: Options, target: ObjectInfo, shots: Shots, world: World, *, memory: bool = True
) -> CalibrationSet | None:
    """Return the images that the constants of a test are taken of, whatever their labels.

    `memory`: whether the method has a memory bank, of which a shot can be left out. None, with a
    note, where there are none or one cannot be used; None with --calibrated no.
    """
    if not options.calibrated:
        return None
    try:
        found = calibration_images(options, target, shots, world, any_label=True, memory=memory)
    except UserError as error:  # an image without its mask, say
        note(f"no calibrated AUROC: {error}", world)
        return None
    if found is None:
        shown = f"valid/ of {target.name} has no images but shots, and one shot cannot be left out"
        note(f"no calibrated AUROC: {shown}", world)
        return None
    return CalibrationSet(*found)


@large_blocks_returned()
def known_values(predictions: Predictions) -> Known:
    """Return what the scored images of `valid/` give. Raises UserError if a value is not finite.

    Their own ranges are the constants, so that scores and maps are in [0, 1].
    """
    constants = constants_of(predictions)
    threshold = None
    if predictions.masks is not None:
        pixels, maxima = scan_maps(Maps(predictions), predictions)
        scores = maxima[2]
        try:
            threshold = best_f1(pixels.histogram())[1]
        except UserError:  # no abnormal pixel, so no Dice
            threshold = None
    if predictions.has_scores:
        scores = fused_scores(predictions.text_scores, predictions.memory_scores, None)[0]
    return Known(constants, scores, threshold)


def score_known(
    known: CalibrationSet,
    method: Method,
    loaders: Loaders,
    support: SupportSource,
    bank: Sequence[Tensor],
) -> Known:
    """Score the known images; return what they give, on every rank.

    support: what the bank was built of; bank: L times [M, E], as `build_memory` returns it. A shot
    is scored with the bank of the others.
    """
    world = loaders.env.world

    def scored(images: ImageSet, own_bank: Sequence[Tensor]) -> Predictions:
        # objects without masks have constants of their scores only
        return predict(method, loaders.scoring(images), own_bank)

    if known.source != LEFT_OUT:
        predictions = scored(known.images, bank)
        if known.source == VALID:
            return world.from_first(partial(known_values, predictions))
        return Known(world.from_first(partial(constants_of, predictions)))
    size = loaders.env.test_batch_size
    owners = shot_of_rows(method, support, len(known), size, world)
    singles = [ImageSet([record], known.images.side) for record in known.images.records]
    found = []
    for images, own_bank in zip(singles, leave_one_out(bank, owners, len(known)), strict=True):
        found.append(world.from_first(partial(constants_of, scored(images, own_bank))))
    return Known(joined(found))


def reliability_of(
    known: CalibrationSet, scores: Tensor | None, evaluation: Evaluation, labels: Tensor
) -> dict[str, Any] | None:
    """Return the reliability of a calibration by known images, whose scores are [k], on a test set.

    labels [n] of the test. None without scores of a normal image.
    """
    if scores is None or all(known.labels):
        return None
    pattern = known.images.records[0].object.cases
    normal, abnormal, by = scores_by_label(
        known.names, known.labels, scores.tolist(), pattern, known.cases
    )
    tested = evaluation.factor * evaluation.scores.double() + evaluation.addend
    return reliability(
        np.sort(normal), np.sort(abnormal), by, tested.numpy(), labels.bool().numpy()
    )


def evaluate_calibrated(
    predictions: Predictions,
    known: CalibrationSet | None,
    method: Method,
    loaders: Loaders,
    support: SupportSource,
    bank: Sequence[Tensor],
) -> Calibrated | None:
    """Evaluate a scored test set with the constants of known images; None without any.

    None, with a note, if one of them turns out to be unusable: the test itself does not need it.
    """
    if known is None:
        return None
    world = loaders.env.world
    try:
        values = score_known(known, method, loaders, support, bank)
    except UserError as error:  # a file that is cut short, say
        if world.size > 1:  # the other processes wait for this one
            raise
        note(f"no calibrated AUROC: {error}", world)
        return None
    evaluation = evaluate(predictions, world, values.constants, values.pixel_threshold)
    reliable = reliability_of(known, values.scores, evaluation, predictions.labels)
    return Calibrated(evaluation, values, len(known), known.source, reliable)


def show_calibrated(options: Options, world: World, calibrated: Calibrated | None) -> None:
    """Print the line of the calibrated AUROCs, if there are any."""
    if calibrated is not None:
        show(calibrated.line(options.obj), world)
