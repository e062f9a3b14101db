"""What a detector is besides its tensors, what its file holds, and where that belongs.

Letters: L levels, M rows of the memory bank, E text width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from CLIP.adapter import MVFA
from CLIP.hashing import file_hash
from CLIP.model import CLIP
from CLIP.undrawn import Undrawn
from CLIP.weight_files import weight_path
from CLIP.weights import check_state
from dataset.intensity import Intensity, intensity
from errors import UserError
from mvfa.calibration import Calibration, Threshold, default_rule, pair, threshold
from mvfa.checkpoint import Adapters, adapter_state
from mvfa.detector_description import damaged
from mvfa.detector_result import Range
from mvfa.forms import adapter_form
from mvfa.recipe import Recipe


@dataclass(frozen=True)
class Settings:
    """What a detector is, besides its tensors."""

    object: str
    noun: str
    masks: bool
    setting: str  # "few", "zero" or "normal" (normal shots with zero-shot adapters)
    shot: int
    features_list: tuple[int, ...]
    embed_dim: int
    recipe: Recipe
    img_size: int
    precision: str
    model_name: str | None
    weights: Mapping[str, Any]  # name and SHA-256 of the backbone's file
    prepare: str
    intensity: Intensity

    @classmethod
    def from_description(cls, about: Mapping[str, Any]) -> "Settings":
        """Return the settings that a detector's description names."""
        values = {name: about[name] for name in cls.__dataclass_fields__}
        values["features_list"] = tuple(values["features_list"])
        values["recipe"] = Recipe(**values["recipe"])
        values["intensity"] = intensity(values["intensity"])
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the file."""
        plain = dict(vars(self))
        plain["recipe"] = self.recipe.as_dict()
        plain["features_list"] = list(self.features_list)
        plain["intensity"] = str(self.intensity)
        return plain


def map_ranges(plain: Mapping[str, Any], *, few: bool) -> dict[str, Range | None]:
    """Return the ranges of a detector's maps; `few`: whether it has a memory branch.

    Raises KeyError, TypeError or ValueError for values that cannot be ranges.
    """
    return {
        "text": pair(plain["text"]),
        "memory": pair(plain["memory"]) if few else None,
        "fused": pair(plain["fused"]),
    }


class Calibrated(NamedTuple):
    """The calibration in a detector's file, and the threshold."""

    calibration: Calibration
    map_ranges: dict[str, Range | None]
    rule: Threshold


def calibrated(
    tensors: Mapping[str, Tensor], about: Mapping[str, Any], path: Path, rule: str | None
) -> Calibrated:
    """Return the calibration of a detector's tensors and description, and a rule's threshold.

    `rule` None: the calibration's default. Raises UserError for a damaged file, and for a rule that
    the calibration does not allow.
    """
    scores = []
    for name in ("normal_scores", "abnormal_scores"):
        if name not in tensors or tensors[name].ndim != 1:
            raise damaged(path, f"it has no {name}")
        scores.append(tensors[name].numpy())
    try:
        calibration = Calibration.from_dict(about["calibration"], *scores)
        ranges = map_ranges(about["map_ranges"], few=about["setting"] != "zero")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "its calibration cannot be read") from error
    found = threshold(rule or default_rule(calibration)[0], calibration)
    return Calibrated(calibration, ranges, found)


def check_backbone(settings: Settings, path: Path, clip_path: Path | None) -> None:
    """Raise UserError unless the CLIP weights are those that a detector was made with."""
    file = weight_path(settings.model_name, clip_path)
    needed = str(settings.weights["sha256"])
    if file_hash(file) != needed:
        raise UserError(
            f"{path} was made with CLIP weights of SHA-256 {needed[:12]}..., {file} has "
            f"{file_hash(file)[:12]}...; pass its weights with --clip_path FILE"
        )


def model_of(clip: CLIP, settings: Settings, tensors: Mapping[str, Tensor], path: Path) -> MVFA:
    """Return a detector's model: the vision tower and its adapters. UserError unless all fit."""
    with Undrawn():
        model = MVFA(
            clip.visual,
            settings.embed_dim,
            settings.features_list,
            adapter_form(settings.recipe),
        )
    state: Adapters = adapter_state(model)
    for key, expected in state.items():
        prefix = f"{key}."
        own = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        check_state(own, expected, f"the {key} of {path}")
        getattr(model, key).load_state_dict(own, assign=True)
    return model


def text_and_bank(
    tensors: Mapping[str, Tensor], settings: Settings, path: Path
) -> tuple[Tensor, list[Tensor] | None]:
    """Return text features and memory bank of a detector. Raises UserError if they do not fit."""
    width = settings.embed_dim
    text = tensors.get("text")
    if text is None or text.shape != (width, 2):
        raise damaged(path, "its text features have another shape")
    levels = len(settings.features_list)
    bank = [tensors[f"bank.{i}"] for i in range(levels) if f"bank.{i}" in tensors]
    if len(bank) != (0 if settings.setting == "zero" else levels):
        raise damaged(path, f"it has {len(bank)} levels of a memory bank")
    if any(rows.ndim != 2 or rows.shape[1] != width or not len(rows) for rows in bank):
        raise damaged(path, "its memory bank has another shape")
    return text, bank or None
