"""Make a detector of a trained model: what it is, where it comes from, and its calibration.

Letters: n images of the calibration set, S image side, L levels, M rows of the memory bank.
"""

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from CLIP.hashing import file_hash, sha256
from dataset.catalog import ObjectInfo
from dataset.shots import Shots
from errors import UserError
from mvfa.calibration import Calibration, names_hash, scores_by_label
from mvfa.calibration_set import VALID, CalibrationSet
from mvfa.checkpoint import load
from mvfa.console import progress
from mvfa.detector import Detector
from mvfa.detector_result import Range
from mvfa.detector_settings import Settings
from mvfa.distributed import World
from mvfa.environment import Environment
from mvfa.evaluation import fuse
from mvfa.methods.base import Method
from mvfa.options import Options
from mvfa.versions import commit, versions

HERE = World()


def settings_of(options: Options, target: ObjectInfo, method: Method, env: Environment) -> Settings:
    """Return what a detector of these options is."""
    kind = "normal" if options.abnormal_shot == 0 else options.setting
    return Settings(
        object=target.name,
        noun=target.noun,
        masks=target.masks,
        setting=kind,
        shot=options.shot,
        features_list=tuple(options.features_list),
        embed_dim=method.embed_dim,
        recipe=options.recipe,
        img_size=options.img_size,
        precision=env.precision,
        model_name=options.model_name,
        weights={"file": method.weights.name, "sha256": file_hash(method.weights)},
        prepare=options.prepare,
        intensity=target.intensity,
        method=options.method,
        method_settings=method.settings(),
    )


def selection_of(adapters: Path | None, method: Method) -> str:
    """Return the rule that chose the epoch of a checkpoint; "" if there is none that says so."""
    if adapters is None:
        return ""
    options = load(adapters, method.keys).about.get("options")
    recipe = options.get("recipe") if isinstance(options, dict) else None
    return str(recipe.get("select", "")) if isinstance(recipe, dict) else ""


def origin(options: Options, adapters: Path | None, shots: Shots) -> dict[str, Any]:
    """Return where a detector comes from, for its file."""
    return {
        "adapters": adapters and {"file": adapters.name, "sha256": sha256(adapters)},
        "shots": shots.names(),
        "seed": options.seed,
        "versions": versions(),
        "commit": commit(),
    }


class Spans:
    """The lowest and highest value seen so far, by name."""

    def __init__(self) -> None:
        self.found: dict[str, Range] = {}

    def add(self, name: str, values: Tensor | None) -> None:
        """Take in the values of one image, if there are any."""
        if values is None:
            return
        low = float(values.min())
        high = float(values.max())
        if name in self.found:
            low = min(low, self.found[name][0])
            high = max(high, self.found[name][1])
        self.found[name] = (low, high)

    def get(self, name: str) -> Range | None:
        """Return a range, None if no values were seen."""
        return self.found.get(name)


def calibrate(detector: Detector, known: CalibrationSet, selection: str) -> Calibration:
    """Calibrate a detector with a set of images; return the calibration (docs/calibration.md).

    `selection` is the rule that chose the adapters' epoch, "" where it is not known. The first pass
    takes the constants, the second the scores. Patch values are all that is stored
    of an image between them. Raises UserError if a value is not finite.
    """
    spans = Spans()
    values = []
    with progress(len(known), "calibrate", "image", HERE) as bar:
        for image, bank in known.pairs(detector.method):
            values += detector.patch_values(image[None], bank)
            raw = detector.raw(values[-1])
            spans.add("text", raw.text_map)
            spans.add("memory", raw.memory_map)
            spans.add("text_score", raw.text_score)
            spans.add("memory_score", raw.memory_score)
            bar.update()
    if not all(math.isfinite(end) for span in spans.found.values() for end in span):
        raise UserError("the scores of the calibration are not finite; use --precision fp32")
    has_score = detector.raw(values[-1]).has_score
    kinds = ("text_score", "memory_score") if has_score else ("text", "memory")
    text, memory = (spans.get(kind) for kind in kinds)
    ranges = {"text": spans.get("text"), "memory": spans.get("memory")}
    scores = []
    for one in values:
        raw = detector.raw(one)
        fused = fuse(raw.text_map, raw.memory_map, ranges["text"], ranges["memory"])
        spans.add("fused", fused)
        score = fused.max()
        if raw.has_score:
            score = fuse(raw.text_score, raw.memory_score, text, memory)
        scores.append(float(score))
    ranges["fused"] = spans.get("fused")
    calibration = make_calibration(known, scores, text, memory, selection)
    detector.calibrate(calibration, ranges)
    return calibration


def make_calibration(
    known: CalibrationSet,
    scores: list[float],
    text: Range | None,
    memory: Range | None,
    selection: str,
) -> Calibration:
    """Return the calibration of scores [n]: one a case where cases are known (C2)."""
    pattern = known.images.records[0].object.cases
    normal, abnormal, by = scores_by_label(known.names, known.labels, scores, pattern, known.cases)
    return Calibration(
        source=known.source,
        names_sha256=names_hash(known.names),
        text=text,
        memory=memory,
        normal_scores=normal,
        abnormal_scores=abnormal,
        by=by,
        selection_used_it=known.source == VALID and selection == "valid",
    )
