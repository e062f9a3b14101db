"""Weights that are converted when they are used give the results of those converted before."""

from pathlib import Path

import pytest
import torch

from CLIP.late import LateBlock, convert_now
from CLIP.weights import create_model
from mvfa import Detector
from tests.conftest import TINY, random_state
from tests.detectors import random_detector, random_images


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> Path:
    """Write the tiny network in float16, as the published weights are."""
    path = tmp_path_factory.mktemp("halves") / "tiny.pt"
    torch.save({name: values.half() for name, values in random_state(TINY).items()}, path)
    return path


def load(path: Path, **flags):
    return create_model(None, path, image_size=32, **flags)


def kinds(clip) -> set[type]:
    return {type(block) for block in clip.visual.transformer.resblocks}


def types_of_matrices(clip) -> set[torch.dtype]:
    named = clip.visual.transformer.named_parameters()
    return {values.dtype for name, values in named if ".ln_" not in name}


@torch.no_grad()
def test_results_are_the_same_to_the_last_bit(halves):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    expected = load(halves).visual(images)
    late = load(halves, late=True)
    assert kinds(late) == {LateBlock}
    for _ in range(2):
        assert torch.equal(late.visual(images), expected)
    assert types_of_matrices(late) == {torch.float16}
    convert_now(late.visual.transformer)
    assert LateBlock not in kinds(late)
    assert types_of_matrices(late) == {torch.float32}
    assert torch.equal(late.visual(images), expected)


def test_only_halves_in_float32_are_converted_late(halves, tiny_path):
    for path, precision in ((tiny_path, "fp32"), (halves, "bf16")):
        clip = load(path, late=True, precision=precision)
        assert LateBlock not in kinds(clip)
        convert_now(clip.visual.transformer)
        assert types_of_matrices(clip) == types_of_matrices(load(path, precision=precision))


def test_a_detector_that_was_loaded_late_scores_alike(halves, tmp_path):
    made = random_detector(halves)
    made.save(tmp_path / "x.detector")
    image = random_images(1, 32)[0].permute(1, 2, 0).numpy()
    expected = made(image).score
    for late in (False, True):
        detector = Detector.load(tmp_path / "x.detector", clip_path=halves, late=late)
        assert isinstance(detector.method.model.visual.transformer.resblocks[0], LateBlock) == late
        assert detector(image).score == expected
