"""test_few.py gives calibrated AUROCs, of images that are neither tested nor shots."""

import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score

import calibrate
from CLIP.adapter import MVFA
from dataset.catalog import CATALOG, object_info
from dataset.folder import ImageSet, list_split
from dataset.medical_few import Support, evaluation_set
from dataset.shots import Shots, choose_shots
from mvfa import Detector, scoring
from mvfa.calibrated import known_values
from mvfa.calibration_set import calibration_images, leave_one_out, shot_of_rows
from mvfa.distributed import World
from mvfa.engine import build_memory, predict
from mvfa.evaluation import constants_of, evaluate, fuse, joined
from mvfa.features import FeatureLoader
from mvfa.methods.mvfa import Mvfa
from mvfa.options import parse
from tests.conftest import listed_shots, released_form
from tests.methods import Aim, mvfa_method
from tests.script_runs import Runs

CPU = torch.device("cpu")
SIDE = 32


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


def without(data, obj: str, target, keep):
    """Copy an object's folder; of its valid images only those stay that `keep` takes."""
    shutil.copytree(data / f"{obj}_AD", target / f"{obj}_AD")
    for path in sorted((target / f"{obj}_AD/valid").rglob("*.png")):
        if path.parent.name == "img" and not keep(path):
            path.unlink()
    return target


def shot_files(runs: Runs, obj: str, k: int) -> set[tuple[str, str]]:
    """Return state and name of the shots."""
    shots = listed_shots(runs.demo_root, obj, k)
    return {(r.folder.parent.name, r.name) for r in (*shots.normal, *shots.abnormal)}


def is_shot(path, shots) -> bool:
    return (path.parent.parent.name, path.name) in shots


# ---------------------------------------------------------------- the whole script


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_a_test_reports_calibrated_aurocs(runs, capsys, obj):
    runs("train_few", obj, "--epoch", 1)
    capsys.readouterr()
    tested = runs("test_few", obj)
    printed = capsys.readouterr().out.splitlines()
    calibrated = runs.metrics("test_few")["calibrated"]
    assert calibrated["source"] == "valid-minus-shots"
    assert calibrated["images"] == 4  # of eight, four are shots
    values = f"AUC {calibrated['image_auroc']:.4f}"
    if CATALOG[obj].masks:
        values += f", pAUC {calibrated['pixel_auroc']:.4f}"
        assert list(calibrated["lo_hi"]) == ["text_map", "memory_map"]
    else:
        assert calibrated["pixel_auroc"] is None
        assert list(calibrated["lo_hi"]) == ["text_score", "memory_score"]
    assert printed[-1] == (
        f"{obj} calibrated: {values} (constants of 4 images of valid/ that are no shots)"
    )
    assert printed[-2] == f"{obj} AUC : {tested.image_auroc:.4f}"
    plain = runs("test_few", obj, "--calibrated", "no")
    assert "calibrated" not in capsys.readouterr().out
    assert runs.metrics("test_few")["calibrated"] is None
    assert torch.equal(plain.scores, tested.scores)


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_calibrated_aurocs_are_those_of_the_detector(runs, obj):
    """A detector scales its scores by the same constants, and knows no test set."""
    runs("train_few", obj, "--select", "last", "--epoch", 1)
    transductive = runs("test_few", obj, "--bootstrap", 0)
    calibrated = runs.metrics("test_few")["calibrated"]
    own_out = {"--out", str(runs.out("test_few"))}
    flags = [flag for flag in runs.flags("test_few", obj) if flag not in own_out]
    file = calibrate.main([*flags, "--out", str(runs.folder / "made.detector")])
    detector = Detector.load(file, clip_path=runs.weights)
    table = runs.scores("test_few")
    results = [detector(runs.demo_root / "data" / row["file"]) for row in table]
    labels = [int(row["label"]) for row in table]
    scores = [result.score for result in results]
    assert calibrated["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    if obj == "Brain":
        tests = evaluation_set(runs.demo_root / "data", object_info(obj), SIDE)
        truth = torch.stack([tests.mask(i) for i in range(len(tests))])
        maps = np.stack([result.scored_map for result in results])
        auroc = roc_auc_score(truth.numpy().ravel(), maps.ravel())
        assert calibrated["pixel_auroc"] == pytest.approx(auroc, abs=1e-5)
        assert calibrated["pixel_auroc"] != transductive.pixel_auroc
        threshold = best_threshold(detector, runs, obj)
        assert calibrated["pixel_threshold"] == pytest.approx(threshold, rel=1e-4)
        assert calibrated["pixel_dice"] == pytest.approx(
            f1_score(truth.numpy().ravel(), maps.ravel() >= threshold), abs=1e-3
        )
    else:
        assert calibrated["pixel_dice"] is None
        assert calibrated["pixel_threshold"] is None
    reliability = calibrated["reliability"]
    known = detector.calibration
    assert (reliability["normals"], reliability["abnormals"]) == (2, 2)
    assert reliability["by"] == known.by
    # two normals promise nothing below 1/3
    assert [rate["share"] for rate in reliability["false_positive_rates"]] == [None] * 3
    assert reliability["probability"] is None


def best_threshold(detector, runs: Runs, obj: str) -> float:
    """Return the pixel threshold with the best Dice on the images of valid/ that are no shots."""
    shots = listed_shots(runs.demo_root, obj, 2)
    taken = {record.image for record in (*shots.normal, *shots.abnormal)}
    records = list_split(runs.demo_root / "data", object_info(obj), "valid")
    records = [record for record in records if record.image not in taken]
    known = ImageSet(records, SIDE)
    truth = np.concatenate([known.mask(i).numpy().ravel() for i in range(len(known))])
    maps = np.concatenate([detector(record.image).scored_map.ravel() for record in records])
    precision, recall, thresholds = precision_recall_curve(truth, maps)
    dice = 2 * precision * recall / (precision + recall).clip(1e-12)
    return float(thresholds[dice[:-1].argmax()])


def test_scores_in_the_scale_of_the_constants(method, demo_root):
    """Those of valid/ are scaled by their own ranges, those of the test by one line."""
    loader = {}
    for split in ("valid", "test"):
        images = ImageSet(list_split(demo_root / "data", object_info("Brain"), split), SIDE)
        loader[split] = FeatureLoader(images, method, device=CPU, batch_size=4)
    bank = memory(method, listed_shots(demo_root, "Brain", 2))
    for masks in (True, False):
        method.aim(Aim(masks=masks))
        form = method.form
        made = {split: predict(method, source, bank, maps=True) for split, source in loader.items()}
        known = known_values(made["valid"])
        assert (known.pixel_threshold is not None) == masks
        same = evaluate(made["valid"], None, known.constants)
        torch.testing.assert_close(same.factor * same.scores + same.addend, known.scores)
        tested = evaluate(made["test"], None, known.constants)
        parts = ("text_map", "memory_map") if masks else ("text_score", "memory_score")
        ends = [getattr(known.constants, name) for name in parts]
        if masks:
            text_map = scoring.text_map(made["test"].logits, SIDE, form.level_reduction)
            expected = fuse(text_map, scoring.memory_map(made["test"].distance, SIDE), *ends)
            expected = expected.amax(dim=(1, 2))
        else:
            values = made["test"]
            expected = fuse(values.text_scores, values.memory_scores, *ends)
        found = tested.factor * tested.scores + tested.addend
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, tested.scores, atol=1e-2)


def test_normal_shots_only_are_calibrated_too(runs):
    runs("train_zero", "Brain", "--epoch", 1, "--batch_size", 8)
    runs("test_few", "Brain", "--abnormal_shot", 0)
    calibrated = runs.metrics("test_few")["calibrated"]
    assert calibrated["source"] == "valid-minus-shots"
    assert calibrated["images"] == 6  # the abnormal ones are no shots


def test_with_nothing_but_shots_each_is_left_out(runs, capsys, tmp_path):
    shots = shot_files(runs, "Brain", 2)
    data = without(
        runs.demo_root / "data", "Brain", tmp_path / "few", lambda path: is_shot(path, shots)
    )
    runs("train_few", "Brain", "--epoch", 1, data=data)
    capsys.readouterr()
    runs("test_few", "Brain", data=data)
    assert (
        "(constants of 2 normal shots, each left out of the memory bank in turn)"
        in capsys.readouterr().out
    )
    calibrated = runs.metrics("test_few")["calibrated"]
    assert (calibrated["source"], calibrated["images"]) == ("loo-shots", 2)


def test_one_shot_and_nothing_else_is_said(runs, capsys, tmp_path):
    data = without(
        runs.demo_root / "data", "Brain", tmp_path / "one", lambda path: path.name == "000.png"
    )
    more = ["--shot", 1, "--iterate", -1]
    runs("train_few", "Brain", "--epoch", 1, *more, data=data)
    capsys.readouterr()
    runs("test_few", "Brain", *more, data=data)
    printed = capsys.readouterr()
    assert "calibrated" not in printed.out
    notes = [line for line in printed.err.splitlines() if "calibrated" in line]
    reason = "valid/ of Brain has no images but shots, and one shot cannot be left out"
    assert notes == [f"note: no calibrated AUROC: {reason}"]
    assert runs.metrics("test_few")["calibrated"] is None


@pytest.mark.parametrize("damage", ["mask", "image"])
def test_an_image_that_cannot_be_used_costs_the_line_only(runs, capsys, tmp_path, damage):
    runs("train_few", "Brain", "--epoch", 1)
    data = tmp_path / "bad"
    shutil.copytree(runs.demo_root / "data/Brain_AD", data / "Brain_AD")
    shots = shot_files(runs, "Brain", 2)
    folder = data / "Brain_AD/valid/Ungood/img"
    image = next(path for path in sorted(folder.iterdir()) if not is_shot(path, shots))
    if damage == "mask":
        (folder.with_name("anomaly_mask") / image.name).unlink()
    else:
        image.write_bytes(image.read_bytes()[:-300])  # the header can be read, the pixels cannot
    capsys.readouterr()
    runs("test_few", "Brain", data=data)
    printed = capsys.readouterr()
    assert "calibrated" not in printed.out
    assert "note: no calibrated AUROC: " in printed.err
    assert image.name in printed.err
    assert runs.metrics("test_few")["calibrated"] is None


# ---------------------------------------------------------------- the images


def test_one_label_is_enough_for_constants(runs, tmp_path):
    """A detector needs normal images; without any, its shots are left out in turn."""
    shots = shot_files(runs, "Brain", 2)
    data = without(
        runs.demo_root / "data",
        "Brain",
        tmp_path / "abnormal",
        lambda path: is_shot(path, shots) or path.parent.parent.name == "Ungood",
    )
    options = parse("test_few", runs.flags("test_few", "Brain", data=data))
    target = object_info("Brain")
    here = choose_shots(data, target, 2, lists=runs.demo_root / "fewshot_seed", seed=0, draw=0)
    images, source = calibration_images(options, target, here, World(), any_label=True)
    assert source == "valid-minus-shots"
    assert {record.label for record in images.records} == {1}
    assert not {r.image for r in images.records} & {r.image for r in here.abnormal}
    images, source = calibration_images(options, target, here, World())
    assert source == "loo-shots"
    assert images.records == here.normal


# ---------------------------------------------------------------- leaving one out


def normal_versions(shots: Shots) -> Support:
    return Support(Shots(shots.normal, []), object_info("Brain"), SIDE)


def memory(method: Mvfa, shots: Shots) -> list[torch.Tensor]:
    support = normal_versions(shots)
    loader = FeatureLoader(support, method, device=CPU, batch_size=44)
    return build_memory(method, loader, support.normal, 11)


def owners(method: Mvfa, shots: Shots) -> torch.Tensor:
    return shot_of_rows(method, normal_versions(shots), len(shots.normal), 11, World())


@pytest.fixture
def method(tiny) -> Mvfa:
    generator = torch.Generator().manual_seed(0)
    return mvfa_method(MVFA(tiny.visual, 64, (1, 2, 3, 4), released_form(), generator))


def test_a_bank_without_a_shot_is_the_bank_of_the_others(method, demo_root):
    shots = listed_shots(demo_root, "Brain", 4)
    whole = memory(method, shots)
    banks = list(leave_one_out(whole, owners(method, shots), 4))
    for left_out, bank in enumerate(banks):
        others = [r for i, r in enumerate(shots.normal) if i != left_out]
        for level, expected in zip(bank, memory(method, Shots(others, [])), strict=True):
            torch.testing.assert_close(level, expected)
    assert len(banks) == 4
    assert len(banks[0][0]) == len(whole[0]) * 3 // 4


def test_a_left_out_shot_is_no_longer_its_own_neighbour(method, demo_root):
    """With the whole bank a shot's distance is zero: constants of that would be useless."""
    shots = listed_shots(demo_root, "Brain", 4)
    whole = memory(method, shots)
    others = leave_one_out(whole, owners(method, shots), 4)
    tops = {"whole": [], "others": []}
    for record, bank in zip(shots.normal, others, strict=True):
        loader = FeatureLoader(ImageSet([record], SIDE), method, device=CPU, batch_size=1)
        for name, used in (("whole", whole), ("others", bank)):
            tops[name].append(constants_of(predict(method, loader, used)))
    assert joined(tops["whole"]).memory_map[1] < 1e-4
    assert joined(tops["others"]).memory_map[1] > 1e-2


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 4, 8])
def test_rows_of_several_processes_are_those_of_their_shots(
    method, demo_root, monkeypatch, processes, size
):
    """Also where images add different numbers of rows."""
    support = normal_versions(listed_shots(demo_root, "Brain", 2))
    counts = {image.numpy().tobytes(): 1 + i % 3 for i, image in enumerate(support.images)}
    assert len(counts) > 11
    monkeypatch.setattr(method, "bank_rows", lambda image: counts[image.numpy().tobytes()])
    expected = []
    for rank in range(processes):
        for own, _ in World(rank, processes).share(range(22), size):
            for i in own:
                expected += [i % 2] * method.bank_rows(support[i].image)
    found = shot_of_rows(method, support, 2, size, World(0, processes))
    assert found.tolist() == expected
