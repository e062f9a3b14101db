"""AUROCs of a test set whose scores are scaled by constants of other images (docs/calibration.md).

A detector knows no test set: its constants come from a calibration set (C1). A test shows what that
changes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from CLIP.adapter import MVFA
from dataset.catalog import ObjectInfo
from dataset.folder import ImageSet
from dataset.shots import Shots
from errors import UserError
from mvfa.calibration import LEFT_OUT, SOURCES
from mvfa.calibration_set import (
    VERSIONS,
    CalibrationSet,
    calibration_images,
    in_image_order,
    leave_one_out,
)
from mvfa.console import note, show
from mvfa.distributed import World
from mvfa.engine import predict
from mvfa.evaluation import Constants, Evaluation, constants_of, evaluate, joined
from mvfa.forms import score_arguments
from mvfa.loaders import Loaders
from mvfa.options import Options
from mvfa.predictions import Predictions


@dataclass(frozen=True)
class Calibrated:
    """The evaluation of a test set with constants, and the images these are of.

    AUROCs and the order of the scores are calibrated, see `mvfa.evaluation.evaluate`.
    """

    evaluation: Evaluation
    constants: Constants
    images: int
    source: str

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
            "source": self.source,
            "images": self.images,
            "lo_hi": self.constants.as_dict(),
        }


def known_images(
    options: Options, target: ObjectInfo, shots: Shots, world: World
) -> CalibrationSet | None:
    """Return the images that the constants of a test are taken of, whatever their labels.

    None, with a note, where there are none or one cannot be used; None with --calibrated no.
    """
    if not options.calibrated:
        return None
    try:
        found = calibration_images(options, target, shots, world, any_label=True)
    except UserError as error:  # an image without its mask, say
        note(f"no calibrated AUROC: {error}", world)
        return None
    if found is None:
        shown = f"valid/ of {target.name} has no images but shots, and one shot cannot be left out"
        note(f"no calibrated AUROC: {shown}", world)
        return None
    return CalibrationSet(*found)


def known_constants(
    known: CalibrationSet, model: MVFA, loaders: Loaders, text: Tensor, bank: Sequence[Tensor]
) -> Constants:
    """Score the known images; return their constants, on every rank.

    text [E, 2]; bank: L times [M, E], as `build_memory` returns it. A shot is scored with the bank
    of the others.
    """
    world = loaders.env.world
    arguments = score_arguments(loaders.options, known.images.records[0].object)
    arguments["maps"] = False  # objects without masks have constants of their scores only
    parts: Iterable[tuple[ImageSet, list[Tensor]]] = [(known.images, list(bank))]
    if known.source == LEFT_OUT:
        versions = VERSIONS * len(known)
        ordered = in_image_order(bank, versions, loaders.env.test_batch_size, world)
        singles = [ImageSet([record], known.images.side) for record in known.images.records]
        parts = zip(singles, leave_one_out(ordered, len(known)), strict=True)
    found = []
    for images, own_bank in parts:
        predictions = predict(model, loaders.scoring(images), text, own_bank, **arguments)
        found.append(world.from_first(partial(constants_of, predictions)))
    return joined(found)


def evaluate_calibrated(
    predictions: Predictions,
    known: CalibrationSet | None,
    model: MVFA,
    loaders: Loaders,
    text: Tensor,
    bank: Sequence[Tensor],
) -> Calibrated | None:
    """Evaluate a scored test set with the constants of known images; None without any.

    None, with a note, if one of them turns out to be unusable: the test itself does not need it.
    """
    if known is None:
        return None
    world = loaders.env.world
    try:
        constants = known_constants(known, model, loaders, text, bank)
    except UserError as error:  # a file that is cut short, say
        if world.size > 1:  # the other processes wait for this one
            raise
        note(f"no calibrated AUROC: {error}", world)
        return None
    evaluation = evaluate(predictions, world, constants)
    return Calibrated(evaluation, constants, len(known), known.source)


def show_calibrated(options: Options, world: World, calibrated: Calibrated | None) -> None:
    """Print the line of the calibrated AUROCs, if there are any."""
    if calibrated is not None:
        show(calibrated.line(options.obj), world)
