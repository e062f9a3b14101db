"""What a detector is besides its tensors, what its file holds, and where that belongs.

Letters: L levels, M rows of the memory bank, E token width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from CLIP.hashing import file_hash
from CLIP.weight_files import weight_path
from dataset.intensity import Intensity, intensity
from errors import UserError
from mvfa.calibration import Calibration, Threshold, default_rule, pair, threshold
from mvfa.defaults import ZERO
from mvfa.detector_description import damaged
from mvfa.detector_result import Range
from mvfa.methods.catalog import METHODS, MVFA
from mvfa.recipe import Recipe

ADDED = ("method", "method_settings")  # to descriptions, after the first version


@dataclass(frozen=True)
class Settings:
    """What a detector is, besides its tensors."""

    object: str
    noun: str
    masks: bool
    setting: str  # "few", "zero" or "normal" (normal shots with zero-shot adapters)
    shot: int
    features_list: tuple[int, ...]
    embed_dim: int  # E
    recipe: Recipe
    img_size: int
    precision: str
    model_name: str | None
    weights: Mapping[str, Any]  # name and SHA-256 of the backbone's file
    prepare: str
    intensity: Intensity
    method: str = MVFA
    method_settings: Mapping[str, Any] = field(default_factory=dict)  # of `Method.settings`

    @classmethod
    def from_description(cls, about: Mapping[str, Any]) -> "Settings":
        """Return the settings that a detector's description names."""
        # older files have neither a method nor its settings
        names = [name for name in cls.__dataclass_fields__ if name not in ADDED]
        values = {name: about[name] for name in names}
        values |= {name: about[name] for name in ADDED if about.get(name) is not None}
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


def map_ranges(plain: Mapping[str, Any]) -> dict[str, Range | None]:
    """Return the ranges of a detector's maps, None of a branch that it does not have.

    Raises KeyError, TypeError or ValueError for values that cannot be ranges.
    """
    return {
        "text": None if plain["text"] is None else pair(plain["text"]),
        "memory": None if plain["memory"] is None else pair(plain["memory"]),
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
        ranges = map_ranges(about["map_ranges"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "its calibration cannot be read") from error
    found = threshold(rule or default_rule(calibration)[0], calibration)
    return Calibrated(calibration, ranges, found)


def check_branches(
    found: Calibrated, settings: Settings, bank: list[Tensor] | None, path: Path
) -> None:
    """Raise UserError unless a calibration has ranges of the branches that a detector scores."""
    info = METHODS[settings.method]
    scored = {"text": info.sentences, "memory": info.memory_branch and bank is not None}
    for name, expected in scored.items():
        for ends in (getattr(found.calibration, name), found.map_ranges[name]):
            if (ends is not None) != expected:
                raise damaged(path, f"its {name} branch and its calibration do not fit")


def check_backbone(settings: Settings, path: Path, clip_path: Path | None) -> None:
    """Raise UserError unless the weights are those that a detector was made with."""
    file = weight_path(settings.model_name, clip_path)
    needed = str(settings.weights["sha256"])
    if file_hash(file) != needed:
        raise UserError(
            f"{path} was made with weights of SHA-256 {needed[:12]}..., {file} has "
            f"{file_hash(file)[:12]}...; pass its weights with --clip_path FILE"
        )


def bank_of(
    tensors: Mapping[str, Tensor], settings: Settings, levels: int, width: int, path: Path
) -> list[Tensor] | None:
    """Return the memory bank of a detector whose method has one of some levels (0: none), E wide.

    None in zero-shot. Raises UserError if the bank is damaged.
    """
    expected = 0 if settings.setting == ZERO else levels
    bank = [tensors[f"bank.{i}"] for i in range(levels) if f"bank.{i}" in tensors]
    if len(bank) != expected:
        raise damaged(path, f"it has {len(bank)} levels of a memory bank")
    if any(rows.ndim != 2 or rows.shape[1] != width or not len(rows) for rows in bank):
        raise damaged(path, "its memory bank has another shape")
    return bank or None
