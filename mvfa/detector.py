"""A detector: everything that turns an image into a score, a p-value and a map, in one file.

    from mvfa import Detector
    detector = Detector.load("ckpt/few-shot/Brain-4shot.detector")
    result = detector("slice.png")
    result.score, result.p_value, result.map, result.overlay()

Constants of the scores come from a calibration set (docs/calibration.md), so an image's score does
not depend on other images. Letters: B images, S image side, H and W of an image, L levels, M rows
of the memory bank, E text width.
"""

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from CLIP.adapter import MVFA
from CLIP.hashing import file_hash
from CLIP.weight_files import weight_path
from CLIP.weights import check_state, create_model
from dataset.intensity import Intensity, intensity
from dataset.pixels import Pixels, pixels_to_rgb, read_rgb, square
from errors import UserError
from mvfa import scoring
from mvfa.calibration import Calibration, Threshold, default_rule, p_value, rank, threshold
from mvfa.checkpoint import Adapters, adapter_state
from mvfa.detector_file import damaged, read_description, read_tensors, write_detector
from mvfa.engine import ScoreForm, score_batch
from mvfa.evaluation import fuse
from mvfa.features import prepare
from mvfa.forms import adapter_form, score_form
from mvfa.memory import tune_process
from mvfa.recipe import Recipe

Array = npt.NDArray[Any]
Picture = str | Path | Image.Image | Array
Range = tuple[float, float]

BATCH = {"cpu": 1, "cuda": 32}  # images scored at once; on a CPU more are not faster


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


@dataclass(frozen=True)
class Raw:
    """Maps [S, S] and scores of one image before fusion; memory is None in zero-shot.

    The scores are None where the image score is the maximum of the fused map.
    """

    text_map: Tensor
    memory_map: Tensor | None
    text_score: Tensor | None
    memory_score: Tensor | None


@dataclass(frozen=True)
class Result:
    """What a detector says of one image.

    Args:
        score: anomaly score, not clipped; higher is more abnormal.
        p_value: share of normal images that score at least as high, conformal (C3).
        rank: how many of the calibration's normal scores it is above, and how many there are.
        threshold: scores above it are flagged.
        scored_map: [S, S] float32, the fused map as it was scored.
        image: the scored image, at its own size.
        span: lowest and highest value of the maps of the calibration set, for display.
        masks: whether the score is the maximum of the map, so that the threshold serves both.

    """

    score: float
    p_value: float
    rank: tuple[int, int]
    threshold: float
    scored_map: npt.NDArray[np.float32]
    image: Image.Image
    span: Range
    masks: bool

    @property
    def flagged(self) -> bool:
        """Whether the score is above the threshold."""
        return self.score > self.threshold

    @cached_property
    def map(self) -> npt.NDArray[np.float32]:
        """The anomaly map at the image's own size, [H, W] float32, not clipped."""
        from mvfa.overlays import native_map

        return native_map(self.scored_map, self.image.size)

    @cached_property
    def boxes(self) -> list[Any]:
        """Boxes (left, top, right, bottom) around what is above the threshold, largest first.

        Empty for objects without masks, whose threshold is not one of pixels.
        """
        if not (self.masks and self.flagged):
            return []
        from mvfa.overlays import boxes

        return boxes(self.scored_map > self.threshold, self.image.size)

    def overlay(self) -> Image.Image:
        """Return the image with the map in colours over it, at its own size.

        For objects with masks a line surrounds what is above the threshold.
        """
        from mvfa.overlays import draw_overlay

        middle = self.threshold if self.masks else sum(self.span) / 2
        return draw_overlay(self.image, self.scored_map, middle, self.span, contour=self.masks)


class Detector:
    """A trained and calibrated model of one object.

    Args:
        model: the vision tower with trained adapters.
        text: text features [E, 2] of the object's noun.
        bank: L times [M, E] of norm 1; None in zero-shot.
        settings: what it is.

    Attributes:
        calibration: constants of the scores and the scores of the calibration set; a detector
            without one gives raw maps and scores only.
        rule: `threshold` and `rule` follow from the calibration, or from `set_threshold`.

    """

    def __init__(
        self, model: MVFA, text: Tensor, bank: Sequence[Tensor] | None, settings: Settings
    ) -> None:
        self.model = model
        self.device = model.visual.class_embedding.device
        self.text = text.to(self.device)
        self.bank = None if bank is None else [level.to(self.device) for level in bank]
        self.settings = settings
        self.about: dict[str, Any] = {}
        self.calibration: Calibration | None = None
        self.map_ranges: dict[str, Range | None] = {}
        self.rule: Threshold | None = None

    # ---------------------------------------------------------------- files

    def save(self, path: Path) -> None:
        """Write the detector's file: tensors and description. Raises OSError."""
        assert self.calibration is not None, "a detector is calibrated before it is saved"
        tensors = {
            f"{head}.{name}": values
            for head, state in adapter_state(self.model).items()
            for name, values in state.items()
        }
        tensors["text"] = self.text
        for level, rows in enumerate(self.bank or ()):
            tensors[f"bank.{level}"] = rows
        for name in ("normal_scores", "abnormal_scores"):
            tensors[name] = torch.from_numpy(getattr(self.calibration, name))
        about = self.about | self.settings.as_dict()
        about |= {"calibration": self.calibration.as_dict(), "map_ranges": self.map_ranges}
        write_detector(path, tensors, about)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        clip_path: str | Path | None = None,
        device: str | torch.device = "cpu",
        precision: str | None = None,
        threshold: str | None = None,
    ) -> "Detector":
        """Load a detector and the CLIP that it was made with.

        Args:
            path: a file that `save` or calibrate.py wrote.
            clip_path: file of the CLIP weights; None: where the model's published file lies.
            device: of the network.
            precision: of the backbone's products; None: that of the calibration.
            threshold: rule, as `set_threshold`; None: the calibration's default.

        Raises:
            UserError: a file is missing or damaged, the CLIP weights are not those that the
                detector was made with, or the calibration does not allow the threshold.

        """
        path = Path(path)
        about = read_description(path)
        try:
            settings = Settings.from_description(about)
        except (ArgumentTypeError, TypeError, ValueError, KeyError) as error:
            raise damaged(path, "its description cannot be read") from error
        clip_file = None if clip_path is None else Path(clip_path)
        tune_process()  # as the scripts do, so that scores are theirs to the last bit
        with ThreadPoolExecutor(1) as pool:  # both take time, and neither needs the other
            reading = pool.submit(read_tensors, path, about)
            clip = create_model(
                settings.model_name,
                clip_file,
                image_size=settings.img_size,
                activation=settings.recipe.activation,
                device=device,
                precision=precision or settings.precision,
            )
            tensors = reading.result()
        check_backbone(settings, path, clip_file)
        form = adapter_form(settings.recipe)
        model = MVFA(clip.visual, settings.embed_dim, settings.features_list, form)
        load_adapters(model, tensors, path)
        detector = cls(model, *text_and_bank(tensors, settings, path), settings)
        detector.about = {k: v for k, v in about.items() if k not in settings.as_dict()}
        scores = [tensors[name].numpy() for name in ("normal_scores", "abnormal_scores")]
        try:
            calibration = Calibration.from_dict(about["calibration"], *scores)
            ranges = {k: v and (float(v[0]), float(v[1])) for k, v in about["map_ranges"].items()}
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise damaged(path, "its calibration cannot be read") from error
        detector.calibrate(calibration, ranges)
        if threshold is not None:
            detector.set_threshold(threshold)
        return detector

    # ---------------------------------------------------------------- calibration

    def calibrate(self, calibration: Calibration, map_ranges: dict[str, Range | None]) -> None:
        """Use a calibration; the threshold becomes its default."""
        self.calibration = calibration
        self.map_ranges = map_ranges
        self.rule = threshold(default_rule(calibration)[0], calibration)

    def set_threshold(self, rule: str) -> Threshold:
        """Set the threshold: fpr=0.05, sens=0.95, f1, max or a number. Raises UserError."""
        assert self.calibration is not None
        self.rule = threshold(rule, self.calibration)
        return self.rule

    # ---------------------------------------------------------------- scores

    @property
    def form(self) -> ScoreForm:
        """How features become scores."""
        return score_form(self.settings.recipe)

    @property
    def fused_map_scores(self) -> bool:
        """Whether an image's score is the maximum of its fused map: for objects with masks."""
        few = self.bank is not None
        return self.settings.masks and few and self.settings.recipe.image_score == "mean"

    @torch.no_grad()
    def patch_values(
        self, images: Tensor, bank: Sequence[Tensor] | None = None
    ) -> list[dict[str, Tensor]]:
        """Return the patch values (engine.score_batch) of each of some images [B, 3, S, S] uint8.

        On a CPU they are computed one by one, so that a score depends on its image alone, to the
        last bit. `bank` takes the place of the detector's (leave-one-out).
        """
        found = []
        for batch in images.split(BATCH.get(self.device.type, 1)):
            pixels = prepare(batch, self.device, self.settings.recipe.scaling)
            values = score_batch(
                self.model,
                self.model.stem(pixels),
                self.text,
                self.bank if bank is None else bank,
                masks=self.settings.masks,
                form=self.form,
                side=self.settings.img_size,
                maps=True,
            )
            on_host = {name: tensor.cpu() for name, tensor in values.items()}
            found += [
                {name: tensor[i : i + 1] for name, tensor in on_host.items()}
                for i in range(len(batch))
            ]
        return found

    def raw(self, values: Mapping[str, Tensor]) -> Raw:
        """Return the maps and scores, before fusion, of one image's patch values."""
        side = self.settings.img_size
        memory = None
        if "distance" in values:
            memory = scoring.memory_map(values["distance"], side)[0]  # [S, S]
        scores = {
            name: values[name][0] if name in values else None
            for name in ("text_scores", "memory_scores")
        }
        return Raw(
            text_map=scoring.text_map(values["logits"], side, self.form.level_reduction)[0],
            memory_map=memory,
            text_score=scores["text_scores"],
            memory_score=scores["memory_scores"],
        )

    def fuse(self, raw: Raw) -> tuple[float, Tensor]:
        """Return the score and the fused map [S, S] of one image (docs/calibration.md, C1)."""
        assert self.calibration is not None, "scores need a calibration"
        fused = fuse(
            raw.text_map, raw.memory_map, self.map_ranges["text"], self.map_ranges["memory"]
        )
        if raw.text_score is None:
            return float(fused.max()), fused
        calibration = self.calibration
        score = fuse(raw.text_score, raw.memory_score, calibration.text, calibration.memory)
        return float(score), fused

    def result(self, raw: Raw, image: Image.Image) -> Result:
        """Return the result of an image from its maps and scores."""
        assert self.calibration is not None
        assert self.rule is not None
        score, fused = self.fuse(raw)
        if not np.isfinite(score):
            raise UserError("the score is not finite; use --precision fp32")
        span = self.map_ranges["fused"]
        assert span is not None
        normal = self.calibration.normal_scores
        return Result(
            score=score,
            p_value=p_value(score, normal),
            rank=rank(score, normal),
            threshold=self.rule.value,
            scored_map=fused.numpy(),
            image=image,
            span=span,
            masks=self.fused_map_scores,
        )

    def results(self, images: Sequence[Image.Image]) -> list[Result]:
        """Return the results of RGB images."""
        if not images:
            return []
        pixels = torch.stack([square(image, self.settings.img_size) for image in images])
        values = self.patch_values(pixels)
        return [self.result(self.raw(v), image) for v, image in zip(values, images, strict=True)]

    @overload
    def __call__(self, images: Picture) -> Result: ...

    @overload
    def __call__(self, images: list[Picture]) -> list[Result]: ...

    def __call__(self, images: Picture | list[Picture]) -> Result | list[Result]:
        """Score an image, or a list of images.

        An image is a path (of any format that predict.py reads as one image), a PIL image, or an
        array [H, W] or [H, W, 3], uint8, or of more bits, scaled as the detector's intensity says.
        Raises UserError for what cannot be read.
        """
        if isinstance(images, list):
            return self.results([self.rgb(image) for image in images])
        return self.results([self.rgb(images)])[0]

    def rgb(self, image: Picture) -> Image.Image:
        """Return a picture as an 8-bit RGB image. Raises UserError."""
        if isinstance(image, str | Path):
            return read_rgb(Path(image), self.settings.intensity)
        if isinstance(image, Image.Image):
            if image.mode.startswith(("I", "F")):
                return self.rgb(np.asarray(image))
            return image.convert("RGB")
        return pixels_to_rgb(array_pixels(image), self.settings.intensity)

    def export(self, kind: str, path: str | Path) -> Path:
        """Write the image-to-map network as "onnx". Raises UserError for another kind."""
        if kind != "onnx":
            raise UserError(f"export {kind!r}: the only kind is 'onnx'")
        from mvfa.export import export_onnx

        export_onnx(self, Path(path))
        return Path(path)


def array_pixels(values: Array) -> Pixels:
    """Return an array as pixels. Raises UserError for another shape or type."""
    values = np.asarray(values)
    colour = values.ndim == 3 and values.shape[2] == 3
    if not (values.ndim == 2 or colour) or values.dtype.kind not in "uif" or not values.size:
        raise UserError(
            f"an array of shape {list(values.shape)} and type {values.dtype} is no image; allowed "
            "are [H, W] and [H, W, 3] of integers or floats"
        )
    if values.dtype.kind == "f":
        full = (0.0, 1.0)
    else:
        limits = np.iinfo(values.dtype)
        full = (float(limits.min), float(limits.max))
    if not np.isfinite(values).all():
        raise UserError("an array holds values that are not finite; replace them")
    return Pixels(
        values=values,
        bits=8 * values.dtype.itemsize,
        full=full,
        window=None,
        inverted=False,
        modality="",
    )


def check_backbone(settings: Settings, path: Path, clip_path: Path | None) -> None:
    """Raise UserError unless the CLIP weights are those that a detector was made with."""
    file = weight_path(settings.model_name, clip_path)
    needed = str(settings.weights["sha256"])
    if file_hash(file) != needed:
        raise UserError(
            f"{path} was made with CLIP weights of SHA-256 {needed[:12]}..., {file} has "
            f"{file_hash(file)[:12]}...; pass its weights with --clip_path FILE"
        )


def load_adapters(model: MVFA, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put a detector's adapters into a model. Raises UserError unless all of them fit."""
    state: Adapters = adapter_state(model)
    for key, expected in state.items():
        prefix = f"{key}."
        own = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        check_state(own, expected, f"the {key} of {path}")
        getattr(model, key).load_state_dict(own)


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
    for name in ("normal_scores", "abnormal_scores"):
        if name not in tensors or tensors[name].ndim != 1:
            raise damaged(path, f"it has no {name}")
    return text, bank or None
