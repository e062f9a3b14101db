"""Every method from end to end: shots to scores, a detector, an image of one's own."""

import csv
import json
import subprocess

import pytest

import calibrate
import train_few
import train_zero
from errors import UserError
from mvfa import Detector
from mvfa.methods.catalog import MADCLIP, METHODS, MVFA, PATCH_MEMORY
from mvfa.recipe import LEVELS
from synthetic.dino import write_demo_dino
from tests.detectors import write_described
from tests.script_runs import Runs
from tests.test_distributed import ENVIRONMENT, ROOT, torchrun

BRANCHES = {  # that a method has, with normal images
    "mvfa": ("text", "memory"),
    "madclip": ("text",),
    "patch_memory": ("memory",),
    "clip": ("text", "memory"),
    "winclip": ("text",),
}


@pytest.fixture(scope="session")
def dino_path(tmp_path_factory):
    """Write the demo's DINOv2."""
    return write_demo_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


def flags_of(method, dino_path):
    """Return the flags of a method; later ones of a name count."""
    more = ["--clip_path", dino_path] if method == PATCH_MEMORY else []
    uses = METHODS[method].uses
    if uses is not None and "features_list" not in uses:
        more += ["--features_list", *LEVELS]  # the default, which no flag changes
    return ["--method", method, *more]


def trained(runs, method, obj, flags):
    """Train a method if it can be trained."""
    if METHODS[method].runs("train_few"):
        runs("train_few", obj, *flags, "--epoch", 1)


def test_every_method_is_tried():
    assert set(BRANCHES) == set(METHODS)


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
@pytest.mark.parametrize("method", METHODS)
def test_shots_become_scores_of_its_branches(runs, dino_path, method, obj):
    flags = flags_of(method, dino_path)
    trained(runs, method, obj, flags)
    evaluation = runs("test_few", obj, *flags, "--pictures", 1)
    branches = BRANCHES[method]
    assert (evaluation.text_scores is not None) == ("text" in branches)
    assert (evaluation.memory_scores is not None) == ("memory" in branches)
    assert (evaluation.pixel_auroc is None) == (obj == "Chest")
    metrics = runs.metrics("test_few")
    assert metrics["options"]["method"] == method
    details = metrics["details"]["image"]
    assert {name for name, values in details.items() if values} == {*branches, "both"}
    assert METHODS[method].title in metrics["protocol"] or method == MVFA
    for row in runs.scores("test_few"):
        assert bool(row["text_score"]) == ("text" in branches)
        assert bool(row["memory_score"]) == ("memory" in branches)


@pytest.mark.parametrize("method", METHODS)
def test_a_detector_scores_an_image_as_the_calibration_did(runs, dino_path, tmp_path, method):
    flags = flags_of(method, dino_path)
    trained(runs, method, "Brain", flags)
    arguments = runs.flags("test_few", "Brain", *flags)
    file = calibrate.main([*arguments, "--out", str(tmp_path / "made.detector")])
    weights = dino_path if method == PATCH_MEMORY else runs.weights
    detector = Detector.load(file, clip_path=weights)
    assert detector.settings.method == method
    folder = runs.demo_root / "data" / "Brain_AD" / "valid"
    shots = detector.about["shots"]["normal"]
    images = [p for p in sorted((folder / "good" / "img").iterdir()) if p.name not in shots]
    results = detector(images)
    scores = sorted(result.score for result in results)
    assert scores == pytest.approx(detector.calibration.normal_scores.tolist(), abs=1e-5)
    assert results[0].map.shape == results[0].image.size[::-1]


@pytest.mark.parametrize("method", [PATCH_MEMORY, MADCLIP])
def test_a_detector_without_its_methods_settings_is_refused(runs, dino_path, tmp_path, method):
    flags = flags_of(method, dino_path)
    trained(runs, method, "Brain", flags)
    arguments = runs.flags("test_few", "Brain", *flags)
    file = calibrate.main([*arguments, "--out", str(tmp_path / "made.detector")])
    write_described(file, tmp_path / "changed.detector", method_settings={})
    file = tmp_path / "changed.detector"
    weights = dino_path if method == PATCH_MEMORY else runs.weights
    with pytest.raises(UserError, match="is not a detector"):
        Detector.load(file, clip_path=weights)


@pytest.mark.parametrize("method", [PATCH_MEMORY, MADCLIP])
def test_two_processes_score_as_one(runs, dino_path, tmp_path, method):
    flags = flags_of(method, dino_path)
    trained(runs, method, "Brain", flags)
    alone = runs("test_few", "Brain", *flags)
    arguments = runs.flags("test_few", "Brain", *flags, "--out", tmp_path / "two")
    command = torchrun("test_few.py", *arguments)
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True, timeout=120)
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert two["processes"] == 2
    assert two["image_auroc"] == pytest.approx(alone.image_auroc, abs=1e-6)
    with (tmp_path / "two" / "scores.csv").open() as file:
        scores = [float(row["score"]) for row in csv.DictReader(file)]
    own = [float(row["score"]) for row in runs.scores("test_few")]
    assert scores == pytest.approx(own, abs=1e-5)


def test_a_stopped_training_of_madclip_goes_on(runs, monkeypatch):
    flags = ["--method", MADCLIP, "--epoch", 3, "--select", "last"]
    runs("train_few", "Brain", *flags)
    whole = (runs.checkpoints / "Brain-2shot.pth").read_bytes()
    losses = runs.metrics("train_few")["train_loss"]
    (runs.checkpoints / "Brain-2shot.pth").unlink()
    calls = []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    step = train_few.train
    monkeypatch.setattr(train_few, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        runs("train_few", "Brain", *flags)
    monkeypatch.setattr(train_few, "train", step)
    runs("train_few", "Brain", *flags)
    assert (runs.checkpoints / "Brain-2shot.pth").read_bytes() == whole
    assert runs.metrics("train_few")["train_loss"] == losses


def test_scripts_that_cannot_run_a_method_are_one_line():
    for main, name, method in (
        (train_few.main, "train_few", "clip"),
        (train_zero.main, "train_zero", MADCLIP),
    ):
        with pytest.raises(UserError, match=f"--method {method}: .*{name}.py runs mvfa"):
            main(["--obj", "Brain", "--method", method])
