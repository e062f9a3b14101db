"""The four scripts, run for real on small images and a narrow network."""

import shutil
from hashlib import sha256

import pytest
import torch
from PIL import Image

from CLIP import packed
from dataset.catalog import CATALOG
from errors import UserError
from mvfa import packing
from tests.script_runs import Runs


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_few_shot_from_images_to_results(runs, capsys, obj):
    trained = runs("train_few", obj)
    printed = capsys.readouterr().out
    assert printed.count(f"{obj} AUC : ") == 2
    assert printed.count(f"{obj} pAUC : ") == (2 if CATALOG[obj].masks else 0)
    tested = runs("test_few", obj)
    assert f"{obj} AUC : {tested.image_auroc:.4f}" in capsys.readouterr().out
    # the score seen while training is the score tested, to the bit
    assert torch.equal(tested.scores, trained.scores)
    metrics = runs.metrics("train_few")
    assert metrics["image_auroc"] == trained.image_auroc
    assert metrics["pixel_auroc"] == trained.pixel_auroc
    assert len(metrics["train_loss"]) == len(metrics["evaluations"]) == 2
    assert metrics["image_auroc"] + (metrics["pixel_auroc"] or 0) == max(
        e["image_auroc"] + (e["pixel_auroc"] or 0) for e in metrics["evaluations"]
    )
    # four of eight images of valid/ are no shots
    assert list(metrics["selections"]) == ["test", "valid", "last"]
    assert metrics["selections"]["test"]["image_auroc"] == metrics["image_auroc"]
    assert len(metrics["weights"]["sha256"]) == 64
    assert metrics["versions"]["torch"] == torch.__version__
    assert metrics["options"]["shot"] == 2
    assert metrics["peak_memory_bytes"]["host"] > 1e8
    assert metrics["seconds"] > 0
    table = runs.scores("test_few")
    columns = ["file", "label", "score", "text_score", "memory_score", "case", "slice"]
    assert list(table[0]) == columns
    assert [row["label"] for row in table] == ["0"] * 5 + ["1"] * 5
    assert table[0]["file"] == f"{obj}_AD/test/good/img/000.png"
    written = torch.tensor([float(row["score"]) for row in table])
    torch.testing.assert_close(written, tested.scores)


@pytest.mark.parametrize("rule", ["valid", "last"])
def test_an_honest_rule_tests_what_it_chose(runs, rule):
    """The checkpoint, the scores and the AUROCs are of the moment that the rule chose."""
    trained = runs("train_few", "Brain", "--select", rule, "--epoch", 3)
    tested = runs("test_few", "Brain", "--ckpt", runs.checkpoints / "Brain-2shot.pth")
    assert torch.equal(tested.scores, trained.scores)
    metrics = runs.metrics("train_few")
    assert metrics["best_epoch"] == metrics["selections"][rule]["epoch"]
    assert "test" not in metrics["selections"]
    measured = [1, 2, 3] if rule == "valid" else [3]
    assert [e["epoch"] for e in metrics["evaluations"]] == measured
    if rule == "valid":
        totals = [e["valid_image_auroc"] + e["valid_pixel_auroc"] for e in metrics["evaluations"]]
        assert metrics["best_epoch"] == 1 + totals.index(max(totals))


def test_a_compiled_network_trains_alike(runs):
    """Where there is no C++ compiler, torch.compile cannot work on a CPU: the error says so."""
    if shutil.which("g++") is None:
        with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
            runs("train_few", "Brain", "--compile", "yes")
        return
    losses = []
    for answer in ("no", "yes"):
        runs("train_few", "Brain", "--epoch", 1, "--batch_size", 11, "--compile", answer)
        losses.append(runs.metrics("train_few")["train_loss"][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.skipif(not packed.available(), reason="this torch has no packed products")
def test_packed_weights_train_alike(runs, monkeypatch):
    """They are the default for steps of one image on a large machine; float16 cannot be packed."""
    monkeypatch.setattr(packing, "installed_memory", lambda: 16 * 10**9)
    monkeypatch.setattr(packed, "gains_here", lambda: True)
    results = []
    for more in ([], ["--pack", "no"], ["--batch_size", 2], ["--batch_size", 2, "--pack", "yes"]):
        runs("train_few", "Brain", "--epoch", 1, *more)
        results.append(runs.metrics("train_few"))
    assert [metrics["options"]["pack"] for metrics in results] == [True, False, False, True]
    losses = [metrics["train_loss"][0] for metrics in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[2] == pytest.approx(losses[3], rel=1e-3)
    refusal = r"--pack yes needs a CPU, fp32, .*; got cpu, bf16, with MKL; leave the flag out"
    with pytest.raises(UserError, match=refusal):
        runs("train_few", "Brain", "--pack", "yes", "--precision", "bf16")


@pytest.mark.skipif(not packed.available(), reason="this torch has no packed products")
@pytest.mark.parametrize("gigabytes", [0, 0.0001, 8])
def test_scores_never_go_through_packed_products(runs, gigabytes):
    """Scores seen in a training with packed steps are the scores tested, whatever is cached."""
    more = ["--cache_gb", gigabytes]
    trained = runs("train_few", "Chest", "--epoch", 1, "--pack", "yes", *more)
    assert torch.equal(runs("test_few", "Chest", *more).scores, trained.scores)


def test_valid_needs_images_that_are_no_shots(runs):
    refusal = "valid/ of Brain has not both normal and abnormal images that are no shots"
    with pytest.raises(UserError, match=refusal):
        runs("train_few", "Brain", "--select", "valid", "--shot", 4)
    runs("train_few", "Brain", "--shot", 4, "--epoch", 1)
    assert list(runs.metrics("train_few")["selections"]) == ["test", "last"]


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_pictures_and_all_metrics(runs, obj):
    runs("train_few", obj, "--epoch", 1)
    runs("test_few", obj, "--pictures", 3, "--bootstrap", 20)
    metrics = runs.metrics("test_few")
    masks = CATALOG[obj].masks
    details = metrics["details"]
    assert [bool(details[granularity]) for granularity in ("image", "pixel")] == [True, masks]
    for granularity in ("image", "pixel") if masks else ("image",):
        for branch in ("text", "memory", "both"):
            assert 0 <= details[granularity][branch]["average_precision"] <= 1
        area = details[granularity]["both"]["auroc"]
        assert area == pytest.approx(metrics[f"{granularity}_auroc"], abs=1e-9)
    assert len(metrics["pictures"]) == 3
    for picture in metrics["pictures"]:
        with Image.open(runs.out("test_few") / picture["map"]) as grey:
            assert grey.size == (32, 32)
        assert (picture["mask"] is not None) == masks


def test_normal_shots_only(runs, tmp_path, demo_root):
    """The adapters are those of zero-shot training; there need not be abnormal shots."""
    runs("train_zero", "Brain", "--epoch", 1)
    zero = runs("test_zero", "Brain")
    lists = tmp_path / "lists" / "Brain"
    lists.mkdir(parents=True)
    line = (demo_root / "fewshot_seed" / "Brain" / "2-shot.txt").read_text().splitlines()[0]
    (lists / "2-shot.txt").write_text(line + "\n")
    more = ["--fewshot_path", tmp_path / "lists"]
    tested = runs("test_few", "Brain", "--abnormal_shot", 0, *more)
    assert zero.memory_scores is None
    assert tested.memory_scores is not None
    assert runs.metrics("test_few")["shots"]["abnormal"] == []
    with pytest.raises(UserError, match="has no line 'a-0'"):
        runs("test_few", "Brain", "--ckpt", runs.checkpoints / "Brain.pth", *more)


def test_levels_are_scored_one_by_one(runs):
    runs("train_few", "Chest", "--epoch", 1)
    whole = runs("test_few", "Chest")
    same = runs("test_few", "Chest", "--score_levels", 1, 2, 3, 4)
    one = runs("test_few", "Chest", "--score_levels", 3)
    assert torch.equal(whole.scores, same.scores)
    assert not torch.equal(whole.scores, one.scores)
    refusal = "--score_levels 7: no adapter follows this block; --features_list has 1 2 3 4"
    with pytest.raises(UserError, match=refusal):
        runs("test_few", "Chest", "--score_levels", 7)


@pytest.mark.parametrize("obj", ["Liver", "Histopathology"])
def test_zero_shot_from_images_to_results(runs, obj):
    trained = runs("train_zero", obj)
    tested = runs("test_zero", obj)
    assert torch.equal(tested.scores, trained.scores)
    metrics = runs.metrics("train_zero")
    epochs = [e["epoch"] for e in metrics["evaluations"]]
    assert epochs == pytest.approx([i / 5 for i in range(11)])
    adapters = runs.checkpoints / f"{obj}.pth"
    assert metrics["adapters"] == runs.metrics("test_zero")["adapters"]
    assert metrics["adapters"]["file"] == str(adapters)
    assert metrics["adapters"]["sha256"] == sha256(adapters.read_bytes()).hexdigest()
    assert len(metrics["train_loss"]) == 2
    assert runs.scores("test_zero")[0]["memory_score"] == ""


def test_zero_shot_testing_needs_its_own_folder_only(runs, tmp_path, demo_root):
    runs("train_zero", "Liver", "--epoch", 1)
    alone = tmp_path / "alone"
    shutil.copytree(demo_root / "data" / "Liver_AD", alone / "Liver_AD")
    runs("test_zero", "Liver", data=alone)
    refusal = r"no folder .*Brain_AD: zero-shot training reads .*--train_objects "
    refusal += r"\(there are: none\)"
    with pytest.raises(UserError, match=refusal):
        runs("train_zero", "Liver", data=alone)


@pytest.mark.parametrize("script", ["train_few", "train_zero"])
def test_a_training_batch_of_16_and_img_size_336(runs, script):
    result = runs(script, "Brain", "--batch_size", 16, "--epoch", 1, "--img_size", 336)
    assert 0 <= result.pixel_auroc <= 1
    assert torch.isfinite(result.scores).all()


def test_a_data_path_with_img_in_it_and_jpg_images(runs, tmp_path, demo_root):
    data = tmp_path / "img_of_img" / "img"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    for image in sorted(data.rglob("img/*.png")):
        Image.open(image).convert("RGB").save(image.with_suffix(".jpg"), quality=95)
        image.unlink()
    for mask in sorted(data.rglob("anomaly_mask/*.png")):
        mask.rename(mask.with_suffix(".jpg.png"))
        mask.with_suffix(".png").with_name(mask.stem + ".jpg.png").rename(mask)
    result = runs("train_few", "Brain", "--iterate", -1, "--epoch", 1, data=data)
    assert result.pixel_auroc is not None


def test_constant_scores_are_no_nan(runs, tmp_path, demo_root):
    data = tmp_path / "constant"
    shutil.copytree(demo_root / "data" / "Chest_AD", data / "Chest_AD")
    for image in sorted(data.rglob("*.png")):
        Image.new("RGB", (40, 40), (90, 90, 90)).save(image)
    result = runs("train_few", "Chest", "--epoch", 1, data=data)
    assert result.scores.tolist() == [0.0] * 10
    assert result.image_auroc == 0.5


def test_two_runs_are_equal(runs):
    results = []
    for _ in range(2):
        runs("train_few", "Brain")
        content = torch.load(runs.checkpoints / "Brain-2shot.pth")
        results.append(content["seg_adapters"])
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name])


def test_the_studys_names_are_accepted(runs, tmp_path, demo_root):
    data = tmp_path / "study"
    shutil.copytree(demo_root / "data" / "Chest_AD", data / "Skin_HAM10000_AD")
    for name in ("HAM10000", "Skin_HAM10000"):
        adapters = runs.checkpoints / "Skin_HAM10000-2shot.pth"
        adapters.unlink(missing_ok=True)
        runs("train_few", name, "--iterate", -1, "--epoch", 1, data=data)
        assert adapters.is_file()


def test_released_flags_have_no_effect_on_a_test(runs):
    runs("train_few", "Chest", "--epoch", 1)
    plain = runs("test_few", "Chest")
    more = ["--batch_size", 16, "--epoch", 3, "--learning_rate", 0.1, "--save_model", 0]
    assert torch.equal(runs("test_few", "Chest", *more).scores, plain.scores)


def test_the_lines_of_the_released_code(runs, capsys):
    runs("train_few", "Brain", "--epoch", 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch  0 :"
    assert lines[1].startswith("Loss:  ")
    assert [line.split(" : ")[0] for line in lines[2:4]] == ["Brain pAUC", "Brain AUC"]
    assert lines[4:] == ["Best result", ""]
    runs("train_zero", "Brain", "--epoch", 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch 0 :"
    assert [line.split(" : ")[0] for line in lines[1:3]] == ["Brain AUC", "Brain pAUC"]
    assert lines[3:5] == ["best epoch found: epoch 0 batch 0", ""]
    assert [line for line in lines if line.startswith("Loss:  ")]


def test_an_epoch_of_few_steps_says_how_often_it_is_tested(runs, capsys):
    runs("train_zero", "Brain", "--epoch", 1, "--batch_size", 16)
    remark = "note: an epoch has 4 steps, fewer than 5: the adapters are tested before each"
    assert remark in capsys.readouterr().err
    epochs = [e["epoch"] for e in runs.metrics("train_zero")["evaluations"]]
    assert epochs == [0, 0.25, 0.5, 0.75, 1]


def test_the_paper_recipe_runs(runs):
    runs("train_few", "Brain", "--recipe", "paper")
    runs("train_zero", "Chest", "--recipe", "paper", "--epoch", 1)
    metrics = runs.metrics("train_few")
    assert metrics["options"]["batch_size"] == 16
    assert metrics["options"]["recipe"]["activation"] == "quickgelu"
    assert [e["epoch"] for e in metrics["evaluations"]] == [2]
    with pytest.raises(UserError, match="was made with recipe "):
        runs("test_few", "Brain")
    runs("test_few", "Brain", "--recipe", "paper")


@pytest.mark.parametrize("flag", ["--out", "--save_path"])
def test_a_folder_that_cannot_be_made_is_refused_at_once(runs, tmp_path, flag):
    (tmp_path / "file").write_text("in the way")
    refusal = rf"{flag} .*file/x is not a directory and cannot be created"
    with pytest.raises(UserError, match=refusal):
        runs("train_few", "Brain", flag, tmp_path / "file" / "x")


def test_no_save(runs):
    runs("train_few", "Brain", "--save_model", 0, "--epoch", 1)
    assert not runs.checkpoints.exists()
    assert runs.metrics("train_few")["adapters"] is None
