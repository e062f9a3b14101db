"""File names that are not UTF-8 are names like others: nothing is lost, and they read back."""

import json
import os
import shutil
from pathlib import Path

import pytest

import prepare_data
import test_few
from dataset.layout import image_folder, mask_folder
from errors import UserError
from mvfa.cli import command
from mvfa.run_files import load_metrics, read_scores
from tests.script_runs import Runs

ODD = os.fsdecode(b"caf\xe9.png")  # Latin-1
SHOWN = "caf\\udce9.png"


@pytest.fixture
def data(demo_root, tmp_path) -> Path:
    """Return the demo's Brain, in which one image of each split has an odd name."""
    data = tmp_path / "data"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    for split in ("valid", "test"):
        folder = image_folder(data, "Brain", split, "Ungood")
        image = min(folder.iterdir())
        mask = mask_folder(folder) / image.name
        image.rename(folder / ODD)
        mask.rename(mask.with_name(ODD))
    return data


def test_a_run_is_whole_with_odd_names(data, tiny_path, demo_root, tmp_path, capfd):
    runs = Runs(tiny_path, demo_root, tmp_path)
    drawn = ("--iterate", -1, "--shot", 4)  # all abnormal images of valid/
    runs("train_few", "Brain", *drawn, "--epoch", 1, "--batch_size", 88, data=data)
    flags = ("--pictures", 10, "--page", "yes")
    command(lambda: test_few.main(runs.flags("test_few", "Brain", *drawn, *flags, data=data)))
    out = runs.out("test_few")
    name = f"Brain_AD/test/Ungood/img/{ODD}"
    scores = read_scores(out)
    assert scores is not None
    assert name in scores.files
    assert os.fsencode(name) in (out / "scores.csv").read_bytes()
    metrics = load_metrics(out)
    assert metrics is not None
    assert ODD in metrics["shots"]["abnormal"]
    assert name in [picture["file"] for picture in metrics["pictures"]]
    assert SHOWN in (out / "index.html").read_text(encoding="utf-8")
    assert "Traceback" not in capfd.readouterr().err


def test_they_are_predicted(data, tiny_path, tmp_path, capfd):
    import predict
    from tests.detectors import random_detector

    random_detector(tiny_path).save(tmp_path / "x.detector")
    folder = image_folder(data, "Brain", "test", "Ungood")
    (folder / os.fsdecode(b"b\xe9.png")).write_bytes(b"no image")
    out = tmp_path / "out"
    flags = ["-i", folder, "-o", out, "--clip_path", tiny_path, "--maps", "yes"]
    flags += ["--detector", tmp_path / "x.detector", "--device", "cpu"]
    command(lambda: predict.main([str(flag) for flag in flags]))
    assert b"caf\xe9.png,," in (out / "scores.csv").read_bytes()
    page = (out / "index.html").read_text(encoding="utf-8")
    assert SHOWN in page
    assert "overlays/caf%E9.png.jpg" in page
    assert (out / "overlays" / f"{ODD}.jpg").is_file()
    printed = capfd.readouterr()
    assert "b\\udce9.png" in printed.err
    assert "Traceback" not in printed.err


def test_they_are_checked_and_converted_and_lists_refuse_them(data, tmp_path, capfd):
    where = ["--data_path", str(data)]
    prepare_data.main(["check", "--obj", "Brain", *where, "--json", str(tmp_path / "report.json")])
    source = str(data / "Brain_AD")
    target = ["--data_path", str(tmp_path / "new")]
    command(lambda: prepare_data.main(["convert", source, "--obj", "Copy", *target]))
    (made,) = (tmp_path / "new").iterdir()
    assert os.fsencode(ODD) in (made / "conversion.csv").read_bytes()
    assert json.loads((made / "conversion.json").read_text(encoding="utf-8"))["name"] == "Copy"
    lists = ["--fewshot_path", str(tmp_path / "lists")]
    with pytest.raises(UserError, match=r"has a name that is no text in UTF-8; rename it"):
        prepare_data.main(["draw", "--obj", "Brain", *where, "--shots", "4", *lists])
    assert "Traceback" not in capfd.readouterr().err
