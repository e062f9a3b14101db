"""What is printed may find no reader, no room or no character for it: the run goes on."""

import io
import os
import subprocess
import sys

import pytest

from mvfa.cli import command
from mvfa.streams import lasting_streams
from tests.script_runs import ROOT, Runs

PRINTS = """
import sys
from mvfa.cli import command
def main():
    for k in range(20_000):
        print("result", k)
        print("note", k, file=sys.stderr)
    open(sys.argv[1], "w").write("whole")
command(main)
"""


def run(script: str, *arguments: object, **streams) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        timeout=60,
        check=False,
        **streams,
    )


@pytest.fixture
def unread():
    """Return the writing end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_goes_does_not_end_a_run(tmp_path, unread, name):
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | {name: unread}
    ended = run(PRINTS, tmp_path / "file", **streams)
    assert ended.returncode == 0
    assert (tmp_path / "file").read_text() == "whole"
    assert b"Error" not in (ended.stderr or b"")


def test_a_training_outlives_head(tiny_path, demo_root, tmp_path, monkeypatch, unread, capfd):
    runs = Runs(tiny_path, demo_root, tmp_path)
    with io.TextIOWrapper(os.fdopen(os.dup(unread), "wb")) as output:
        monkeypatch.setattr(sys, "stdout", output)
        command(lambda: runs("train_few", "Brain", "--epoch", 1))
        monkeypatch.undo()
    assert len(runs.scores("train_few")) == 10
    assert (runs.checkpoints / "Brain-2shot.pth").is_file()
    assert "rror" not in capfd.readouterr().err


def test_a_full_disk_behind_the_output_is_said_at_the_end(tmp_path):
    with open("/dev/full", "w") as full:  # noqa: PTH123  # as a shell's `> /dev/full`
        ended = run(PRINTS, tmp_path / "file", stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 2
    assert (tmp_path / "file").read_text() == "whole"
    line = "error: what was printed is lost (No space left on device); files written so far are "
    assert ended.stderr.splitlines()[-1].decode() == f"{line}whole"


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_get_into_files(tmp_path, closed):
    """The next file that is opened would have the number of the stream, and get what it says."""
    script = "import sys; from mvfa.cli import command; command(lambda: exec(sys.argv[2], {}))"
    main = "import os, sys; file = open(sys.argv[1], 'w'); [os.write(k, b'x') for k in (1, 2)]"
    main += "; print(1); print(2, file=sys.stderr); file.write('whole')"
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    arguments = [*shell, sys.executable, "-c", script, str(tmp_path / "file"), main]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0
    assert (tmp_path / "file").read_text() == "whole"


def test_every_character_is_shown(monkeypatch):
    """Bytes of a file name that are not UTF-8, and letters that a terminal does not have."""
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding="ascii"))
    with lasting_streams():
        print(os.fsdecode(b"caf\xe9"), "é")
    assert data.getvalue() == b"caf\\udce9 \\xe9\n"


def test_the_streams_are_put_back(capsys):
    before = (sys.stdout, sys.stderr)
    with lasting_streams():
        print("shown")
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "shown\n"
