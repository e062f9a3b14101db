"""A detector: everything that turns an image into a score, a p-value and a map, in one file.

    from mvfa import Detector
    detector = Detector.load("ckpt/few-shot/Brain-4shot.detector")
    result = detector("slice.png")
    result.score, result.p_value, result.map, result.overlay()

Constants of the scores come from a calibration set (docs/calibration.md), so an image's score does
not depend on other images. Letters: B images, S image side, H and W of an image, L levels, M rows
of the memory bank, E token width.
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

from dataset.pixels import pixels_to_rgb, read_rgb
from errors import UserError
from mvfa.accelerator import exact_products, is_cuda
from mvfa.calibration import Calibration, Threshold, default_rule, p_value, rank, threshold
from mvfa.detector_description import damaged
from mvfa.detector_file import Later, read_description, read_tensors, write_detector
from mvfa.detector_result import Array, Range, Raw, Result, array_pixels
from mvfa.detector_settings import Settings, bank_of, calibrated, check_backbone, check_branches
from mvfa.distributed import World
from mvfa.evaluation import fuse
from mvfa.halving import Halving
from mvfa.memory import tune_process
from mvfa.methods.base import Images, Method, Source
from mvfa.methods.making import load_method

Picture = str | Path | Image.Image | Array
PatchValues = Callable[[Images], list[dict[str, Tensor]]]

HOST_BATCH = 1  # images scored at once: on a CPU more are not faster
DEVICE_BATCH = 32  # on CUDA


class Detector:
    """A trained and calibrated model of one object.

    Args:
        method: the backbone with what was trained on it (mvfa/methods/).
        bank: L times [M, E] of norm 1; None without a memory branch.
        settings: what it is.

    Attributes:
        calibration: constants of the scores and the scores of the calibration set; a detector
            without one gives raw maps and scores only.
        rule: `threshold` and `rule` follow from the calibration, or from `set_threshold`.

    """

    def __init__(self, method: Method, bank: Sequence[Tensor] | None, settings: Settings) -> None:
        self.method = method
        self.device = method.device
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
        tensors = self.method.tensors()
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
        """Load a detector and the backbone that it was made with.

        Args:
            path: a file that `save` or calibrate.py wrote.
            clip_path: file of the backbone's weights; None: where the published file lies.
            device: of the network.
            precision: of the backbone's products; None: that of the calibration.
            threshold: rule, as `set_threshold`; None: the calibration's default.
            late: for a single image, which is scored earlier (CLIP.late).

        Raises:
            UserError: a file is missing or damaged, the weights are not those that the
                detector was made with, or the calibration does not allow the threshold.

        """
        path = Path(path)
        about = read_description(path)
        try:
            settings = Settings.from_description(about)
        except (ArgumentTypeError, TypeError, ValueError, KeyError) as error:
            raise damaged(path, "its description cannot be read") from error
        clip_file = None if clip_path is None else Path(clip_path)
        exact_products()
        tune_process()  # as the scripts do, so that scores are theirs to the last bit
        source = Source(
            path, clip_file, torch.device(device), precision or settings.precision, late
        )
        with ThreadPoolExecutor(1) as pool:  # reading takes time, and so does the backbone
            tensors = Later(pool.submit(read_tensors, path, about))
            method = load_method(settings, tensors, source)
        check_backbone(settings, path, clip_file)
        method.prepare_scores()
        bank = bank_of(tensors, settings, method.bank_levels, method.embed_dim, path)
        detector = cls(method, bank, settings)
        detector.about = {k: v for k, v in about.items() if k not in settings.as_dict()}
        found = calibrated(tensors, about, path, threshold)
        check_branches(found, settings, detector.bank, path)
        detector.calibrate(*found)
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
    def map_scores(self) -> bool:
        """Whether an image's score is the maximum of its map: then a threshold serves both."""
        return self.method.map_scores(few=self.bank is not None)

    @torch.no_grad()
    def patch_values(
        self, images: Images, bank: Sequence[Tensor] | None = None
    ) -> list[dict[str, Tensor]]:
        """Return the patch values (`Method.score`) of each of some images, uint8.

        images: [B, 3, S, S], or B of the sizes that the method wants (`Method.fit`). On a CPU they
        are computed one by one, so that a score depends on its image alone, to the last bit. `bank`
        takes the place of the detector's (leave-one-out).
        """
        found = []
        run = partial(self._values, self.bank if bank is None else bank)
        size = DEVICE_BATCH if is_cuda(self.device) else HOST_BATCH
        for batch in (images[first : first + size] for first in range(0, len(images), size)):
            for rows, values in self.halving(run, batch):
                on_host = {name: tensor.cpu() for name, tensor in values.items()}
                found += [
                    {name: tensor[i : i + 1] for name, tensor in on_host.items()}
                    for i in range(rows.stop - rows.start)
                ]
        return found

    def _values(self, bank: Sequence[Tensor] | None, images: Images) -> dict[str, Tensor]:
        """Return what `Method.score` returns for images."""
        return self.method.score(self.method.features(images), bank, maps=True)

    def raw(self, values: Mapping[str, Tensor]) -> Raw:
        """Return the maps and scores, before fusion, of one image's patch values."""
        side = self.settings.img_size
        form = self.method.form
        text = memory = None
        if "logits" in values:
            text = form.text_map(values["logits"], side)[0]  # [S, S]
        if "distance" in values:
            memory = form.memory_map(values["distance"], values.get("sizes"), side)[0]
        scores = {
            name: values[name][0] if name in values else None
            for name in ("text_scores", "memory_scores")
        }
        return Raw(
            text_map=text,
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
        if not raw.has_score:
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
            masks=self.map_scores,
        )

    def results(
        self, images: Sequence[Image.Image], patch_values: PatchValues | None = None
    ) -> list[Result]:
        """Return the results of RGB images; `patch_values` takes the place of the method."""
        if not images:
            return []
        pixels: Images = [self.method.fit(image) for image in images]
        if len({tensor.shape for tensor in pixels}) == 1:
            pixels = torch.stack(list(pixels))
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
