"""The four scripts, run for real on small images and a narrow network."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from PIL import Image

import test_few as script_test_few
import test_zero as script_test_zero
import train_few as script_train_few
import train_zero as script_train_zero
from CLIP import packed
from CLIP.adapter import MVFA
from CLIP.weights import create_model
from dataset.catalog import CATALOG
from errors import UserError
from mvfa import checkpoint, engine, packing, schedule

ROOT = Path(__file__).parent.parent


@pytest.fixture
def flags(tiny_path, demo_root, tmp_path):
    """Arguments that every script takes here."""

    def make(obj: str, script: str, *more: object, data: Path = demo_root / "data") -> list[str]:
        arguments = [
            "--obj",
            obj,
            "--clip_path",
            tiny_path,
            "--features_list",
            1,
            2,
            3,
            4,
            "--img_size",
            32,
        ]
        arguments += [
            "--data_path",
            data,
            "--save_path",
            tmp_path / "ckpt",
            "--out",
            tmp_path / "out" / script,
        ]
        if script.endswith("few"):
            arguments += ["--shot", 2, "--fewshot_path", demo_root / "fewshot_seed"]
        if script.startswith("train"):
            arguments += ["--epoch", 2]
        return [str(a) for a in [*arguments, *more]]

    return make


def metrics(tmp_path: Path, script: str) -> dict:
    return json.loads((tmp_path / "out" / script / "metrics.json").read_text())


def rows(tmp_path: Path, script: str) -> list[dict]:
    with (tmp_path / "out" / script / "scores.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_few_shot_from_images_to_results(flags, tmp_path, capsys, obj):
    trained = script_train_few.main(flags(obj, "train_few"))
    printed = capsys.readouterr().out
    assert printed.count(f"{obj} AUC : ") == 2
    assert printed.count(f"{obj} pAUC : ") == (2 if CATALOG[obj].masks else 0)
    tested = script_test_few.main(flags(obj, "test_few"))
    assert f"{obj} AUC : {tested.image_auroc:.4f}" in capsys.readouterr().out
    assert torch.equal(
        tested.scores, trained.scores
    )  # the score seen while training is the score tested, to the bit
    found = metrics(tmp_path, "train_few")
    assert found["image_auroc"] == trained.image_auroc
    assert found["pixel_auroc"] == trained.pixel_auroc
    assert len(found["train_loss"]) == len(found["evaluations"]) == 2
    assert found["image_auroc"] + (found["pixel_auroc"] or 0) == max(
        e["image_auroc"] + (e["pixel_auroc"] or 0) for e in found["evaluations"]
    )
    assert list(found["selections"]) == [
        "test",
        "valid",
        "last",
    ]  # four of eight images of valid/ are no shots
    assert found["selections"]["test"]["image_auroc"] == found["image_auroc"]
    assert len(found["weights"]["sha256"]) == 64
    assert found["versions"]["torch"] == torch.__version__
    assert found["options"]["shot"] == 2
    assert found["peak_memory_bytes"]["host"] > 1e8
    assert found["seconds"] > 0
    table = rows(tmp_path, "test_few")
    assert list(table[0]) == ["file", "label", "score", "text_score", "memory_score"]
    assert [r["label"] for r in table] == ["0"] * 5 + ["1"] * 5
    assert table[0]["file"] == f"{obj}_AD/test/good/img/000.png"
    torch.testing.assert_close(torch.tensor([float(r["score"]) for r in table]), tested.scores)


@pytest.mark.parametrize("rule", ["valid", "last"])
def test_an_honest_rule_tests_what_it_chose(flags, tmp_path, rule):
    """The checkpoint, the scores and the figures are of the moment that the rule chose."""
    trained = script_train_few.main(flags("Brain", "train_few", "--select", rule, "--epoch", 3))
    tested = script_test_few.main(
        flags("Brain", "test_few", "--ckpt", tmp_path / "ckpt" / "Brain-2shot.pth")
    )
    assert torch.equal(tested.scores, trained.scores)
    found = metrics(tmp_path, "train_few")
    assert found["best_epoch"] == found["selections"][rule]["epoch"]
    assert "test" not in found["selections"]
    assert [e["epoch"] for e in found["evaluations"]] == ([1, 2, 3] if rule == "valid" else [3])
    if rule == "valid":
        worth = [e["valid_image_auroc"] + e["valid_pixel_auroc"] for e in found["evaluations"]]
        assert found["best_epoch"] == 1 + worth.index(max(worth))


def test_a_compiled_network_trains_alike(flags, tmp_path):
    """Where there is no C++ compiler, torch.compile cannot work on a CPU, and that is what the user is told."""
    if shutil.which("g++") is None:
        with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
            script_train_few.main(flags("Brain", "train_few", "--compile", "yes"))
        return
    losses = []
    for answer in ("no", "yes"):
        script_train_few.main(
            flags("Brain", "train_few", "--epoch", 1, "--batch_size", 11, "--compile", answer)
        )
        losses.append(metrics(tmp_path, "train_few")["train_loss"][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.skipif(not packed.available(), reason="this torch has no packed products")
def test_laid_out_weights_train_alike(flags, tmp_path, monkeypatch):
    """They are the default for steps of one image on a large machine, and are refused where blocks are not float32."""
    monkeypatch.setattr(packing, "installed_memory", lambda: 16 * 10**9)
    monkeypatch.setattr(packed, "gains_here", lambda: True)
    found = []
    for more in ([], ["--pack", "no"], ["--batch_size", 2], ["--batch_size", 2, "--pack", "yes"]):
        script_train_few.main(flags("Brain", "train_few", "--epoch", 1, *more))
        found.append(metrics(tmp_path, "train_few"))
    assert [told["options"]["pack"] for told in found] == [True, False, False, True]
    losses = [told["train_loss"][0] for told in found]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[2] == pytest.approx(losses[3], rel=1e-3)
    with pytest.raises(
        UserError,
        match=r"--pack yes needs a CPU, fp32, .*; got cpu, bf16, with MKL; leave the flag out",
    ):
        script_train_few.main(flags("Brain", "train_few", "--pack", "yes", "--precision", "bf16"))


@pytest.mark.skipif(not packed.available(), reason="this torch has no packed products")
@pytest.mark.parametrize("gigabytes", [0, 0.0001, 8])
def test_scores_never_go_through_packed_products(flags, gigabytes):
    """The scores seen in a training with packed steps are the scores tested, to the bit, whatever the cache holds."""
    more = ["--cache_gb", gigabytes]
    trained = script_train_few.main(
        flags("Chest", "train_few", "--epoch", 1, "--pack", "yes", *more)
    )
    assert torch.equal(
        script_test_few.main(flags("Chest", "test_few", *more)).scores, trained.scores
    )


def test_adapters_of_other_shots_are_refused(flags, tmp_path, demo_root):
    script_train_few.main(flags("Chest", "train_few", "--epoch", 1))
    lists = tmp_path / "lists" / "Chest"
    lists.mkdir(parents=True)
    (lists / "2-shot.txt").write_text(
        "n-0: 000.png 001.png\na-0: 000.png 001.png\nn-1: 002.png 003.png\na-1: 002.png 003.png"
    )
    taken = (demo_root / "fewshot_seed" / "Chest" / "2-shot.txt").read_text()
    draw = 1 if "000.png" in taken else 0
    more = ["--fewshot_path", tmp_path / "lists", "--iterate", draw]
    with pytest.raises(UserError, match="was made with shots = "):
        script_test_few.main(flags("Chest", "test_few", *more))
    script_test_few.main(
        flags("Chest", "test_few", *more, "--ckpt", tmp_path / "ckpt" / "Chest-2shot.pth")
    )


def test_valid_needs_images_that_are_no_shots(flags, tmp_path):
    with pytest.raises(
        UserError, match="valid/ of Brain has not both normal and abnormal images that are no shots"
    ):
        script_train_few.main(flags("Brain", "train_few", "--select", "valid", "--shot", 4))
    script_train_few.main(flags("Brain", "train_few", "--shot", 4, "--epoch", 1))
    assert list(metrics(tmp_path, "train_few")["selections"]) == ["test", "last"]


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_pictures_and_all_metrics(flags, tmp_path, obj):
    script_train_few.main(flags(obj, "train_few", "--epoch", 1))
    script_test_few.main(flags(obj, "test_few", "--pictures", 3, "--bootstrap", 20))
    found, masks = metrics(tmp_path, "test_few"), CATALOG[obj].masks
    assert [bool(found["details"][level]) for level in ("image", "pixel")] == [True, masks]
    for level in ("image", "pixel") if masks else ("image",):
        for branch in ("text", "memory", "both"):
            assert 0 <= found["details"][level][branch]["average_precision"] <= 1
        assert found["details"][level]["both"]["auroc"] == pytest.approx(
            found[f"{level}_auroc"], abs=1e-9
        )
    assert len(found["pictures"]) == 3
    for picture in found["pictures"]:
        with Image.open(tmp_path / "out" / "test_few" / picture["map"]) as grey:
            assert grey.size == (32, 32)
        assert (picture["mask"] is not None) == masks


def test_normal_shots_only(flags, tmp_path, demo_root):
    """The adapters are those of zero-shot training, the memory is as in few-shot; abnormal shots need not exist."""
    script_train_zero.main(flags("Brain", "train_zero", "--epoch", 1))
    zero = script_test_zero.main(flags("Brain", "test_zero"))
    lists = tmp_path / "lists" / "Brain"
    lists.mkdir(parents=True)
    line = (demo_root / "fewshot_seed" / "Brain" / "2-shot.txt").read_text().splitlines()[0]
    (lists / "2-shot.txt").write_text(line + "\n")
    more = ["--abnormal_shot", 0, "--fewshot_path", tmp_path / "lists"]
    found = script_test_few.main(flags("Brain", "test_few", *more))
    assert zero.memory_scores is None
    assert found.memory_scores is not None
    assert metrics(tmp_path, "test_few")["shots"]["abnormal"] == []
    with pytest.raises(UserError, match="has no line 'a-0'"):
        script_test_few.main(
            flags(
                "Brain",
                "test_few",
                "--fewshot_path",
                tmp_path / "lists",
                "--ckpt",
                tmp_path / "ckpt" / "Brain.pth",
            )
        )


def test_levels_are_scored_one_by_one(flags):
    script_train_few.main(flags("Chest", "train_few", "--epoch", 1))
    whole = script_test_few.main(flags("Chest", "test_few"))
    same = script_test_few.main(flags("Chest", "test_few", "--score_levels", 1, 2, 3, 4))
    one = script_test_few.main(flags("Chest", "test_few", "--score_levels", 3))
    assert torch.equal(whole.scores, same.scores)
    assert not torch.equal(whole.scores, one.scores)
    with pytest.raises(
        UserError,
        match="--score_levels 7: no adapter follows this block; --features_list has 1 2 3 4",
    ):
        script_test_few.main(flags("Chest", "test_few", "--score_levels", 7))


@pytest.mark.parametrize("obj", ["Liver", "Histopathology"])
def test_zero_shot_from_images_to_results(flags, tmp_path, obj):
    trained = script_train_zero.main(flags(obj, "train_zero"))
    tested = script_test_zero.main(flags(obj, "test_zero"))
    assert torch.equal(tested.scores, trained.scores)
    found = metrics(tmp_path, "train_zero")
    assert [e["epoch"] for e in found["evaluations"]] == pytest.approx([i / 5 for i in range(11)])
    assert found["adapters"] == metrics(tmp_path, "test_zero")["adapters"]
    assert found["adapters"]["file"] == str(tmp_path / "ckpt" / f"{obj}.pth")
    assert (
        found["adapters"]["sha256"]
        == sha256((tmp_path / "ckpt" / f"{obj}.pth").read_bytes()).hexdigest()
    )
    assert len(found["train_loss"]) == 2
    assert rows(tmp_path, "test_zero")[0]["memory_score"] == ""


def test_zero_shot_testing_needs_its_own_folder_only(flags, tmp_path, demo_root):
    script_train_zero.main(flags("Liver", "train_zero", "--epoch", 1))
    shutil.copytree(demo_root / "data" / "Liver_AD", tmp_path / "alone" / "Liver_AD")
    script_test_zero.main(flags("Liver", "test_zero", data=tmp_path / "alone"))
    with pytest.raises(UserError, match=r"no folder .*Brain_AD; unpack the archive of Brain"):
        script_train_zero.main(flags("Liver", "train_zero", data=tmp_path / "alone"))


@pytest.mark.parametrize("script", [script_train_few, script_train_zero], ids=["few", "zero"])
def test_a_training_batch_of_16_and_img_size_336(flags, script):
    result = script.main(
        flags("Brain", script.__name__, "--batch_size", 16, "--epoch", 1, "--img_size", 336)
    )
    assert 0 <= result.pixel_auroc <= 1
    assert torch.isfinite(result.scores).all()


def test_a_data_path_with_img_in_it_and_jpg_images(flags, tmp_path, demo_root):
    data = tmp_path / "img_of_img" / "img"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    for image in sorted(data.rglob("img/*.png")):
        Image.open(image).convert("RGB").save(image.with_suffix(".jpg"), quality=95)
        image.unlink()
    for mask in sorted(data.rglob("anomaly_mask/*.png")):
        mask.rename(mask.with_suffix(".jpg.png"))
        mask.with_suffix(".png").with_name(mask.stem + ".jpg.png").rename(mask)
    result = script_train_few.main(
        flags("Brain", "train_few", "--iterate", -1, "--epoch", 1, data=data)
    )
    assert result.pixel_auroc is not None


def test_constant_scores_are_no_nan(flags, tmp_path, demo_root):
    data = tmp_path / "constant"
    shutil.copytree(demo_root / "data" / "Chest_AD", data / "Chest_AD")
    for image in sorted(data.rglob("*.png")):
        Image.new("RGB", (40, 40), (90, 90, 90)).save(image)
    result = script_train_few.main(flags("Chest", "train_few", "--epoch", 1, data=data))
    assert result.scores.tolist() == [0.0] * 10
    assert result.image_auroc == 0.5


def test_two_runs_are_equal(flags, tmp_path):
    results = []
    for _ in range(2):
        script_train_few.main(flags("Brain", "train_few"))
        results.append(torch.load(tmp_path / "ckpt" / "Brain-2shot.pth")["seg_adapters"])
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name])


def test_a_checkpoint_describes_itself(flags, tmp_path):
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1))
    content = torch.load(tmp_path / "ckpt" / "Brain-2shot.pth", weights_only=True)
    about = content["about"]
    assert set(content) == {"seg_adapters", "det_adapters", "about"}
    assert about["object"] == "Brain"
    assert about["shot"] == 2
    assert len(about["shots"]["normal"]) == 2
    assert about["recipe"]["keep"] == 0.8
    assert {"seed", "epoch", "versions", "weights", "commit", "options"} <= set(about)


def test_a_checkpoint_of_something_else_is_refused(flags, tmp_path):
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1))
    own = tmp_path / "ckpt" / "Brain-2shot.pth"
    with pytest.raises(UserError, match=r"no checkpoint .*Chest-2shot.pth; train it first"):
        script_test_few.main(flags("Chest", "test_few"))
    shutil.copy(own, tmp_path / "ckpt" / "Chest-2shot.pth")
    with pytest.raises(UserError, match="was made with object = Brain, this run needs Chest"):
        script_test_few.main(flags("Chest", "test_few"))
    with pytest.raises(UserError, match=r"was made with recipe = .*keep"):
        script_test_few.main(flags("Brain", "test_few", "--keep", "0.7"))
    script_test_few.main(flags("Chest", "test_few", "--ckpt", own))
    with pytest.raises(UserError, match=r"no checkpoint .*nowhere.pth"):
        script_test_few.main(flags("Brain", "test_few", "--ckpt", tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match="do not fit"):
        script_test_few.main(flags("Brain", "test_few", "--ckpt", own, "--features_list", 1, 2, 3))


def test_the_authors_files_load(flags, tmp_path):
    """Two keys, `<obj>.pth`, for few- and for zero-shot."""
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1))
    own = tmp_path / "ckpt" / "Brain-2shot.pth"
    expected = script_test_few.main(flags("Brain", "test_few"))
    content = torch.load(own, weights_only=True)
    torch.save(
        {key: content[key] for key in ("seg_adapters", "det_adapters")},
        tmp_path / "ckpt" / "Brain.pth",
    )
    own.unlink()
    torch.testing.assert_close(
        script_test_few.main(flags("Brain", "test_few")).scores, expected.scores
    )
    script_test_zero.main(flags("Brain", "test_zero"))
    script_train_few.main(
        flags("Brain", "train_few", "--init", tmp_path / "ckpt" / "Brain.pth", "--epoch", 1)
    )


def test_the_authors_files_are_never_replaced(flags, tmp_path):
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1))
    own = tmp_path / "ckpt" / "Brain-2shot.pth"
    content = torch.load(own, weights_only=True)
    authors = tmp_path / "ckpt" / "Brain.pth"
    torch.save({key: content[key] for key in ("seg_adapters", "det_adapters")}, authors)
    before = authors.read_bytes()
    with pytest.raises(
        UserError, match=r"Brain\.pth was not written by this program and would be lost; move it"
    ):
        script_train_zero.main(flags("Brain", "train_zero", "--epoch", 1))
    assert authors.read_bytes() == before
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1))  # an own file is replaced


def test_a_run_says_which_adapters_it_takes(flags, tmp_path, capsys):
    """Its own, else the authors' <obj>.pth, else the reproducibility study's <obj>_<K>.pth."""
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1))
    own, folder = tmp_path / "ckpt" / "Brain-2shot.pth", tmp_path / "ckpt"
    content = torch.load(own, weights_only=True)
    for name in ("Brain.pth", "Brain_2.pth"):
        torch.save({key: content[key] for key in ("seg_adapters", "det_adapters")}, folder / name)
    for path, others in ((own, 2), (folder / "Brain.pth", 1), (folder / "Brain_2.pth", 0)):
        capsys.readouterr()
        script_test_few.main(flags("Brain", "test_few"))
        told = [
            line for line in capsys.readouterr().err.splitlines() if "note: adapters of" in line
        ]
        assert len(told) == bool(others)
        assert not others or f"note: adapters of {path}; not taken: " in told[0]
        assert metrics(tmp_path, "test_few")["adapters"]["file"] == str(path)
        path.unlink()


def test_the_studys_names_are_known(flags, tmp_path, demo_root):
    data = tmp_path / "study"
    shutil.copytree(demo_root / "data" / "Chest_AD", data / "Skin_HAM10000_AD")
    for name in ("HAM10000", "Skin_HAM10000"):
        script_train_few.main(flags(name, "train_few", "--iterate", -1, "--epoch", 1, data=data))
        assert (tmp_path / "ckpt" / "Skin_HAM10000-2shot.pth").is_file()


def test_released_flags_have_no_effect_on_a_test(flags):
    script_train_few.main(flags("Chest", "train_few", "--epoch", 1))
    plain = script_test_few.main(flags("Chest", "test_few"))
    more = ["--batch_size", 16, "--epoch", 3, "--learning_rate", 0.1, "--save_model", 0]
    assert torch.equal(script_test_few.main(flags("Chest", "test_few", *more)).scores, plain.scores)


def test_the_lines_of_the_released_code(flags, capsys):
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch  0 :"
    assert lines[1].startswith("Loss:  ")
    assert [line.split(" : ")[0] for line in lines[2:4]] == ["Brain pAUC", "Brain AUC"]
    assert lines[4:] == ["Best result", ""]
    script_train_zero.main(flags("Brain", "train_zero", "--epoch", 1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch 0 :"
    assert [line.split(" : ")[0] for line in lines[1:3]] == ["Brain AUC", "Brain pAUC"]
    assert lines[3:5] == ["best epoch found: epoch 0 batch 0", ""]
    assert [line for line in lines if line.startswith("Loss:  ")]


@pytest.mark.parametrize(
    ("steps", "expected"), [(30, [0, 6, 12, 18, 24]), (32, [0, 6, 12, 18, 24, 30]), (3, [0, 1, 2])]
)
def test_zero_shot_is_tested_where_the_released_code_tests(steps, expected):
    """Before step i wherever i % (steps // 5) == 0; in epochs of fewer than five steps before each."""
    assert schedule.moments(steps) == expected
    if steps >= 5:
        assert expected == [i for i in range(steps) if i % (steps // 5) == 0]


def test_an_epoch_of_few_steps_says_how_often_it_is_tested(flags, tmp_path, capsys):
    script_train_zero.main(flags("Brain", "train_zero", "--epoch", 1, "--batch_size", 16))
    assert (
        "note: an epoch has 4 steps, fewer than 5: the adapters are tested before each"
        in capsys.readouterr().err
    )
    assert [e["epoch"] for e in metrics(tmp_path, "train_zero")["evaluations"]] == [
        0,
        0.25,
        0.5,
        0.75,
        1,
    ]


def test_the_paper_recipe_runs(flags, tmp_path):
    script_train_few.main(flags("Brain", "train_few", "--recipe", "paper"))
    script_train_zero.main(flags("Chest", "train_zero", "--recipe", "paper", "--epoch", 1))
    found = metrics(tmp_path, "train_few")
    assert found["options"]["batch_size"] == 16
    assert found["options"]["recipe"]["activation"] == "quickgelu"
    assert [e["epoch"] for e in found["evaluations"]] == [2]
    with pytest.raises(UserError, match="was made with recipe"):
        script_test_few.main(flags("Brain", "test_few"))
    script_test_few.main(flags("Brain", "test_few", "--recipe", "paper"))


@pytest.mark.parametrize("flag", ["--out", "--save_path"])
def test_a_folder_that_cannot_be_made_is_refused_at_once(flags, tmp_path, flag):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        UserError, match=rf"{flag} .*file/x is not a directory and cannot be created"
    ):
        script_train_few.main(flags("Brain", "train_few", flag, tmp_path / "file" / "x"))


def test_no_save(flags, tmp_path):
    script_train_few.main(flags("Brain", "train_few", "--save_model", 0, "--epoch", 1))
    assert not (tmp_path / "ckpt").exists()


def damaged(demo_root: Path, tmp_path: Path, name: str) -> Path:  # noqa: C901  # a list of cases
    """A copy of Brain's images with one fault of the test split."""
    data = tmp_path / "damaged"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    test = data / "Brain_AD" / "test"
    masks, last = (
        sorted((test / "Ungood" / "anomaly_mask").iterdir()),
        test / "Ungood" / "img" / "004.png",
    )
    if name == "one label":
        shutil.rmtree(test / "good")
    elif name == "empty masks":
        for mask in masks:
            Image.new("L", (60, 60)).save(mask)
    elif name == "masks of 0 and 1":
        for mask in masks:
            Image.open(mask).convert("L").point(lambda value: value > 127).save(mask)
    elif name == "unreadable header":
        last.write_bytes(b"not an image")
    elif name == "too large":
        Image.new("1", (20_000, 20_000)).save(last)
    elif name == "wide values":
        Image.new("I;16", (60, 60)).save(last)
    elif name == "missing mask":
        masks[-1].unlink()
    elif name == "dangling link":
        last.unlink()
        last.symlink_to("nowhere.png")
    elif name == "cut":
        last.write_bytes(last.read_bytes()[:-2000])
    return data


FAULTS = {
    "one label": r"got 5 abnormal and 0 normal images",
    "empty masks": r"got 0 abnormal and 5120 normal pixels",
    "masks of 0 and 1": r"000\.png marks something, but no pixel is foreground: found grey values 0 1 .*as 255",
    "unreadable header": r"004\.png is not a readable image",
    "too large": r"004\.png is not a readable image \(Image size \(400000000 pixels\)",
    "wide values": r"004\.png has more than 8 bit a pixel \(Pillow mode I;16\)",
    "missing mask": r"no mask .*004\.png",
    "dangling link": r"004\.png is a link that leads nowhere",
}


@pytest.mark.parametrize("script", ["train_few", "train_zero", "test_few", "test_zero"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_test_set_is_refused_before_the_first_step(
    flags, tmp_path, demo_root, script, fault, monkeypatch
):
    monkeypatch.setattr(engine.Trainer, "step", lambda *_: pytest.fail("a step was made"))
    data, more = damaged(demo_root, tmp_path, fault), []
    for other in ("Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology"):
        (data / f"{other}_AD").symlink_to(demo_root / "data" / f"{other}_AD")
    if script.startswith("train"):
        more = ["--select", "last"]
    else:
        clip = create_model(None, Path(flags("Brain", script)[3]), image_size=32)
        adapters = checkpoint.adapter_state(MVFA(clip.visual, 64, (1, 2, 3, 4), released_form()))
        checkpoint.save(tmp_path / "adapters.pth", adapters, {})
        more = ["--ckpt", tmp_path / "adapters.pth"]
    main = {"train_few": script_train_few, "train_zero": script_train_zero}.get(
        script, script_test_few
    ).main
    main = script_test_zero.main if script == "test_zero" else main
    with pytest.raises(UserError, match=FAULTS[fault]):
        main(flags("Brain", script, *more, data=data))


@pytest.mark.parametrize("rule", ["last", "valid"])
def test_a_test_that_fails_does_not_cost_the_training(flags, tmp_path, demo_root, rule):
    """The header of this image is whole, its pixels are not."""
    data = damaged(demo_root, tmp_path, "cut")
    with pytest.raises(UserError, match=r"004\.png is not a readable image"):
        script_train_few.main(flags("Brain", "train_few", "--select", rule, data=data))
    script_test_few.main(
        flags("Brain", "test_few")
    )  # with the checkpoint that was saved before the test


def test_empty_masks_are_counted_and_said(flags, tmp_path, demo_root, capsys):
    data = tmp_path / "empty"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    mask = data / "Brain_AD" / "test" / "Ungood" / "anomaly_mask" / "001.png"
    Image.new("L", Image.open(mask).size).save(mask)
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1, data=data))
    assert "note: 1 of 5 masks of test images of Brain are empty" in capsys.readouterr().err
    assert metrics(tmp_path, "train_few")["empty_masks"] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_the_same_line(flags, tmp_path, demo_root, workers):
    script_train_few.main(flags("Brain", "train_few", "--epoch", 1))
    data = damaged(demo_root, tmp_path, "cut")
    arguments = flags("Brain", "test_few", "--workers", workers, data=data)
    ended = run("test_few.py", *arguments)
    assert ended.returncode == 2
    assert re.fullmatch(
        r"error: .*004\.png is not a readable image .*", ended.stderr.strip().splitlines()[-1]
    )
    assert "Traceback" not in ended.stderr


def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--obj", "Lung"], "invalid choice: 'Lung'"),
        (["--obj", "Brain", "--shots", "4"], "unrecognized arguments: --shots 4"),
        (["--obj", "Brain", "--shot", "0"], "0 is not at least 1"),
        (["--obj", "Brain", "--img_size", "abc"], "invalid int value: 'abc'"),
        (["--obj", "Brain", "--learning_rate", "-1"], "-1 is not at least 0"),
        (["--obj", "Brain", "--seed", "5000000000"], "5000000000 is not at most"),
        (["--obj", "Brain", "--cache_gb", "inf"], "inf is not finite"),
        ([], "the following arguments are required: --obj"),
        (["--obj", "Brain", "--clip_path", "nowhere.pt"], "no weights at nowhere.pt"),
        (["--obj", "Brain", "--model_name", "ViT-X"], "unknown model 'ViT-X'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, message):
    ended = run("train_few.py", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.strip().splitlines()) == 1
    assert message in ended.stderr


def test_help_runs():
    for script in ("train_few", "test_few", "train_zero", "test_zero"):
        ended = run(f"{script}.py", "--help")
        assert ended.returncode == 0
        assert "--obj" in ended.stdout


def test_interrupt_leaves_no_part(flags, tmp_path):
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background is born deaf to it, and its children
    command = [sys.executable, "train_few.py", *flags("Brain", "train_few", "--epoch", 500)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not (tmp_path / "ckpt" / "Brain-2shot.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; files written so far are whole" in errors
    assert "Traceback" not in errors
    assert [p.name for p in (tmp_path / "ckpt").iterdir()] == ["Brain-2shot.pth"]
    torch.load(tmp_path / "ckpt" / "Brain-2shot.pth", weights_only=True)
