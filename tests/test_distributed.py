"""Two gloo processes give the figures of one, and stop cleanly when one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import test_few as script_test_few
import train_few as script_train_few
import train_zero as script_train_zero
from mvfa.distributed import World
from tests.test_scripts import ROOT, flags  # noqa: F401  # the fixture

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def torchrun(*arguments: object) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return [*start, *map(str, arguments)]


def run_two(script: str, arguments: list[str]) -> str:
    """What two processes of a script print, which must end well."""
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
    return ended.stdout


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_shares_cover_every_image_once():
    for size in (1, 2, 3):
        worlds = [World(rank, size) for rank in range(size)]
        shares = [world.share(range(11), 2) for world in worlds]
        assert len({len(share) for share in shares}) == 1
        assert sorted(i for share in shares for images, _ in share for i in images) == list(
            range(11)
        )
        for step in zip(*shares, strict=True):
            assert {total for _, total in step} == {sum(len(images) for images, _ in step)}


def test_one_process_needs_no_group():
    world = World()
    assert world.everyone(3) == world.collect(3) == [3]
    assert world.from_first(lambda: 4) == 4
    assert world.total([1.5], torch.device("cpu")) == [1.5]


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_two_processes_score_as_one(flags, tmp_path, obj):  # noqa: F811
    script_train_few.main(flags(obj, "train_few", "--epoch", 1))
    alone = script_test_few.main(flags(obj, "test_few"))
    arguments = flags(obj, "test_few", "--out", tmp_path / "two")
    printed = run_two("test_few.py", arguments)
    assert printed.count(f"{obj} AUC : ") == 1
    found = metrics(tmp_path / "two")
    assert found["processes"] == 2
    assert found["image_auroc"] == pytest.approx(alone.image_auroc, abs=1e-6)
    if alone.pixel_auroc is not None:
        assert found["pixel_auroc"] == pytest.approx(alone.pixel_auroc, abs=1e-6)
    one, two = (
        (tmp_path / name / "scores.csv").read_text().splitlines()
        for name in ("out/test_few", "two")
    )
    assert [row.split(",")[:2] for row in one] == [row.split(",")[:2] for row in two]


def test_two_processes_train_as_one_with_twice_the_batch(flags, tmp_path):  # noqa: F811
    more = ["--epoch", 1, "--learning_rate", "1e-3"]
    script_train_zero.main(flags("Liver", "train_zero", *more, "--batch_size", 2))
    arguments = flags(
        "Liver", "train_zero", *more, "--out", tmp_path / "two", "--save_path", tmp_path / "two"
    )
    run_two("train_zero.py", arguments)
    one, two = metrics(tmp_path / "out" / "train_zero"), metrics(tmp_path / "two")
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
    for a, b in zip(one["evaluations"], two["evaluations"], strict=True):
        assert a["pixel_auroc"] == pytest.approx(b["pixel_auroc"], abs=1e-3)


def ranks(parent: int) -> list[int]:
    """Process numbers of the workers, in the order of their start."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sorted(map(int, children))


def test_a_killed_rank_stops_the_others(flags, tmp_path):  # noqa: F811
    arguments = flags("Liver", "train_zero", "--epoch", 500)
    process = subprocess.Popen(
        torchrun("train_zero.py", *arguments),
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint, deadline = tmp_path / "ckpt" / "Liver.pth", time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(ranks(process.pid)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "files written so far are whole" in errors
    assert [path.name for path in checkpoint.parent.iterdir()] == ["Liver.pth"]
    torch.load(checkpoint, weights_only=True)
    assert not (tmp_path / "out" / "train_zero" / "metrics.json").exists()
