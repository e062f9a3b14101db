"""About a thousand damaged and hostile files: each is read, or refused by one line."""

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from errors import UserError
from tests.fuzz import run
from tests.fuzz.mutate import members, mutated
from tests.fuzz.readers import TARGETS, Bench, Target
from tests.fuzz.run import Fuzz, found_files, shares
from tests.fuzz.seeds import File

INPUTS = 1_000
FAULTY = pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("crash", "KeyError"),
        ("wait", "more than 0.1 s"),
        ("compute", "more than 0.1 s"),
        ("write", "changed: open /"),
        ("start", "changed: os.system"),
        ("remove", "changed: os.remove /"),
        ("move", "changed: os.rename /"),
        ("fork", "changed: os.fork ("),
        ("terminal", "changed: os.forkpty"),
        ("python", "changed: subprocess.Popen"),
        ("disguise", "changed: os.system"),
        ("memory", "more memory"),
        ("change", "other values"),
    ],
)


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    """Return what makes a target's Fuzz; a target is set up once."""
    made: dict[str, Fuzz] = {}

    def of(name: str) -> Fuzz:
        if name not in made:
            made[name] = Fuzz(name, tmp_path_factory.mktemp("fuzz"))
        return made[name]

    return of


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_is_read_or_refused(fuzz, name):
    target = fuzz(name)
    target.run(shares(INPUTS)[name], seed=0)
    assert [reason for _, reason in target.faults] == []
    assert target.counts.total() >= shares(INPUTS)[name]


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(fuzz, name):
    """Else a reader that refuses everything would pass."""
    target = fuzz(name)
    outcomes = [target.judge(file, structured=False).outcome for file in target.bench.files]
    assert outcomes.count("read") >= (len(outcomes) + 1) // 2


@pytest.mark.parametrize(
    ("name", "path"), found_files(), ids=lambda value: getattr(value, "name", value)
)
def test_what_was_found_stays_mended(fuzz, name, path):
    verdict = fuzz(name).judge(File(path.name, path.read_bytes()), structured=False)
    assert verdict.outcome != "fault", verdict.reason


# ---------------------------------------------------------------------- the harness itself


def misread(action: str, outside: Path, path: Path) -> object:
    """Do to a file what no reader may."""
    actions = {
        "crash": lambda: {}[path],
        "wait": lambda: time.sleep(1),
        "compute": lambda: sum(1 for _ in range(10**8)),
        "write": lambda: (outside / "new").write_bytes(b"x"),
        "start": lambda: os.system("true"),
        "remove": (outside / "old").unlink,
        "move": lambda: path.replace(outside / "moved"),
        "fork": lambda: os.fork() or os._exit(0),
        "terminal": lambda: os.forkpty()[0] or os._exit(0),
        "python": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        "disguise": lambda: os.system("true dataset/lossless_jpeg.py"),
        "memory": lambda: len(bytearray(2 * 10**8)),
        "change": path.read_bytes,
    }
    return actions[action]()


@FAULTY
def test_a_fault_is_seen(tmp_path, monkeypatch, action, reason):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old").touch()
    bench = Bench([File("a", b"seed")], lambda path: path.read_bytes())
    monkeypatch.setitem(TARGETS, "faulty", Target(lambda _: bench, own=action == "change"))
    monkeypatch.setattr(run, "SECONDS", 0.1 if action in ("wait", "compute") else 60)
    monkeypatch.setattr(run, "MEMORY", 1e8)
    fuzz = Fuzz("faulty", tmp_path / "fuzz")
    fuzz.bench = bench._replace(read=lambda path: misread(action, outside, path))
    verdict = fuzz.take(File("a", b"changed"))
    assert verdict.outcome == "fault"
    assert reason in verdict.reason
    assert fuzz.faults == [(File("a", b"changed"), verdict.reason)]


def test_time_that_others_have_the_cores_does_not_count(monkeypatch, tmp_path):
    (tmp_path / "schedstat").write_text("5000000000 2000000000 7\n")
    monkeypatch.setattr(run, "WAITED", tmp_path / "none")
    plain = run.clock()
    monkeypatch.setattr(run, "WAITED", tmp_path / "schedstat")
    assert run.clock() - plain == pytest.approx(-2, abs=0.1)


def test_equal_seeds_give_equal_inputs():
    contents = [b"first" * 50, b"second" * 50]
    drawn = [[mutated(contents, 0, Random("x")) for _ in range(9)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 1


def test_members_of_archives_are_changed_with_right_checksums(fuzz):
    file = fuzz("checkpoint").bench.files[0]
    draw = Random(0)
    whole = [members(mutated([file.data], 0, draw)) for _ in range(60)]
    assert sum(contents not in (None, members(file.data)) for contents in whole) > 5


def test_a_message_of_two_lines_is_made_one():
    assert str(UserError("a\nb\x1b[2J\ud800")) == "a b\\x1b[2J\\ud800"
    long = str(UserError("x" * 5_000 + "; fix it"))
    assert len(long) == 1_000
    assert long.endswith("; fix it")


def test_the_command_ends_with_a_table(tmp_path, capsys):
    flags = ["--inputs", "300", "--only", "shot list", "--faulty", str(tmp_path / "faults")]
    assert run.main(flags) == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[0] == "all"
    assert int(last[1]) >= shares(300)["shot list"]
    assert not (tmp_path / "faults").exists()


def test_the_command_writes_faulty_inputs(tmp_path, capsys, monkeypatch):
    bench = Bench([File("a.txt", b"seed" * 9)], lambda path: path.read_text("ascii"))
    monkeypatch.setitem(TARGETS, "faulty", Target(lambda _: bench))
    assert run.main(["--inputs", "3000", "--only", "faulty", "--faulty", str(tmp_path)]) == 1
    assert f"faults, in {tmp_path}" in capsys.readouterr().out
    assert not (tmp_path / "faulty" / "0" / "a.txt").read_bytes().isascii()
    assert "UnicodeDecodeError" in (tmp_path / "faulty" / "0.txt").read_text()
