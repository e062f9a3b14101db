"""Two runs never write to one folder or checkpoint; what killed runs leave blocks nobody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import reproduce
from errors import UserError
from mvfa.locks import LOCK, exclusive, hold, lock_of, released
from tests.script_runs import ROOT, Runs

WAITING = """
import sys, time
from pathlib import Path
from mvfa.locks import hold
hold(Path(sys.argv[1]), "there", "wait")
print("held", flush=True)
time.sleep(60)
"""


def other_run(path: Path, code: str = WAITING) -> subprocess.Popen:
    """Start a process that holds a lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_that_another_run_holds_is_refused_with_its_process(tmp_path):
    path = tmp_path / LOCK
    other = other_run(path)
    try:
        started = time.monotonic()
        with pytest.raises(UserError) as refused:
            hold(path, "--out results", "pass another --out DIR")
        assert time.monotonic() - started < 2
    finally:
        other.kill()
        other.wait()
    message = str(refused.value)
    assert message.startswith(f"another run (process {other.pid} on ")
    assert message.endswith(" writes to --out results; pass another --out DIR")


def test_the_lock_of_a_killed_run_blocks_nobody(tmp_path):
    path = tmp_path / LOCK
    other = other_run(path)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert path.exists()
    with released():
        hold(path, "there", "wait")
        assert path.read_text().startswith(f"{os.getpid()} ")
    assert list(tmp_path.iterdir()) == []


def path_is_held(path: Path) -> bool:
    """Return whether a lock could be taken."""
    try:
        hold(path, "there", "wait")
    except UserError:
        return False
    return True


FORKED = "import os\nif os.fork() == 0:\n    time.sleep(30)\n    os._exit(0)\n"
CHILD_LIVES_ON = WAITING.replace('print("held"', f'{FORKED}print("held"')


def test_children_of_a_killed_run_hold_nothing(tmp_path):
    """As processes that decode images, which notice their parent's end seconds later."""
    path = tmp_path / LOCK
    other = other_run(path, CHILD_LIVES_ON)
    (child,) = psutil.Process(other.pid).children()
    other.send_signal(signal.SIGKILL)
    other.wait()
    deadline = time.monotonic() + 10  # the child lets go as soon as it gets a turn
    with released():
        while not path_is_held(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert path.read_text().startswith(f"{os.getpid()} ")
    assert child.is_running()
    child.kill()


def test_a_main_lets_go_when_it_ends_or_fails(tmp_path):
    path = lock_of(tmp_path / "Brain.pth")

    @exclusive
    def main(fails: bool) -> int:
        hold(path, "there", "wait")
        assert path.name == ".Brain.pth.lock"
        assert path.exists()
        if fails:
            raise ZeroDivisionError
        return 3

    with released():
        hold(tmp_path / LOCK, "the outer main's", "wait")
        with pytest.raises(ZeroDivisionError) as failed:  # its frames stay alive
            main(True)
        assert not path.exists()
        assert main(False) == 3
        assert [entry.name for entry in tmp_path.iterdir()] == [LOCK]
    assert failed
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    import filelock

    def refuse(self) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with released():
        hold(tmp_path / LOCK, "there", "wait")


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


@pytest.mark.parametrize(
    ("script", "place", "message"),
    [
        (
            "train_few",
            "out/train_few/.lock",
            r"writes to --out \S+/train_few; wait for it, or pass",
        ),
        ("train_zero", "ckpt/.Brain.pth.lock", r"writes to \S+/Brain\.pth; .* another --save_path"),
        ("test_few", "out/test_few/.lock", r"writes to --out \S+; .* another --out DIR"),
    ],
)
def test_a_script_refuses_to_write_where_another_run_writes(runs, tmp_path, script, place, message):
    path = tmp_path / place
    other = other_run(path)
    try:
        with pytest.raises(UserError, match=message):
            runs(script, "Brain")
    finally:
        other.kill()
        other.wait()
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == [path]


def test_drivers_refuse_to_write_where_another_run_writes(tmp_path):
    other = other_run(tmp_path / LOCK)
    try:
        with pytest.raises(UserError, match=r"writes to --root .* another --root DIR"):
            reproduce.main(["table1", "--root", str(tmp_path)])
    finally:
        other.kill()
        other.wait()


def test_other_runs_write_at_the_same_time_elsewhere(runs, tmp_path):
    """The checkpoints of two objects may have one folder, and files go with their runs."""
    other = other_run(tmp_path / "ckpt" / ".Chest-2shot.pth.lock")
    try:
        runs("train_few", "Brain", "--epoch", 1)
    finally:
        other.kill()
        other.wait()
    assert not list((tmp_path / "out").rglob(".*"))
    assert {path.name for path in runs.checkpoints.iterdir()} == {
        "Brain-2shot.pth",
        ".Chest-2shot.pth.lock",
    }
