"""A new organ, by its folder alone: trained, tested, calibrated, scored, and on the page."""

import shutil
from pathlib import Path

import pytest

import calibrate
import predict
import reproduce
import test_few
import test_zero
import train_few
import train_zero
from mvfa.detector_file import read_description
from report.study import DONE

NAME = "Thyroid"
SMALL = ("--img_size", 60)


@pytest.fixture(scope="module")
def data(demo_root, tmp_path_factory) -> Path:
    """Give the demo's Brain images another name, and keep all objects beside it."""
    folder = tmp_path_factory.mktemp("organ") / "data"
    shutil.copytree(demo_root / "data", folder)
    shutil.copytree(folder / "Brain_AD", folder / f"{NAME}_AD")
    (folder / f"{NAME}_AD/object.toml").write_text('noun = "thyroid ultrasound"\n')
    return folder


@pytest.fixture(scope="module")
def flags(data, demo_weights, tmp_path_factory):
    """Return flags that every script takes."""
    folder = tmp_path_factory.mktemp("runs")

    def make(script: str, *more: object) -> list[str]:
        setting = script.split("_")[1]
        own = ["--obj", NAME, "--data_path", data, "--clip_path", demo_weights, *SMALL]
        own += ["--save_path", folder / setting, "--out", folder / script]
        return [str(flag) for flag in (*own, *more)]

    return make


def test_few_shot_detector_and_scores(flags, data, demo_weights, tmp_path, capsys):
    trained = train_few.main(flags("train_few", "--shot", 2, "--epoch", 1))
    assert trained.pixel_auroc is not None  # masks were found by looking
    printed = capsys.readouterr().err
    assert "thyroid ultrasound" in printed
    assert "seed" in printed  # no list: the shots are drawn
    tested = test_few.main(flags("test_few", "--shot", 2))
    assert tested.image_auroc == trained.image_auroc
    detector = tmp_path / "t.detector"
    own = list(flags("calibrate_few", "--shot", 2))
    own[own.index("--out") + 1] = str(detector)
    assert calibrate.main(own) == detector
    assert read_description(detector)["noun"] == "thyroid ultrasound"
    images = data / f"{NAME}_AD/test/Ungood/img"
    found = ["-i", images, "-o", tmp_path / "out", "--detector", detector]
    summary = predict.main([str(flag) for flag in [*found, "--clip_path", demo_weights]])
    assert summary.scored == 5
    assert (tmp_path / "out/index.html").is_file()


def test_zero_shot(flags):
    options = ("--epoch", 1, "--batch_size", 8)
    sources = ("--train_objects", "Liver", "Chest")
    trained = train_zero.main(flags("train_zero", *options, *sources))
    assert test_zero.main(flags("test_zero")).image_auroc == trained.image_auroc


def test_it_is_a_source_of_zero_shot_training(flags):
    own = flags("train_zero", "--epoch", 1, "--batch_size", 8, "--train_objects", NAME, "Chest")
    own[own.index("--obj") + 1] = "Liver"
    assert train_zero.main(own).image_auroc > 0


def test_the_page_has_its_rows(data, demo_weights, tmp_path):
    study = reproduce.main(
        [
            *("table1", "table2", "--objects", NAME, "--epoch", "1", "--pictures", "1"),
            *("--img_size", "60", "--clip_path", str(demo_weights)),
            *("--data_path", str(data), "--root", str(tmp_path)),
        ]
    )
    assert {cell.obj for cell in study.cells} == {NAME}
    assert {cell.table: cell.state for cell in study.cells} == {"table1": DONE, "table2": DONE}
    page = (tmp_path / "report/index.html").read_text()
    assert NAME in page
