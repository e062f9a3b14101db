"""Small detectors with random adapters, sentences and memory banks: nothing is trained."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from CLIP.adapter import MVFA
from CLIP.hashing import file_hash
from CLIP.weights import create_model
from dataset.intensity import Intensity
from mvfa import detector_file
from mvfa.calibration import Calibration
from mvfa.detector import Detector
from mvfa.detector_file import read_description
from mvfa.detector_making import Spans
from mvfa.detector_settings import Settings
from mvfa.evaluation import fuse
from mvfa.forms import adapter_form
from mvfa.recipe import RECIPES, Recipe
from tests.methods import mvfa_method

LEVELS = (1, 2, 3, 4)
ROWS = 40  # of the memory bank
SETTING = Settings(
    object="Brain",
    noun="Brain",
    masks=True,
    setting="few",
    shot=4,
    features_list=LEVELS,
    embed_dim=64,
    recipe=RECIPES["released"],
    img_size=32,
    precision="fp32",
    model_name=None,
    weights={},
    prepare="none",
    intensity=Intensity("auto"),
)


def random_images(count: int, side: int, seed: int = 5) -> torch.Tensor:
    """Return images [n, 3, S, S] uint8 of random squares on a random ground."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 4, 4), generator=generator)
    fine = torch.randint(0, 256, (count, 3, side, side), generator=generator)
    squares = coarse.repeat_interleave(side // 4, 2).repeat_interleave(side // 4, 3)
    return ((3 * squares + fine) // 4).to(torch.uint8)


def random_detector(
    weights: Path, *, few: bool = True, masks: bool = True, recipe: Recipe | None = None
) -> Detector:
    """Return a detector of the tiny network, calibrated with random images."""
    recipe = recipe or RECIPES["released"]
    settings = replace(
        SETTING,
        masks=masks,
        recipe=recipe,
        setting="few" if few else "zero",
        shot=4 if few else 0,
        weights={"file": weights.name, "sha256": file_hash(weights)},
    )
    clip = create_model(None, weights, image_size=settings.img_size, activation=recipe.activation)
    generator = torch.Generator().manual_seed(3)
    width = settings.embed_dim
    model = MVFA(clip.visual, width, LEVELS, adapter_form(recipe), generator)
    text = normalize(torch.randn(width, 2, generator=generator), dim=0)
    rows = torch.randn(len(LEVELS), ROWS, width, generator=generator)
    bank = list(normalize(rows, dim=-1)) if few else None
    method = mvfa_method(
        model,
        {settings.noun: text},
        noun=settings.noun,
        masks=masks,
        recipe=recipe,
        side=settings.img_size,
        weights=weights,
    )
    detector = Detector(method, bank, settings)
    calibrate(detector, random_images(6, settings.img_size))
    return detector


def calibrate(detector: Detector, images: torch.Tensor) -> None:
    """Calibrate a detector with images [n, 3, S, S] uint8, all of them normal."""
    raws = [detector.raw(values) for values in detector.patch_values(images)]
    spans = Spans()
    for raw in raws:
        for name in ("text_map", "memory_map", "text_score", "memory_score"):
            spans.add(name, getattr(raw, name))
    ends = (spans.get("text_map"), spans.get("memory_map"))
    for raw in raws:
        spans.add("fused", fuse(raw.text_map, raw.memory_map, *ends))
    ranges = {"text": ends[0], "memory": ends[1], "fused": spans.get("fused")}
    of_scores = (
        ends
        if raws[0].text_score is None
        else tuple(spans.get(name) for name in ("text_score", "memory_score"))
    )
    unscored = Calibration(
        source="normals",
        names_sha256="0" * 64,
        text=of_scores[0],
        memory=of_scores[1],
        normal_scores=torch.zeros(0).numpy(),
        abnormal_scores=torch.zeros(0).numpy(),
        by="image",
        selection_used_it=False,
    )
    detector.calibration = unscored
    detector.map_ranges = ranges
    scores = torch.tensor([detector.fuse(raw)[0] for raw in raws])
    detector.calibrate(replace(unscored, normal_scores=scores.numpy()), ranges)


def write_described(source: Path, path: Path, **changes: object) -> None:
    """Write a detector again with another description, and digests that fit.

    Whoever made the file could make those, too.
    """
    text = json.dumps(read_description(source) | changes)
    metadata = {detector_file.KEY: text, detector_file.DIGEST: detector_file.text_hash(text)}
    save_file(load_file(source), path, metadata=metadata)
