"""Two gloo processes score and train as one, and stop cleanly when one of them is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from errors import UserError
from mvfa.distributed import World, join
from mvfa.engine import Trainer
from mvfa.state_file import read_state
from tests.script_runs import ROOT, Runs

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


def torchrun(*arguments: object) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return [*start, *map(str, arguments)]


def run_two(script: str, arguments: list[str], *, errors: bool = False) -> str:
    """Run a script in two processes, which must end well; return what they print.

    With `errors`, what they write to standard error.
    """
    ended = subprocess.run(
        torchrun(script, *arguments),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr if errors else ended.stdout


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_shares_cover_every_image_once():
    for size in (1, 2, 3):
        worlds = [World(rank, size) for rank in range(size)]
        shares = [world.share(range(11), 2) for world in worlds]
        assert len({len(share) for share in shares}) == 1
        covered = sorted(i for share in shares for images, _ in share for i in images)
        assert covered == list(range(11))
        for step in zip(*shares, strict=True):
            assert {total for _, total in step} == {sum(len(images) for images, _ in step)}


def test_one_process_needs_no_group():
    world = World()
    assert world.everyone(3) == world.collect(3) == [3]
    assert world.from_first(lambda: 4) == 4
    assert world.total([1.5], torch.device("cpu")) == [1.5]


@pytest.mark.parametrize("size", ["", " ", "1"])
def test_an_empty_variable_is_not_set(monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    assert join() == World()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WORLD_SIZE": "auto"}, "WORLD_SIZE is 'auto', not a number from 1; "),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', not"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2', not"),
        ({"WORLD_SIZE": "1.5"}, "WORLD_SIZE is '1.5', not"),
        ({"RANK": None}, "RANK is not set, not a number from 0 to 1; "),
        ({"RANK": "2"}, "RANK is '2', not a number from 0 to 1; "),
        ({"RANK": "first"}, "RANK is 'first', not"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x', not a number from 0; "),
        ({"MASTER_PORT": "port"}, "MASTER_PORT is 'port', not a number from 1 to 65535; "),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT is '99999', not"),
        ({"MASTER_ADDR": None}, "the 2 processes could not be joined (.*MASTER_ADDR"),
    ],
)
def test_odd_variables_are_one_line(monkeypatch, changes, message):
    good = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    good |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in (good | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message.replace("(.", r"\(.")) as found:
        join()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_two_processes_score_as_one(runs, tmp_path, obj):
    runs("train_few", obj, "--epoch", 1)
    alone = runs("test_few", obj)
    printed = run_two("test_few.py", runs.flags("test_few", obj, "--out", tmp_path / "two"))
    assert printed.count(f"{obj} AUC : ") == 1
    metrics = metrics_of(tmp_path / "two")
    assert metrics["processes"] == 2
    assert metrics["image_auroc"] == pytest.approx(alone.image_auroc, abs=1e-6)
    if alone.pixel_auroc is not None:
        assert metrics["pixel_auroc"] == pytest.approx(alone.pixel_auroc, abs=1e-6)
    tables = [
        (folder / "scores.csv").read_text().splitlines()
        for folder in (runs.out("test_few"), tmp_path / "two")
    ]
    one, two = ([row.split(",")[:2] for row in table] for table in tables)
    assert one == two
    assert_calibrated_alike(runs.metrics("test_few"), metrics)


def assert_calibrated_alike(one: dict, two: dict) -> None:
    """Check that the constants of other images, and what they give, are those of one process."""
    expected = one["calibrated"]
    got = two["calibrated"]
    assert (got["source"], got["images"]) == (expected["source"], expected["images"])
    assert got["image_auroc"] == pytest.approx(expected["image_auroc"], abs=1e-6)
    assert got["pixel_auroc"] == pytest.approx(expected["pixel_auroc"], abs=1e-6)
    assert got["lo_hi"].keys() == expected["lo_hi"].keys()
    for name, ends in expected["lo_hi"].items():
        assert got["lo_hi"][name] == pytest.approx(ends, rel=1e-4)


def test_two_processes_leave_out_the_same_shots(runs, tmp_path):
    """The memory bank of several processes has its rows in another order."""
    more = ["--shot", 4]  # all of valid/
    runs("train_few", "Brain", "--epoch", 1, *more)
    runs("test_few", "Brain", *more)
    flags = runs.flags("test_few", "Brain", *more, "--out", tmp_path / "two")
    printed = run_two("test_few.py", flags)
    assert printed.count("(constants of 4 normal shots, each left out") == 1
    two = metrics_of(tmp_path / "two")
    assert two["calibrated"]["source"] == "loo-shots"
    assert_calibrated_alike(runs.metrics("test_few"), two)


def test_two_processes_train_as_one_with_twice_the_batch(runs, tmp_path):
    more = ["--epoch", 1, "--learning_rate", "1e-3"]
    runs("train_zero", "Liver", *more, "--batch_size", 2)
    folders = ["--out", tmp_path / "two", "--save_path", tmp_path / "two"]
    run_two("train_zero.py", runs.flags("train_zero", "Liver", *more, *folders))
    one = runs.metrics("train_zero")
    two = metrics_of(tmp_path / "two")
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
    for a, b in zip(one["evaluations"], two["evaluations"], strict=True):
        assert a["pixel_auroc"] == pytest.approx(b["pixel_auroc"], abs=1e-3)


def ranks(parent: int) -> list[int]:
    """Return the process numbers of the workers, in the order of their start."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sorted(map(int, children))


def test_a_killed_rank_stops_the_others(runs):
    process = subprocess.Popen(
        torchrun("train_zero.py", *runs.flags("train_zero", "Liver", "--epoch", 500)),
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    state = runs.checkpoints / "Liver.state"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(ranks(process.pid)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "files written so far are whole" in errors
    assert list(runs.checkpoints.iterdir()) == [state]
    read_state(state)
    assert not (runs.out("train_zero") / "metrics.json").exists()


def test_two_processes_go_on_where_they_were_killed(runs, tmp_path, capsys):
    """To the same numbers; one process alone does not go on with the state of two."""
    more = ["--epoch", 3, "--batch_size", 4, "--learning_rate", "1e-3"]
    flags = runs.flags("train_zero", "Liver", *more)
    run_two("train_zero.py", flags)
    adapters = runs.checkpoints / "Liver.pth"
    expected = adapters.read_bytes()
    adapters.unlink()
    process = subprocess.Popen(
        torchrun("train_zero.py", *flags), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    state = runs.checkpoints / "Liver.state"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for rank in ranks(process.pid):
        os.kill(rank, signal.SIGKILL)
    process.wait(timeout=90)
    assert state.exists()
    assert not adapters.exists()
    moved = state.rename(tmp_path / "aside.state")
    shutil.copy(moved, state)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs("train_zero", "Liver", *more)
    assert "another command, with another processes" in capsys.readouterr().err
    shutil.copy(moved, state)
    said = run_two("train_zero.py", flags, errors=True)
    assert said.count("note: going on after ") == 1
    assert adapters.read_bytes() == expected
    assert not state.exists()
