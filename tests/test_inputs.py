"""Faults of a data set are refused before the first step, and cost no finished training."""

import io
import re
import shutil
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from CLIP.adapter import MVFA
from errors import UserError
from mvfa import checkpoint, engine
from tests.conftest import released_form
from tests.methods import mvfa_method
from tests.script_runs import OTHERS, Runs, start
from tests.wide_images import WIDE_COPIES

FAULTS = {
    "one label": r"got 5 abnormal and 0 normal images",
    "empty masks": r"got 0 abnormal and 10240 normal pixels",
    "masks of 0 and 1": (
        r"000\.png marks something, but no pixel is foreground: "
        r"got grey values 0 1 .*as 255 and background as 0, or pass --mask_rule any"
    ),
    "unreadable header": r"004\.png is not a readable image",
    "too large": r"004\.png is not a readable image \(Image size \(400000000 pixels\)",
    "several pages": r"004\.tif holds more than one image",
    "not finite": r"004\.tif has values that are not finite",
    "missing mask": r"no mask .*004\.png",
    "two masks": r"004\.png has several masks in .* \(004\.png 004\.bmp\); keep one",
    "mask of another shape": r"004\.png has \d+ x \d+ pixels, and its image .*4\.png \d+ x \d+; al",
    "dangling link": r"004\.png is a link that leads nowhere",
}


SCRIPTS = [
    *product(("train_few", "train_zero"), ("last", "valid", "test")),
    ("test_few", ""),
    ("test_zero", ""),
]


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


@cache
def bomb() -> bytes:
    """Return the PNG of an image of more than 179 megapixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


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
        last.write_bytes(bomb())
    elif fault in ("several pages", "not finite"):
        last.unlink()
        value = 1.0 if fault == "several pages" else float("nan")
        image = Image.new("F", (60, 60), value)
        more = [image] if fault == "several pages" else []
        image.save(last.with_suffix(".tif"), save_all=True, append_images=more)
    elif fault == "missing mask":
        masks[-1].unlink()
    elif fault == "two masks":
        Image.open(masks[-1]).save(masks[-1].with_suffix(".bmp"))
    elif fault == "mask of another shape":
        Image.open(masks[-1]).resize((60, 30)).save(masks[-1])
    elif fault == "dangling link":
        last.unlink()
        last.symlink_to("nowhere.png")
    elif fault == "cut":
        last.write_bytes(last.read_bytes()[:-2000])
    return data


@pytest.mark.parametrize(("script", "select"), SCRIPTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_test_set_is_refused_before_the_first_step(
    runs, tiny, tmp_path, demo_root, script, select, fault, monkeypatch
):
    monkeypatch.setattr(engine.Trainer, "step", lambda *_: pytest.fail("a step was made"))
    data = damaged(demo_root, tmp_path, fault)
    for other in OTHERS:
        (data / f"{other}_AD").symlink_to(demo_root / "data" / f"{other}_AD")
    if select:
        more = ["--select", select]
    else:
        method = mvfa_method(MVFA(tiny.visual, 64, (1, 2, 3, 4), released_form()))
        checkpoint.save(tmp_path / "adapters.pth", method.state(), {})
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


def test_masks_of_0_and_1_are_read_by_the_rule_any(runs, tmp_path, demo_root):
    """The same masks, scores and AUROCs as with 255 in them."""
    expected = runs("train_few", "Brain", "--epoch", 1)
    data = tmp_path / "labels"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    for mask in data.rglob("anomaly_mask/*.png"):
        Image.open(mask).convert("L").point(lambda value: value > 127).save(mask)
    with pytest.raises(UserError, match="--mask_rule any"):
        runs("train_few", "Brain", data=data)
    found = runs("train_few", "Brain", "--epoch", 1, "--mask_rule", "any", data=data)
    assert torch.equal(found.scores, expected.scores)
    assert found.pixel_auroc == expected.pixel_auroc
    metrics = runs.metrics("train_few")
    assert (metrics["mask_rule"], metrics["empty_masks"]) == ("any", 0)
    (data / "Brain_AD" / "object.toml").write_text('mask_rule = "any"')
    tested = runs("test_few", "Brain", data=data)
    assert tested.pixel_auroc == expected.pixel_auroc


def test_files_of_other_types_are_counted_and_named(runs, tmp_path, demo_root, capsys):
    data = tmp_path / "mixed"
    shutil.copytree(demo_root / "data" / "Chest_AD", data / "Chest_AD")
    for state, names in {"good": ["b.mha", ".hidden"], "Ungood": ["a.nii.gz", "c", "d"]}.items():
        for name in names:
            (data / "Chest_AD" / "test" / state / "img" / name).write_bytes(b"no image")
    (data / "Chest_AD" / "valid" / "good" / "img" / "notes.txt").write_text("no image")
    runs("train_few", "Chest", "--epoch", 1, data=data)
    for script in ("test_few", "test_zero"):
        errors = capsys.readouterr().err
        notes = [line for line in errors.splitlines() if "of other types" in line]
        test = (
            f"note: skipped in {data}/Chest_AD/test: 4 files of other types (b.mha a.nii.gz c ...)"
        )
        valid = f"note: skipped in {data}/Chest_AD/valid: 1 file of other types (notes.txt)"
        assert notes == ([valid, test] if script == "test_few" else [test])
        runs("test_zero", "Chest", "--ckpt", runs.checkpoints / "Chest-2shot.pth", data=data)
    shutil.rmtree(data / "Chest_AD" / "test" / "good")
    for image in (data / "Chest_AD" / "test").rglob("*.png"):
        image.rename(image.with_suffix(".mha"))
    with pytest.raises(UserError, match=r"no images below .*, found 8 files of other types \("):
        runs("train_few", "Chest", data=data)


@pytest.mark.parametrize("kind", WIDE_COPIES)
def test_wide_copies_of_the_images_give_the_same_scores(runs, tmp_path, demo_root, capsys, kind):
    """Each spans its own range, so that scaling it by this range gives the 8-bit image."""
    if kind.startswith("DICOM"):
        pytest.importorskip("pydicom")
    suffix, write = WIDE_COPIES[kind]
    for form in ("narrow", "wide"):
        shutil.copytree(demo_root / "data" / "Brain_AD", tmp_path / form / "Brain_AD")
    for image in (tmp_path / "narrow").rglob("img/*.png"):
        grey = np.asarray(Image.open(image).convert("L")).astype(float)
        grey = np.rint(255 * (grey - grey.min()) / np.ptp(grey)).astype(np.uint8)
        Image.fromarray(grey).save(image)
        copy = tmp_path / "wide" / image.relative_to(tmp_path / "narrow")
        copy.unlink()
        write(copy.with_suffix(suffix), grey)
    draw = ["--iterate", -1, "--epoch", 1]
    expected = runs("train_few", "Brain", *draw, data=tmp_path / "narrow")
    assert runs.metrics("train_few")["wide_images"] == 0
    assert "more than 8 bit" not in capsys.readouterr().err
    found = runs("train_few", "Brain", *draw, data=tmp_path / "wide")
    assert torch.equal(found.scores, expected.scores)
    assert found.pixel_auroc == expected.pixel_auroc
    metrics = runs.metrics("train_few")
    assert (metrics["wide_images"], metrics["intensity"]) == (10, "auto")
    scaled = "scaled by each image's own range"
    assert f"note: 10 of 10 test images of Brain have more than 8 bit: {scaled}" in (
        capsys.readouterr().err
    )


def test_the_intensity_of_a_test_is_that_of_its_training(runs):
    runs("train_few", "Brain", "--epoch", 1)
    with pytest.raises(UserError, match="was made with intensity = auto, this run needs full"):
        runs("test_few", "Brain", "--intensity", "full")
    runs("test_few", "Brain", "--intensity", "full", "--ckpt", runs.checkpoints / "Brain-2shot.pth")
    with pytest.raises(UserError, match="was made with noun = Brain, this run needs head"):
        runs("test_few", "Brain", "--noun", "head")


def test_a_zero_shot_training_reads_the_objects_it_is_told(runs, tmp_path, demo_root, capsys):
    data = tmp_path / "some"
    for name, folder in {"Thyroid": "Brain", "Brain": "Brain", "Chest": "Chest"}.items():
        shutil.copytree(demo_root / "data" / f"{folder}_AD", data / f"{name}_AD")
    with pytest.raises(UserError) as error:
        runs("train_zero", "Brain", data=data)
    text = str(error.value)
    assert "(missing: Liver Retina_RESC Retina_OCT2017 Histopathology)" in text
    assert text.endswith("or choose objects by --train_objects (there are: Chest Thyroid)")
    runs("train_zero", "Brain", "--epoch", 1, "--train_objects", "Thyroid", "Chest", data=data)
    assert "note: Thyroid: noun 'Thyroid'" in capsys.readouterr().err
    metrics = runs.metrics("train_zero")
    assert metrics["train_objects"] == ["Thyroid", "Chest"]
    about = torch.load(runs.checkpoints / "Brain.pth", weights_only=True)["about"]
    assert list(about["train_objects"]) == ["Thyroid", "Chest"]
    assert about["train_objects"]["Thyroid"]["masks"]
    runs("test_zero", "Brain", data=data)


def test_shots_of_a_new_object_are_drawn_by_the_seed(runs, tmp_path, demo_root, capsys):
    """As with --iterate -1. Where a list can have been published, its address is named instead."""
    data = tmp_path / "new"
    shutil.copytree(demo_root / "data" / "Chest_AD", data / "Thyroid_AD")
    shutil.copytree(demo_root / "data" / "Chest_AD", data / "Skin_AD")
    runs("train_few", "Thyroid", "--epoch", 1, "--iterate", -1, data=data)
    drawn = runs.metrics("train_few")["shots"]
    runs("train_few", "Thyroid", "--epoch", 1, data=data)
    assert runs.metrics("train_few")["shots"] == drawn
    assert "Thyroid/2-shot.txt: shots are drawn by --seed 111" in capsys.readouterr().err
    for name, more in {"Thyroid": ["--iterate", 1], "Skin": []}.items():
        more += ["--fewshot_path", tmp_path / "none"]
        with pytest.raises(UserError, match=rf"no shot list .*draw --obj {name}") as error:
            runs("train_few", name, *more, data=data)
        assert "http" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_the_same_line(runs, tmp_path, demo_root, workers):
    runs("train_few", "Brain", "--epoch", 1)
    data = damaged(demo_root, tmp_path, "cut")
    ended = start("test_few.py", *runs.flags("test_few", "Brain", "--workers", workers, data=data))
    assert ended.returncode == 2
    last = ended.stderr.strip().splitlines()[-1]
    assert re.fullmatch(r"error: .*004\.png is not a readable image .*", last)
    assert "Traceback" not in ended.stderr
