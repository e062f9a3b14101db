"""The demo: images that brightness alone cannot classify, and the whole program on them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import demo
from CLIP import weight_files
from CLIP.weights import model_config
from dataset.catalog import CATALOG, object_info
from dataset.folder import list_split
from mvfa import Detector
from mvfa.defaults import DEFAULT_SEED, FEW
from prediction import app_options
from synthetic.anatomy import PAINTERS
from synthetic.images import write_demo
from synthetic.network import NAME, demo_state

MASKED = [name for name, entry in CATALOG.items() if entry.masks]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Run the demo with one object in the table."""
    root = tmp_path_factory.mktemp("demo_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_files, "WEIGHTS", root)
        patch.setattr("synthetic.network.WEIGHTS", root)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as demo.py does
        demo.main(["--root", str(root / "demo"), "--objects", "Liver"])
        torch.set_num_threads(threads)
        yield root / "demo"


def grey(path) -> np.ndarray:
    with Image.open(path) as image:
        small = image.convert("L").resize((60, 60), Image.Resampling.BILINEAR)
        return np.asarray(small, dtype=np.float64)


def threshold_auroc(data, name: str) -> tuple[float, float | None]:
    """Compute the AUROCs of grey values, bright or dark: of images (their mean) and of pixels."""
    records = list_split(data, object_info(name), "test")
    images = [grey(r.image) for r in records]
    by_image = roc_auc_score([r.label for r in records], [image.mean() for image in images])
    if not object_info(name).masks:
        return max(by_image, 1 - by_image), None
    masks = [np.zeros((60, 60)) if r.mask is None else grey(r.mask) for r in records]
    by_pixel = roc_auc_score(np.stack(masks).ravel() > 127, np.stack(images).ravel())
    return max(by_image, 1 - by_image), max(by_pixel, 1 - by_pixel)


def table(root) -> dict[str, list[str]]:
    rows = [
        line
        for line in (root / "table.md").read_text().splitlines()
        if line.startswith(("| few", "| zero"))
    ]
    return {row.split("|")[1].split()[0]: row.split("|")[2:-1] for row in rows}


def test_the_model_beats_a_threshold(root):
    image, pixel = threshold_auroc(root / "data", "Liver")
    for row in table(root).values():
        model_image, model_pixel = (float(value) / 100 for value in row[0].split("/"))
        assert model_image > image + 0.1
        assert model_pixel > pixel + 0.1


@pytest.mark.parametrize("name", PAINTERS)
def test_brightness_alone_does_not_tell(root, name):
    image, pixel = threshold_auroc(root / "data", name)
    assert image < 0.75
    assert pixel is None or pixel < 0.75


def test_the_demo_reaches_its_figures(root):
    for kind, (image, pixel) in {"few-shot": (0.85, 0.9), "zero-shot": (0.7, 0.7)}.items():
        got = [float(value) / 100 for value in table(root)[kind][0].split("/")]
        assert got[0] >= image
        assert got[1] >= pixel


@pytest.mark.parametrize("name", ["Liver", "Histopathology"])
def test_calibrated_and_transductive_aurocs_agree(root, name):
    """Where AUROCs are 1, and where they are not."""
    if name != "Liver":  # which the demo has tested
        demo.evaluate(root, FEW, name, 4, DEFAULT_SEED)
    metrics = json.loads((root / f"results/test_few/{name}-4shot/metrics.json").read_text())
    calibrated = metrics["calibrated"]
    assert calibrated["images"] == 24
    for granularity in ("image_auroc", "pixel_auroc"):
        assert calibrated[granularity] == pytest.approx(metrics[granularity], abs=0.02)
    assert (metrics["image_auroc"] < 0.99) == (name != "Liver")


def test_detectors_are_made_and_app_finds_them(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    (path,) = app_options.parse([]).detectors
    assert path.resolve() == root / "ckpt/few-shot/Liver-4shot.detector"
    detector = Detector.load(path)
    records = list_split(root / "data", object_info("Liver"), "test")
    scores = [detector(record.image).score for record in records]
    assert roc_auc_score([record.label for record in records], scores) >= 0.85


def test_a_second_demo_keeps_the_images(root):
    before = {path: path.stat().st_mtime_ns for path in (root / "data").rglob("*.png")}
    demo.prepare(root)
    assert {path: path.stat().st_mtime_ns for path in (root / "data").rglob("*.png")} == before


def test_images_depend_on_their_place_alone(tmp_path):
    write_demo(tmp_path / "a", valid=2, test=2, shots=(2,))
    write_demo(tmp_path / "b", valid=2, test=3, shots=(2,))
    for path in sorted((tmp_path / "a").rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    with Image.open(tmp_path / "a" / "data" / "pictures.png") as sheet:
        assert sheet.size == (4 * 184 + 4, len(PAINTERS) * 184 + 4)
    contents = [path.read_bytes() for path in (tmp_path / "a").rglob("img/*.png")]
    assert len(set(contents)) == len(contents) == len(PAINTERS) * 8


@pytest.mark.parametrize("name", MASKED)
def test_lesions_have_masks_of_a_sensible_size(demo_root, name):
    for record in list_split(demo_root / "data", object_info(name), "test"):
        if record.label:
            share = (grey(record.mask) > 127).mean()
            assert 0.01 < share < 0.3


def test_demo_weights_are_seeded_and_small(demo_weights):
    assert demo_weights.stat().st_size < 20e6
    stored = torch.load(demo_weights, weights_only=True)
    for name, value in demo_state(model_config(NAME)).items():
        assert torch.equal(stored[name], value)
    assert NAME in weight_files.known_models()
