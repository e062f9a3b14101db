"""Inputs that vanish, or change their kind, after they were checked: one line, nothing lost."""

import shutil

import pytest

import test_few
from dataset.layout import image_folder
from errors import UserError
from tests.faults.scenarios import snapshot
from tests.script_runs import Runs


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["removed", "emptied", "a folder"])
def test_an_image_that_vanishes_is_named(
    tiny_path, demo_root, tmp_path, monkeypatch, kind, workers
):
    runs = Runs(tiny_path, demo_root, tmp_path)
    data = tmp_path / "data"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    runs("train_few", "Brain", "--epoch", 1, data=data)
    runs("test_few", "Brain", "--bootstrap", 0, data=data)
    before = snapshot(tmp_path / "out")
    *_, image = sorted(image_folder(data, "Brain", "test", "Ungood").iterdir())

    def vanish(*arguments, **more) -> object:
        image.unlink()
        if kind == "emptied":
            image.touch()
        if kind == "a folder":
            image.mkdir()
        return predict(*arguments, **more)

    predict = test_few.predict
    monkeypatch.setattr(test_few, "predict", vanish)
    with pytest.raises(UserError, match=rf"{image.name} is not a (readable image|regular)") as said:
        runs("test_few", "Brain", "--bootstrap", 0, "--workers", workers, data=data)
    assert "\n" not in str(said.value)
    assert snapshot(tmp_path / "out") == before
