"""calibrate.py and predict.py, from trained adapters to scores, maps and a page."""

import csv
import errno
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import calibrate
import predict
from dataset.folder import load_image
from errors import UserError
from mvfa import Detector
from mvfa.detector_file import (
    KEY,
    file_tensors_hash,
    read_description,
    read_tensors,
    tensors_hash,
)
from prediction.outputs import save_tiff
from tests.detectors import write_described
from tests.script_runs import ROOT, Runs, start
from tests.troubles import largest_file

SHARED = ("--img_size", 32, "--features_list", 1, 2, 3, 4)


class Made:
    """Detectors of one object, made once, and the demo images they score."""

    def __init__(self, weights: Path, demo_root: Path, folder: Path) -> None:
        self.weights = weights
        self.data = demo_root / "data"
        self.lists = demo_root / "fewshot_seed"
        self.folder = folder
        self.runs = Runs(weights, demo_root, folder)

    def detector(self, obj: str, *more: object) -> Path:
        """Run calibrate.py."""
        flags = ["--obj", obj, "--clip_path", self.weights, *SHARED, "--data_path", self.data]
        flags += ["--fewshot_path", self.lists, "--save_path", self.folder / "ckpt", *more]
        if "--shot" not in more:
            flags += ["--shot", 2]
        return calibrate.main([str(flag) for flag in flags])

    def predict(self, detector: Path, out: Path, *inputs: object, more: tuple = ()):
        """Run predict.py."""
        flags = ["-i", *inputs, "-o", out, "--detector", detector, "--clip_path", self.weights]
        return predict.main([str(flag) for flag in [*flags, *more]])


@pytest.fixture(scope="module")
def made(tiny_path, demo_root, tmp_path_factory) -> Made:
    made = Made(tiny_path, demo_root, tmp_path_factory.mktemp("made"))
    for obj in ("Brain", "Chest"):
        made.runs("train_few", obj, "--select", "last", "--epoch", 1)
    made.runs("train_zero", "Brain", "--select", "last", "--epoch", 1, "--batch_size", 8)
    return made


@pytest.fixture(scope="module")
def brain(made) -> Path:
    return made.detector("Brain")


def rows(out: Path) -> list[dict]:
    with (out / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def images(made: Made, obj: str = "Brain", state: str = "good") -> Path:
    return made.data / f"{obj}_AD/test/{state}/img"


@pytest.mark.parametrize(
    ("obj", "more", "setting"),
    [
        ("Brain", (), "few"),
        ("Chest", (), "few"),
        ("Brain", ("--shot", 0), "zero"),
        ("Brain", ("--abnormal_shot", 0), "normal"),
    ],
)
def test_every_kind_of_detector_scores(made, tmp_path, obj, more, setting):
    file = made.detector(obj, *more, "--out", tmp_path / "x.detector")
    about = read_description(file)
    assert about["setting"] == setting
    assert about["calibration"]["source"] == "valid-minus-shots"
    summary = made.predict(file, tmp_path / "out", images(made, obj))
    assert (summary.scored, summary.failures) == (5, [])
    found = rows(tmp_path / "out")
    assert [row["file"] for row in found] == [f"00{i}.png" for i in range(5)]
    assert all(np.isfinite(float(row["score"])) for row in found)
    detector = Detector.load(file, clip_path=made.weights)
    for row in found:
        result = detector(images(made, obj) / row["file"])
        assert float(row["score"]) == result.score
        assert float(row["p_value"]) == result.p_value
        saved = Image.open(tmp_path / "out/maps" / f"{row['file']}.tif")
        original = Image.open(images(made, obj) / row["file"])
        assert saved.size == original.size
        assert np.array_equal(np.array(saved), result.map)
        assert Image.open(tmp_path / "out/overlays" / f"{row['file']}.jpg").size == original.size


def test_a_score_is_the_same_alone_and_in_any_batch(made, brain, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for state in ("good", "Ungood"):
        for path in images(made, state=state).glob("*.png"):
            for copy in range(10):
                shutil.copy(path, folder / f"{state}-{path.stem}-{copy}.png")
    quick = ("--overlays", "no", "--maps", "no")
    scores = []
    for size in (1, 16):
        out = tmp_path / f"out{size}"
        made.predict(brain, out, folder, more=(*quick, "--batch_size", size))
        scores.append({row["file"]: row["score"] for row in rows(out)})
    assert len(scores[0]) == 100
    assert scores[0] == scores[1]
    for name in ("good-000-0.png", "Ungood-004-9.png"):
        out = tmp_path / f"alone-{name}"
        made.predict(brain, out, folder / name, more=quick)
        assert rows(out)[0]["score"] == scores[0][name]


def test_a_flagged_image_has_a_box_and_an_unflagged_one_none(made, brain):
    detector = Detector.load(brain, clip_path=made.weights)
    image = images(made, state="Ungood") / "000.png"
    score = detector(image).score
    detector.set_threshold(str(score - 1e-3))
    result = detector(image)
    assert result.flagged
    width, height = result.image.size
    for box in result.boxes:
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height
    assert result.boxes
    detector.set_threshold(str(score))
    assert not detector(image).flagged
    assert detector(image).boxes == []


def test_inputs_of_every_kind_give_the_same_score(made, brain):
    detector = Detector.load(brain, clip_path=made.weights)
    path = images(made) / "001.png"
    picture = Image.open(path)
    array = np.asarray(picture.convert("RGB"))
    results = detector([path, str(path), picture, array])
    assert len({result.score for result in results}) == 1
    assert torch.equal(load_image(path, 32), load_image(path, 32))
    wide = array[..., 0].astype(np.uint16) * 16
    grey = array[..., 0].astype(np.float64)
    low, high = grey.min(), grey.max()
    stretched = np.rint(255 * (grey - low) / (high - low)).astype(np.uint8)
    assert detector(wide).score == detector(stretched).score
    for wrong in (np.zeros((2, 3, 4, 5)), np.zeros((4, 4), complex), np.full((4, 4), np.nan)):
        with pytest.raises(UserError):
            detector(wrong)


def test_a_bad_file_is_listed_and_the_rest_is_scored(made, brain, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(images(made), folder)
    (folder / "002.png").write_bytes((folder / "002.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("x")
    summary = made.predict(brain, tmp_path / "out", folder)
    assert (summary.scored, len(summary.failures)) == (4, 1)
    bad = rows(tmp_path / "out")[2]
    assert bad["file"] == "002.png"
    assert "002.png" in bad["error"]
    page = (tmp_path / "out/index.html").read_text()
    assert "not a medical device" in page
    assert "002.png" in page
    assert "1 files of other types left out: 1 .txt" in page
    shutil.copy(images(made) / "002.png", folder)  # repaired: the same command scores it
    assert made.predict(brain, tmp_path / "out", folder).scored == 5


def test_a_stopped_run_goes_on(made, brain, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    made.predict(brain, whole, images(made))
    out = tmp_path / "out"
    seen = []
    write = predict.Run.write

    def stop(self, source, loaded, results):
        seen.append(source.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return write(self, source, loaded, results)

    with monkeypatch.context() as patch:
        patch.setattr(predict.Run, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            made.predict(brain, out, images(made), more=("--batch_size", 1))
    assert 1 <= len(rows(out)) < 5
    with monkeypatch.context() as patch:
        patch.setattr(predict.Run, "write", lambda *a: seen.append(a[1].name) or write(*a))
        seen.clear()
        made.predict(brain, out, images(made), more=("--batch_size", 2))
    assert 0 < len(seen) < 5
    assert (out / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()


def test_other_images_of_the_same_names_are_scored_again(made, brain, tmp_path, capsys):
    out = tmp_path / "out"
    made.predict(brain, out, images(made))
    made.predict(brain, out, images(made))
    assert "going on, 5 were scored before\n" in capsys.readouterr().err
    made.predict(brain, out, images(made, state="Ungood"))
    assert "0 were scored before; 5 are other files now" in capsys.readouterr().err
    made.predict(brain, tmp_path / "fresh", images(made, state="Ungood"))
    assert rows(out) == rows(tmp_path / "fresh")


def test_a_name_too_long_for_outputs_is_a_failure(made, brain, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", f"{'x' * 249}.png"):
        shutil.copy(images(made) / "000.png", folder / name)
    summary = made.predict(brain, tmp_path / "out", folder)
    assert summary.scored == 1
    assert "too long" in summary.failures[0]["error"]
    quick = ("--overlays", "no", "--maps", "no")
    assert made.predict(brain, tmp_path / "plain", folder, more=quick).scored == 2
    assert made.predict(brain, tmp_path / "out", folder, more=("--overwrite",)).scored == 1


def test_another_liver_mask_is_another_command(made, brain, tmp_path):
    mask = tmp_path / "mask.nii"
    mask.write_bytes(b"one")
    more = ("--liver_mask", mask)
    made.predict(brain, tmp_path / "out", images(made), more=more)
    mask.write_bytes(b"two")
    with pytest.raises(UserError, match="another liver_mask_sha256"):
        made.predict(brain, tmp_path / "out", images(made), more=more)
    mask.unlink()
    with pytest.raises(UserError, match=r"--liver_mask .* cannot be read"):
        made.predict(brain, tmp_path / "out", images(made), more=more)


def test_other_settings_need_another_folder(made, brain, tmp_path):
    made.predict(brain, tmp_path, images(made))
    with pytest.raises(UserError, match="another threshold"):
        made.predict(brain, tmp_path, images(made), more=("--threshold", "max"))
    made.predict(brain, tmp_path, images(made), more=("--threshold", "max", "--overwrite"))


def test_jobs_give_the_same_table(made, brain, tmp_path):
    folder = images(made, state="Ungood")
    made.predict(brain, tmp_path / "one", folder)
    flags = ["-i", folder, "-o", tmp_path / "two", "--detector", brain]
    flags += ["--clip_path", made.weights, "--cluster", "local", "--jobs", 2]
    done = start("predict.py", *flags)
    assert done.returncode == 0, done.stderr
    one, two = ({row["file"]: row for row in rows(tmp_path / name)} for name in ("one", "two"))
    assert one == two
    assert len(list((tmp_path / "two").glob("rows-*-of-2.jsonl"))) == 2


def test_impossible_thresholds_are_refused(made, tmp_path):
    few = made.detector("Brain", "--normals", images(made), "--out", tmp_path / "n.detector")
    assert read_description(few)["calibration"]["source"] == "normals"
    with pytest.raises(UserError, match="allow no false positive rate below"):
        made.predict(few, tmp_path / "out", images(made), more=("--threshold", "fpr=0.05"))
    with pytest.raises(UserError):
        made.predict(few, tmp_path / "out", images(made), more=("--threshold", "f1"))


def test_without_valid_images_the_shots_are_left_out_in_turn(made, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(made.data / "Brain_AD", data / "Brain_AD")
    named = (made.lists / "Brain/2-shot.txt").read_text().split()
    for state in ("good", "Ungood"):
        for path in (data / f"Brain_AD/valid/{state}/img").glob("*.png"):
            if path.name not in named:
                path.unlink()
    for state in ("good", "Ungood"):  # a name that is a shot of the other label only
        keep = read_shots(made, state)
        for path in (data / f"Brain_AD/valid/{state}/img").glob("*.png"):
            if path.name not in keep:
                path.unlink()
    file = made.detector("Brain", "--data_path", data, "--out", tmp_path / "l.detector")
    about = read_description(file)
    assert about["calibration"]["source"] == "loo-shots"
    detector = Detector.load(file, clip_path=made.weights)
    assert len(detector.calibration.normal_scores) == 2


def read_shots(made: Made, state: str) -> list[str]:
    tag = {"good": "n-0:", "Ungood": "a-0:"}[state]
    lines = (made.lists / "Brain/2-shot.txt").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(tag))


def test_published_adapters_make_a_detector(made, tmp_path):
    adapters = made.runs.authors_file("Published.pth")
    file = made.detector("Brain", "--ckpt", adapters, "--out", tmp_path / "p.detector")
    assert read_description(file)["adapters"]["file"] == "Published.pth"


def test_a_detector_of_other_weights_is_refused(brain, demo_weights):
    with pytest.raises(UserError, match="SHA-256"):
        Detector.load(brain, clip_path=demo_weights)


def mutated(path: Path, target: Path, position: int) -> Path:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    target.write_bytes(data)
    return target


def test_damaged_detectors_are_refused(made, brain, tmp_path):
    size = brain.stat().st_size
    rng = np.random.default_rng(0)
    for number, position in enumerate(rng.integers(0, size, 40).tolist()):
        bad = mutated(brain, tmp_path / f"{number}.detector", position)
        before = json.loads(json.dumps(read_description(brain)))
        try:
            detector = Detector.load(bad, clip_path=made.weights)
        except UserError:
            continue
        # a change of the description that leaves its meaning, as of a version's text
        assert (
            detector.settings.as_dict()
            == Detector.load(brain, clip_path=made.weights).settings.as_dict()
        ), (position, before)
    (tmp_path / "cut.detector").write_bytes(brain.read_bytes()[: size // 2])
    with pytest.raises(UserError):
        Detector.load(tmp_path / "cut.detector", clip_path=made.weights)


def test_a_file_has_the_hash_of_its_tensors(brain):
    assert file_tensors_hash(brain) == tensors_hash(load_file(brain))
    assert file_tensors_hash(brain) == read_description(brain)["tensors_sha256"]


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": [2], "data_offsets": ["a", "b"]},
        {"dtype": "F32", "shape": [2], "data_offsets": [2**70, 2**71]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        [],
        None,
    ],
)
def test_a_header_that_names_no_tensors_is_refused(brain, tmp_path, entry):
    about = {"__metadata__": {KEY: json.dumps(read_description(brain))}, "text": entry}
    header = json.dumps(about).encode()
    path = tmp_path / "x.detector"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(UserError, match=r"x\.detector is not a detector"):
        read_tensors(path, read_description(path))


def test_a_description_without_ranges_is_refused(made, brain, tmp_path):
    for ranges in ({}, {"text": [0, 1]}, {"text": [0, 1], "memory": [0, 1], "fused": [1, "x"]}):
        write_described(brain, tmp_path / "x.detector", map_ranges=ranges)
        with pytest.raises(UserError, match=r"map_ranges\.[\w.]+ is"):
            Detector.load(tmp_path / "x.detector", clip_path=made.weights)
    ranges = {"text": [1, 0], "memory": [0, 1], "fused": [0, 1]}
    write_described(brain, tmp_path / "x.detector", map_ranges=ranges)
    with pytest.raises(UserError, match="calibration cannot be read"):
        Detector.load(tmp_path / "x.detector", clip_path=made.weights)


@pytest.mark.parametrize(
    "flags",
    [
        ("-o", "out", "--obj", "Brain"),
        ("-i", "README.md", "-o", "out"),
        ("-i", "nowhere.png", "-o", "out", "--obj", "Brain"),
        ("-i", "README.md", "-o", "out", "--detector", "README.md"),
        ("-i", "README.md", "-o", "out", "--obj", "Brain", "--dicom_out", "xyz"),
        ("-i", "README.md", "-o", "out", "--obj", "Brain", "--slices", "9:3"),
        ("-i", "README.md", "-o", "out", "--obj", "Brain", "--window", "40", "0"),
    ],
)
def test_mistakes_are_one_line(flags):
    done = start(ROOT / "predict.py", *flags)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


def test_equal_maps_are_equal_files(tmp_path):
    """In memory libtiff leaves bytes of no meaning between its blocks, in every second file."""
    for seed in range(3):
        values = np.random.default_rng(seed).random((240, 240), np.float32)
        files = [tmp_path / f"{seed}-{number}.tif" for number in range(9)]
        for number, path in enumerate(files):
            np.full(200_000, number, np.uint8).tobytes()  # other content of free memory
            save_tiff(path, values)
        assert len({path.read_bytes() for path in files}) == 1
        with Image.open(files[0]) as image:
            np.testing.assert_array_equal(np.asarray(image), values)


def test_a_map_without_room_is_an_error_of_the_system(tmp_path, capfd):
    values = np.random.default_rng(0).random((240, 240), np.float32)
    with largest_file(6_000), pytest.raises(OSError, match="File too large") as raised:
        save_tiff(tmp_path / "a.tif", values)
    assert raised.value.errno == errno.EFBIG
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_maps_of_odd_sizes_are_read_back(tmp_path):
    for height, width in ((1, 1), (3, 7), (41, 20)):
        values = np.random.default_rng(height).random((height, width), np.float32)
        save_tiff(tmp_path / "a.tif", values)
        with Image.open(tmp_path / "a.tif") as image:
            np.testing.assert_array_equal(np.asarray(image), values)
            assert "research only" in image.tag_v2[270]
