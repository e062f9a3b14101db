"""A test without the images of cases (patients) that gave a shot (docs/trust.md).

Slices of one patient look alike, so a memory bank of one of them knows the others.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from dataset.cases import places
from dataset.catalog import ObjectInfo
from dataset.folder import ImageSet
from dataset.layout import object_folder
from dataset.shots import Shots
from errors import UserError
from mvfa.console import note, show
from mvfa.distributed import World
from mvfa.evaluation import Evaluation, evaluate
from mvfa.options import Options
from mvfa.predictions import PATCH_VALUES, Predictions


def subset(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    """Return the predictions of some images of a set, in the order of `rows`."""
    index = torch.tensor(rows, dtype=torch.long)
    values = {name: getattr(predictions, name) for name in PATCH_VALUES}
    parts: dict[str, Any] = {
        name: None if value is None else value[index.to(value.device)]
        for name, value in values.items()
    }
    masks = predictions.masks
    return replace(
        predictions,
        labels=predictions.labels[index],
        members=list(range(len(rows))),
        masks=None if masks is None else [masks[row] for row in rows],
        **parts,
    )


def other_cases(
    options: Options, target: ObjectInfo, shots: Shots, images: ImageSet
) -> tuple[set[str], list[int]]:
    """Return the cases of the shots, and the positions of test images that are of no such case.

    Names of shots and test images are read together, as dataset/cases.py asks. Raises UserError for
    a cases.csv that cannot be used.
    """
    folder = object_folder(options.data_path, target.name)
    chosen = [*shots.normal, *shots.abnormal]
    found = places([*chosen, *images.records], target, folder)
    cases = {place.case for place in found[: len(chosen)] if place.case is not None}
    tested = found[len(chosen) :]
    return cases, [i for i, place in enumerate(tested) if place.case not in cases]


def evaluate_or_say(predictions: Predictions) -> Evaluation | str:
    """Return the evaluation of some images, or why there is none, such as masks without a mark."""
    try:
        return evaluate(predictions)
    except UserError as error:
        return str(error)


def evaluate_disjoint(
    options: Options,
    world: World,
    predictions: Predictions,
    test_set: ImageSet,
    shots: Shots,
    target: ObjectInfo,
) -> dict[str, Any] | None:
    """Return AUROCs of the test images whose case gave no shot, if --disjoint_cases asks for them.

    They are scored anew: scaled over the remaining images. AUROCs are None, and a note says why,
    where no case is known or one label remains. Raises UserError for a cases.csv that cannot be
    used.
    """
    if not options.disjoint_cases:
        return None
    cases, rows = other_cases(options, target, shots, test_set)
    abnormal = int(test_set.labels[rows].sum()) if rows else 0
    result: dict[str, Any] = {
        "image_auroc": None,
        "pixel_auroc": None,
        "images": len(rows),
        "normal": len(rows) - abnormal,
        "abnormal": abnormal,
        "left_out": len(test_set) - len(rows),
        "cases": len(cases),
    }
    if not cases:
        note("--disjoint_cases: the names of the shots show no case (docs/data.md)", world)
        return result
    if abnormal in (0, len(rows)):
        kept = f"{abnormal} abnormal and {len(rows) - abnormal} normal images remain"
        note(f"--disjoint_cases: {kept}, and an AUROC needs both", world)
        return result
    evaluation = world.from_first(lambda: evaluate_or_say(subset(predictions, rows)))
    if isinstance(evaluation, str):
        note(f"--disjoint_cases: {evaluation}", world)
        return result
    result |= {"image_auroc": evaluation.image_auroc, "pixel_auroc": evaluation.pixel_auroc}
    values = f"AUC {evaluation.image_auroc:.4f}"
    if evaluation.pixel_auroc is not None:
        values += f", pAUC {evaluation.pixel_auroc:.4f}"
    left = f"without {result['left_out']} images of {len(cases)} cases that gave a shot"
    show(f"{options.obj} disjoint cases: {values} ({len(rows)} images, {left})", world)
    return result
