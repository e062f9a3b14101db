"""The exported network gives the detector's maps and scores, and says what it is."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from errors import UserError
from mvfa import Detector, export
from mvfa.recipe import RECIPES
from tests.detectors import random_detector, random_images

# of maps and scores, which are about 1 wide; measured at most 1e-5: other orders of summation
TOLERANCE = {"rtol": 0, "atol": 1e-4}
SIDE = 32
KINDS = {  # few-shot with masks and without, zero-shot
    "few, masks": {},
    "few, no masks": {"masks": False},
    "zero": {"few": False},
    "paper's recipe": {"recipe": RECIPES["paper"]},
}


def session(path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(path, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return maps and scores of images [B, 3, S, S] uint8 by onnxruntime."""
    pixels = images.numpy().astype(np.float32) / 255
    found_map, score = session(path).run(["map", "score"], {"images": pixels})
    return found_map, score


@pytest.fixture(scope="module")
def exported(tiny_path, tmp_path_factory) -> Path:
    """Export the few-shot detector of an object with masks, to a folder that does not exist."""
    path = tmp_path_factory.mktemp("exported") / "new/x.onnx"
    return random_detector(tiny_path).export("onnx", path)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_and_scores_are_the_detectors(tiny_path, tmp_path, exported, kind):
    detector = random_detector(tiny_path, **KINDS[kind])
    path = exported if not KINDS[kind] else detector.export("onnx", tmp_path / "x.onnx")
    onnx.checker.check_model(path, full_check=True)
    images = random_images(5, SIDE, seed=9)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    expected = detector(pictures)
    for batch in (1, 2, 5):
        maps, scores = run(path, images[:batch])
        assert maps.shape == (batch, SIDE, SIDE)
        assert scores.shape == (batch,)
        for found_map, score, result in zip(maps, scores, expected, strict=False):
            np.testing.assert_allclose(found_map, result.scored_map, **TOLERANCE)
            assert float(score) == pytest.approx(result.score, rel=0, abs=TOLERANCE["atol"])
    assert np.ptp([result.score for result in expected]) > 100 * TOLERANCE["atol"]
    assert np.ptp(expected[0].scored_map) > 100 * TOLERANCE["atol"]


def test_the_file_says_what_it_is(tiny_path, exported):
    detector = random_detector(tiny_path)
    assert [item.name for item in exported.parent.iterdir()] == ["x.onnx"]
    about = session(exported).get_modelmeta().custom_metadata_map
    assert about["object"] == "Brain"
    assert int(about["image_size"]) == SIDE
    assert "float32 / 255" in about["preprocessing"]
    assert about["use"].startswith("Research software, not a medical device")
    assert float(about["threshold"]) == detector.rule.value
    stored = np.array(json.loads(about["normal_scores"]), np.float32)
    assert np.array_equal(stored, detector.calibration.normal_scores)
    graph = session(exported)
    assert [(i.name, i.shape, i.type) for i in graph.get_inputs()] == [
        ("images", ["batch", 3, SIDE, SIDE], "tensor(float)")
    ]
    assert [(o.name, o.shape) for o in graph.get_outputs()] == [
        ("map", ["batch", SIDE, SIDE]),
        ("score", ["batch"]),
    ]


def test_large_weights_lie_beside_the_file(tiny_path, tmp_path, exported, monkeypatch):
    monkeypatch.setattr(export, "ONE_FILE", 1000)
    detector = random_detector(tiny_path)
    (image,) = random_images(1, 48, seed=2)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    before = detector(picture)
    path = detector.export("onnx", tmp_path / "x.onnx")
    assert {item.name for item in tmp_path.iterdir()} == {"x.onnx", "x.onnx.data"}
    assert path.stat().st_size < exported.stat().st_size / 2
    images = random_images(1, SIDE)
    for one, other in zip(run(path, images), run(exported, images), strict=True):
        assert np.array_equal(one, other)
    after = detector(picture)  # the detector stays as it was
    assert after.score == before.score
    assert np.array_equal(after.map, before.map)


def test_half_precision_is_exported_in_float32(tiny_path, tmp_path):
    detector = random_detector(tiny_path)
    detector.settings = replace(detector.settings, precision="bf16")
    detector.save(tmp_path / "half.detector")
    half = Detector.load(tmp_path / "half.detector", clip_path=tiny_path)
    weight = half.method.model.visual.transformer.resblocks[0].mlp.c_fc.weight
    assert weight.dtype == torch.bfloat16
    path = half.export("onnx", tmp_path / "x.onnx")
    images = random_images(2, SIDE, seed=9)
    maps, _ = run(path, images)
    expected, _ = export.ImageToMap(half)(images / 255)
    np.testing.assert_allclose(maps, expected.numpy(), **TOLERANCE)
    assert weight.dtype == torch.bfloat16  # the network is shared


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_one_line(tiny_path, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    detector = random_detector(tiny_path)
    with pytest.raises(UserError, match=rf"package {package}, .* requirements-onnx\.txt"):
        detector.export("onnx", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_another_kind_is_refused(tiny_path, tmp_path):
    with pytest.raises(UserError, match="'onnx'"):
        random_detector(tiny_path).export("torchscript", tmp_path / "x.pt")
