"""A training that was stopped anywhere goes on and ends as if it had not been."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import mvfa.results
from mvfa import resume
from mvfa.engine import Trainer
from mvfa.selection import Selection
from tests.script_runs import Runs

TIMES = ("seconds", "peak_memory_bytes")  # of metrics.json: what no two runs share


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path, monkeypatch) -> Runs:
    monkeypatch.setattr(resume, "WRITING_SHARE", 1e9)  # a state whenever there can be one
    return Runs(tiny_path, demo_root, tmp_path)


class StoppedError(BaseException):
    """As Ctrl-C, but not at the tests' own hand."""


@contextmanager
def stopped(owner: object, name: str, calls: int) -> Iterator[None]:
    """Stop a training within when a function or method was called so often and is called again."""
    function = getattr(owner, name)
    left = calls

    def call(*arguments, **more) -> object:
        nonlocal left
        if left == 0:
            raise StoppedError
        left -= 1
        return function(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        with pytest.raises(StoppedError):
            yield


def results(runs: Runs, script: str) -> tuple[dict, bytes, bytes]:
    """Return metrics without times and the bytes of scores.csv and the checkpoint."""
    metrics = {k: v for k, v in runs.metrics(script).items() if k not in TIMES}
    (adapters,) = runs.checkpoints.iterdir()
    return metrics, (runs.out(script) / "scores.csv").read_bytes(), adapters.read_bytes()


def undisturbed(runs: Runs, script: str, obj: str, *more) -> tuple[dict, bytes, bytes]:
    """Return the results of a training that is not stopped, and remove them."""
    runs(script, obj, *more)
    expected = results(runs, script)
    shutil.rmtree(runs.checkpoints)
    shutil.rmtree(runs.out(script))
    return expected


def goes_on(printed: str) -> list[str]:
    """Return after which epochs the trainings of some output went on."""
    return re.findall(r"note: going on after (.*) \(.*\.state\)", printed)


STEPS = 44  # of an epoch: 2 + 2 shots in eleven versions
FEW = ("train_few", "Brain", "--epoch", 4, "--learning_rate", 1e-2)


@pytest.mark.parametrize("rule", ["test", "valid", "last"])
def test_few_shot_goes_on_after_any_epoch(runs, capsys, rule):
    """Stopped within epochs, by a test of the adapters, and while results are written."""
    arguments = (*FEW, "--select", rule)
    expected = undisturbed(runs, *arguments)
    capsys.readouterr()
    with stopped(Trainer, "step", STEPS + 7):
        runs(*arguments)
    assert [path.name for path in runs.checkpoints.iterdir()] == ["Brain-2shot.state"]
    assert not runs.out("train_few").joinpath("metrics.json").exists()
    with stopped(Trainer, "step", STEPS):
        runs(*arguments)
    with stopped(Selection, "add_test", 1 if rule == "test" else 0):
        runs(*arguments)
    with stopped(mvfa.results, "write_json", 0):
        runs(*arguments)
    runs(*arguments)
    # with other rules than "test" it was stopped by the test of the last epoch
    third = "3 of 4 epochs"
    assert goes_on(capsys.readouterr().err) == [
        "1 of 4 epochs",
        "2 of 4 epochs",
        third,
        "4 of 4 epochs",
    ]
    assert results(runs, "train_few") == expected


ZERO = ("train_zero", "Liver", "--epoch", 2, "--batch_size", 3, "--learning_rate", 1e-2)


@pytest.mark.parametrize("rule", ["test", "valid", "last"])
@pytest.mark.parametrize("gigabytes", [0, 0.001, 8])
def test_zero_shot_goes_on_within_an_epoch(runs, capsys, rule, gigabytes):
    """Stopped in both epochs; features are cached in the batches that they were cached in."""
    arguments = (*ZERO, "--select", rule, "--cache_gb", gigabytes)
    expected = undisturbed(runs, *arguments)
    capsys.readouterr()
    for steps in (4, 5, 7, 9, 1):  # of 17 in an epoch: moments are before 0, 3, 6, 9, 12, 15
        with stopped(Trainer, "step", steps):
            runs(*arguments)
    runs(*arguments)
    assert goes_on(capsys.readouterr().err) == [
        "0 of 2 epochs and 1 parts of the next",
        "0 of 2 epochs and 2 parts of the next",
        "0 of 2 epochs and 4 parts of the next",
        "1 of 2 epochs and 1 parts of the next",
        "1 of 2 epochs and 1 parts of the next",  # one step made no part whole
    ]
    assert results(runs, "train_zero") == expected
