"""What a run prints and writes: lines in the released order, short metrics.json, all named."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
import torch

from mvfa import results
from mvfa.evaluation import Evaluation
from mvfa.options import parse
from mvfa.results import auroc_lines
from tests.faults.scenarios import snapshot
from tests.script_runs import ROOT, Runs


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


@pytest.mark.parametrize(
    ("script", "pixel", "lines"),
    [
        ("train_few", 0.5, ["Brain pAUC : 0.5000", "Brain AUC : 0.2500"]),
        ("test_few", 0.5, ["Brain pAUC : 0.5000", "Brain AUC : 0.2500"]),
        ("train_zero", 0.5, ["Brain AUC : 0.2500", "Brain pAUC : 0.5000"]),
        ("test_zero", 0.5, ["Brain AUC : 0.2500", "Brain pAUC : 0.5000"]),
        ("test_few", None, ["Brain AUC : 0.2500"]),
        ("test_zero", None, ["Brain AUC : 0.2500"]),
    ],
)
def test_few_shot_shows_pixels_first_and_zero_shot_images(script, pixel, lines):
    scores = torch.zeros(2)
    evaluation = Evaluation(scores, scores, None, 0.25, pixel, pixel)
    options = parse(script, ["--obj", "Brain"])
    assert auroc_lines(options, evaluation).splitlines() == lines


def written_files(capsys) -> list[str]:
    """Return what the last line of standard error names."""
    last = capsys.readouterr().err.splitlines()[-1].split()
    assert last[0] == "wrote"
    return last[1:]


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_curves_have_a_file_of_their_own(runs, capsys, obj):
    runs("train_few", obj, "--epoch", 1)
    capsys.readouterr()
    runs("test_few", obj, "--bootstrap", 5)
    out = runs.out("test_few")
    assert sorted(written_files(capsys)) == sorted(map(str, out.iterdir()))
    assert len((out / "metrics.json").read_text().splitlines()) < 400
    curves = json.loads((out / "curves.json").read_text())
    details = runs.metrics("test_few")["details"]
    assert list(curves) == list(details) == ["image", "pixel"]
    for granularity, branches in details.items():
        if branches is None:
            assert curves[granularity] is None
            continue
        for branch, values in branches.items():
            assert list(curves[granularity][branch]) == ["roc", "pr"]
            assert not {"roc", "pr"} & set(values)
            assert "auroc" in values


def test_a_training_names_its_files_and_its_checkpoint(runs, capsys):
    runs("train_few", "Brain", "--epoch", 1)
    out = runs.out("train_few")
    everything = [*out.iterdir(), *runs.checkpoints.iterdir()]
    assert sorted(written_files(capsys)) == sorted(map(str, everything))
    assert len((out / "metrics.json").read_text().splitlines()) < 400


def test_a_training_without_checkpoint_names_none(runs, capsys):
    runs("train_few", "Chest", "--epoch", 1, "--save_model", 0)
    assert sorted(written_files(capsys)) == sorted(map(str, runs.out("train_few").iterdir()))


def test_pictures_are_named_and_are_gone_after_a_run_without(runs, capsys):
    runs("train_zero", "Brain", "--epoch", 1)
    capsys.readouterr()
    runs("test_zero", "Brain", "--pictures", 2, "--bootstrap", 0)
    out = runs.out("test_zero")
    written = written_files(capsys)
    assert sorted(written) == sorted(map(str, out.iterdir()))
    assert (out / "pictures").is_dir()
    (shown,) = re.findall(
        r"^wrote (.*/pictures.*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert [Path(name).name for name in shown.split()] == [Path(name).name for name in written]
    runs("test_zero", "Brain", "--bootstrap", 0)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert sorted(written_files(capsys)) == sorted(map(str, files))


@pytest.mark.parametrize("failing", ["write_scores", "write_json", "draw_pictures"])
def test_what_cannot_be_written_costs_no_earlier_results(runs, monkeypatch, failing):
    """A full disk, say: new results take the place of earlier ones when all of them are there."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    runs("train_few", "Brain", "--epoch", 1)
    runs("test_few", "Brain", "--pictures", 2, "--bootstrap", 0)
    before = snapshot(runs.folder / "out")
    monkeypatch.setattr(results, failing, full)
    for script, more in (("train_few", ("--epoch", 1)), ("test_few", ("--pictures", 1))):
        if script == "train_few" and failing == "draw_pictures":
            continue
        with pytest.raises(OSError, match="No space left"):
            runs(script, "Brain", *more)
    assert snapshot(runs.folder / "out") == before
