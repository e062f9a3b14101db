"""Export a detector's network from image to map as ONNX, for programs without torch.

    detector.export("onnx", "brain.onnx")

Backbone, adapters, text features, memory bank and the constants of the scores are all in the file.
Letters: B images, S image side, L levels, N patches, D vision width, E text width, M rows of the
memory bank.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from CLIP.late import convert_now
from CLIP.model import cast_blocks
from dataset.extras import need
from errors import UserError
from mvfa import __version__
from mvfa.evaluation import fuse
from mvfa.methods.catalog import METHODS, MVFA
from mvfa.methods.mvfa import Mvfa
from mvfa.versions import commit
from utils import flush, part_of

if TYPE_CHECKING:
    from mvfa.detector import Detector

ONE_FILE = 1_800_000_000  # bytes of weights; an ONNX file holds at most 2 GiB
RESEARCH_ONLY = "Research software, not a medical device: not for diagnosis or any clinical use."
PREPROCESSING = (
    "RGB of 8 bit, resized to image_size x image_size by Pillow's bicubic filter, ignoring the "
    "aspect ratio, as float32 / 255: [B, 3, image_size, image_size] in [0, 1]; any other "
    "normalisation is part of the network"
)


class ImageToMap(nn.Module):
    """The network of a detector: images to calibrated maps and scores (docs/calibration.md, C1).

    It computes in float32 on the CPU, whatever the detector's precision and device.

    Args:
        detector: a calibrated one. Its own network is not changed.

    """

    def __init__(self, detector: "Detector") -> None:
        super().__init__()
        assert detector.calibration is not None, "a detector is calibrated before it is exported"
        assert isinstance(detector.method, Mvfa)
        method = detector.method
        model = method.model
        convert_now(model.visual.transformer)
        if detector.device.type != "cpu" or detector.settings.precision != "fp32":
            model = deepcopy(model).cpu()
            cast_blocks(model.visual.transformer, torch.float32)
        # its text features are a plain dictionary, which the exporter takes for constants
        self.method = Mvfa(
            model,
            {noun: text.cpu() for noun, text in method.text.items()},
            method.recipe,
            detector.settings,
            method.side,
            method.weights,
        )
        self.bank = None
        if detector.bank is not None:
            levels = [nn.Parameter(rows.cpu(), requires_grad=False) for rows in detector.bank]
            self.bank = nn.ParameterList(levels)
        self.settings = detector.settings
        self.map_ends = (detector.map_ranges["text"], detector.map_ranges["memory"])
        self.score_ends = (detector.calibration.text, detector.calibration.memory)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps [B, S, S] and scores [B] of images [B, 3, S, S], float32 in [0, 1].

        Neither is clipped. They are those of `Detector`.
        """
        side = self.settings.img_size
        form = self.method.form
        features = self.method.features(images)  # [B, 1 + N, D]
        bank = None if self.bank is None else list(self.bank)  # L times [M, E]
        values = self.method.score(features, bank, maps=True)
        text_map = form.text_map(values["logits"], side)
        memory_map = None
        if "distance" in values:
            memory_map = form.memory_map(values["distance"], None, side)
        fused = fuse(text_map, memory_map, *self.map_ends)  # [B, S, S]
        if "text_scores" not in values:
            return fused, fused.flatten(1).amax(dim=1)
        score = fuse(values["text_scores"], values.get("memory_scores"), *self.score_ends)
        return fused, score


def metadata(detector: "Detector") -> dict[str, str]:
    """Return what an exported file says of itself: texts by name."""
    settings = detector.settings
    assert detector.rule is not None
    assert detector.calibration is not None
    return {
        "program": f"mvfa {__version__}",
        "commit": commit() or "unknown",
        "use": RESEARCH_ONLY,
        "object": settings.object,
        "noun": settings.noun,
        "setting": settings.setting,
        "shot": str(settings.shot),
        "image_size": str(settings.img_size),
        "preprocessing": PREPROCESSING,
        "intensity": str(settings.intensity),
        "prepare": settings.prepare,
        "recipe": json.dumps(settings.recipe.as_dict()),
        "weights": json.dumps(dict(settings.weights)),
        "score": "maximum of the map" if detector.map_scores else "of the whole image",
        "threshold": repr(detector.rule.value),
        "threshold_rule": detector.rule.rule,
        "normal_scores": json.dumps(detector.calibration.normal_scores.tolist()),
    }


def export_onnx(detector: "Detector", path: Path) -> None:
    """Write the network of a calibrated detector as ONNX.

    Input `images` [B, 3, S, S] float32 in [0, 1], outputs `map` [B, S, S] and `score` [B] float32,
    for any B. The file's metadata says what it is (see `metadata`), with the threshold and the
    normal scores that p-values are computed from. Weights of more than 1.8 GB go to a second file,
    `<path>.data`, which must stay beside it.

    Args:
        detector: network, text features, memory bank and calibration.
        path: the file to write; it is replaced if it exists.

    Raises:
        UserError: another method than MVFA, or a package is missing (requirements-onnx.txt).
        OSError: the file cannot be written.

    """
    if not isinstance(detector.method, Mvfa):
        raise UserError(
            f"a detector of {METHODS[detector.settings.method].title} cannot be exported; allowed "
            f"are those of {METHODS[MVFA].title}"
        )
    for package in ("onnx", "onnxscript"):
        need(package, "onnx")
    network = ImageToMap(detector).eval()
    side = detector.settings.img_size
    example = torch.zeros(2, 3, side, side)  # sizes of 1 would be taken for constants
    with torch.no_grad():
        network(example)  # fills caches with tensors, else the export fills them with symbols
        with quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=["map", "score"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
    assert program is not None
    program.model.metadata_props.update(metadata(detector))
    size = sum(weight.nbytes for weight in network.state_dict().values())
    with part_of(path) as folder:
        folder.mkdir()
        program.save(folder / path.name, external_data=size > ONE_FILE)
        for part in sorted(folder.iterdir(), reverse=True):  # the weights first
            flush(part)
            part.replace(path.parent / part.name)


@contextmanager
def quiet() -> Iterator[None]:
    """Within, hide the exporter's remarks on what it does not simplify, and on its own code."""
    logger = getLogger("onnxscript")
    level = logger.level
    logger.setLevel(ERROR)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            yield
    finally:
        logger.setLevel(level)
