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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from CLIP.adapter import MVFA
from CLIP.weights import create_model
from dataset.pixels import pixels_to_rgb, read_rgb, square
from errors import UserError
from mvfa import scoring
from mvfa.calibration import Calibration, Threshold, default_rule, p_value, rank, threshold
from mvfa.checkpoint import adapter_state
from mvfa.detector_description import damaged
from mvfa.detector_file import read_description, read_tensors, write_detector
from mvfa.detector_result import Array, Range, Raw, Result, array_pixels
from mvfa.detector_settings import (
    Settings,
    calibrated,
    check_backbone,
    model_of,
    text_and_bank,
)
from mvfa.distributed import World
from mvfa.engine import score_batch
from mvfa.evaluation import fuse
from mvfa.features import prepare
from mvfa.forms import score_form
from mvfa.halving import Halving
from mvfa.memory import tune_process
from mvfa.predictions import ScoreForm

Picture = str | Path | Image.Image | Array
PatchValues = Callable[[Tensor], list[dict[str, Tensor]]]

BATCH = {"cpu": 1, "cuda": 32}  # images scored at once; on a CPU more are not faster


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
        self.halving = Halving(World())

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
        late: bool = False,
    ) -> "Detector":
        """Load a detector and the CLIP that it was made with.

        Args:
            path: a file that `save` or calibrate.py wrote.
            clip_path: file of the CLIP weights; None: where the model's published file lies.
            device: of the network.
            precision: of the backbone's products; None: that of the calibration.
            threshold: rule, as `set_threshold`; None: the calibration's default.
            late: for a single image, which is scored earlier (CLIP.late).

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
                hash_known=True,  # compared by check_backbone
                late=late,
            )
            tensors = reading.result()
        check_backbone(settings, path, clip_file)
        model = model_of(clip, settings, tensors, path)
        detector = cls(model, *text_and_bank(tensors, settings, path), settings)
        detector.about = {k: v for k, v in about.items() if k not in settings.as_dict()}
        detector.calibrate(*calibrated(tensors, about, path, threshold))
        return detector

    # ---------------------------------------------------------------- calibration

    def calibrate(
        self,
        calibration: Calibration,
        map_ranges: dict[str, Range | None],
        rule: Threshold | None = None,
    ) -> None:
        """Use a calibration and a threshold; without one, the calibration's default."""
        self.calibration = calibration
        self.map_ranges = map_ranges
        self.rule = rule or threshold(default_rule(calibration)[0], calibration)

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
        run = partial(self._values, self.bank if bank is None else bank)
        for batch in images.split(BATCH.get(self.device.type, 1)):
            for rows, values in self.halving(run, batch):
                on_host = {name: tensor.cpu() for name, tensor in values.items()}
                found += [
                    {name: tensor[i : i + 1] for name, tensor in on_host.items()}
                    for i in range(rows.stop - rows.start)
                ]
        return found

    def _values(self, bank: Sequence[Tensor] | None, images: Tensor) -> dict[str, Tensor]:
        """Return what `engine.score_batch` returns for images [B, 3, S, S] uint8."""
        pixels = prepare(images, self.device, self.settings.recipe.scaling)
        return score_batch(
            self.model,
            self.model.stem(pixels),
            self.text,
            bank,
            masks=self.settings.masks,
            form=self.form,
            side=self.settings.img_size,
            maps=True,
        )

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

    def results(
        self, images: Sequence[Image.Image], patch_values: PatchValues | None = None
    ) -> list[Result]:
        """Return the results of RGB images; `patch_values` takes the place of the method."""
        if not images:
            return []
        pixels = torch.stack([square(image, self.settings.img_size) for image in images])
        values = (patch_values or self.patch_values)(pixels)
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
