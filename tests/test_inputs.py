"""Faults of a data set are refused before the first step, and cost no finished training."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from CLIP.adapter import MVFA
from errors import UserError
from mvfa import checkpoint, engine
from tests.conftest import released_form
from tests.script_runs import OTHERS, Runs, start

FAULTS = {
    "one label": r"got 5 abnormal and 0 normal images",
    "empty masks": r"got 0 abnormal and 5120 normal pixels",
    "masks of 0 and 1": (
        r"000\.png marks something, but no pixel is foreground: "
        r"got grey values 0 1 .*as 255"
    ),
    "unreadable header": r"004\.png is not a readable image",
    "too large": r"004\.png is not a readable image \(Image size \(400000000 pixels\)",
    "wide values": r"004\.png has more than 8 bit a pixel \(Pillow mode I;16\)",
    "missing mask": r"no mask .*004\.png",
    "dangling link": r"004\.png is a link that leads nowhere",
}


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


def damaged(demo_root: Path, tmp_path: Path, fault: str) -> Path:  # noqa: C901  # a list of cases
    """Copy Brain's images, with one fault of the test split; return the data folder."""
    data = tmp_path / "damaged"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    test = data / "Brain_AD" / "test"
    masks = sorted((test / "Ungood" / "anomaly_mask").iterdir())
    last = test / "Ungood" / "img" / "004.png"
    if fault == "one label":
        shutil.rmtree(test / "good")
    elif fault == "empty masks":
        for mask in masks:
            Image.new("L", (60, 60)).save(mask)
    elif fault == "masks of 0 and 1":
        for mask in masks:
            Image.open(mask).convert("L").point(lambda value: value > 127).save(mask)
    elif fault == "unreadable header":
        last.write_bytes(b"not an image")
    elif fault == "too large":
        Image.new("1", (20_000, 20_000)).save(last)
    elif fault == "wide values":
        Image.new("I;16", (60, 60)).save(last)
    elif fault == "missing mask":
        masks[-1].unlink()
    elif fault == "dangling link":
        last.unlink()
        last.symlink_to("nowhere.png")
    elif fault == "cut":
        last.write_bytes(last.read_bytes()[:-2000])
    return data


@pytest.mark.parametrize("script", ["train_few", "train_zero", "test_few", "test_zero"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_test_set_is_refused_before_the_first_step(
    runs, tiny, tmp_path, demo_root, script, fault, monkeypatch
):
    monkeypatch.setattr(engine.Trainer, "step", lambda *_: pytest.fail("a step was made"))
    data = damaged(demo_root, tmp_path, fault)
    for other in OTHERS:
        (data / f"{other}_AD").symlink_to(demo_root / "data" / f"{other}_AD")
    if script.startswith("train"):
        more = ["--select", "last"]
    else:
        model = MVFA(tiny.visual, 64, (1, 2, 3, 4), released_form())
        checkpoint.save(tmp_path / "adapters.pth", checkpoint.adapter_state(model), {})
        more = ["--ckpt", tmp_path / "adapters.pth"]
    with pytest.raises(UserError, match=FAULTS[fault]):
        runs(script, "Brain", *more, data=data)


@pytest.mark.parametrize("rule", ["last", "valid"])
def test_a_test_that_fails_does_not_cost_the_training(runs, tmp_path, demo_root, rule):
    """The header of this image is whole, its pixels are not."""
    data = damaged(demo_root, tmp_path, "cut")
    with pytest.raises(UserError, match=r"004\.png is not a readable image"):
        runs("train_few", "Brain", "--select", rule, data=data)
    runs("test_few", "Brain")  # with the checkpoint that was saved before the test


def test_empty_masks_are_counted_and_said(runs, tmp_path, demo_root, capsys):
    data = tmp_path / "empty"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    mask = data / "Brain_AD" / "test" / "Ungood" / "anomaly_mask" / "001.png"
    Image.new("L", Image.open(mask).size).save(mask)
    runs("train_few", "Brain", "--epoch", 1, data=data)
    assert "note: 1 of 5 masks of test images of Brain are empty" in capsys.readouterr().err
    assert runs.metrics("train_few")["empty_masks"] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_the_same_line(runs, tmp_path, demo_root, workers):
    runs("train_few", "Brain", "--epoch", 1)
    data = damaged(demo_root, tmp_path, "cut")
    ended = start("test_few.py", *runs.flags("test_few", "Brain", "--workers", workers, data=data))
    assert ended.returncode == 2
    last = ended.stderr.strip().splitlines()[-1]
    assert re.fullmatch(r"error: .*004\.png is not a readable image .*", last)
    assert "Traceback" not in ended.stderr
