"""Files are written whole, folders are checked, and upsampling is torch's own."""

import ast
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from errors import UserError
from tests.conftest import TOLERANCE
from tests.script_runs import ROOT
from tests.test_structure import sources
from tests.troubles import largest_file
from utils import (
    FOREIGN_PART_SECONDS,
    machine,
    part_of,
    part_path,
    set_seed,
    sweep,
    upsample,
    writable,
    write_whole,
)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("patches", "side"), [(3, 10), (4, 4), (5, 3)])
def test_upsampling_is_bilinear_with_aligned_corners(patches, side, dtype):
    values = torch.randn(2, 3, patches**2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    square = values.unflatten(-1, (patches, patches))
    expected = F.interpolate(square, size=(side, side), mode="bilinear", align_corners=True)
    torch.testing.assert_close(upsample(values, side), expected, **TOLERANCE[dtype])


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_whole(path, lambda partial: partial.write_text("first"))

    def fail(partial) -> None:
        partial.write_text("sec")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        write_whole(path, fail)
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file/deep is not a directory and cannot be crea"):
        writable(tmp_path / "file" / "deep", "--out")
    writable(tmp_path / "new" / "deep", "--out")
    assert (tmp_path / "new" / "deep").is_dir()


def test_an_error_names_the_file_that_is_written(tmp_path):
    """Not its part; an error of another file, which is read, keeps its name."""
    source = tmp_path / "gone"
    with largest_file(10), pytest.raises(OSError, match="File too large") as full:
        write_whole(tmp_path / "file", lambda part: part.write_bytes(bytes(11)))
    assert full.value.filename == str(tmp_path / "file")
    with pytest.raises(FileNotFoundError) as missing:
        write_whole(tmp_path / "file", lambda part: part.write_bytes(source.read_bytes()))
    assert missing.value.filename == str(source)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as folder:
        write_whole(tmp_path / "folder", lambda part: part.write_bytes(b""))
    assert (folder.value.filename, folder.value.filename2) == (str(tmp_path / "folder"), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_a_seed_decides_all_random_numbers():
    first = set_seed(3)
    numbers = (torch.rand(2), torch.rand(2, generator=first))
    second = set_seed(3)
    torch.testing.assert_close(torch.rand(2), numbers[0], rtol=0, atol=0)
    torch.testing.assert_close(torch.rand(2, generator=second), numbers[1], rtol=0, atol=0)


def process_that_ended() -> int:
    """Return the number of a process that no longer runs."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_parts_of_killed_processes_are_swept(tmp_path):
    """Those of a process that runs, of this one and of other programs stay."""
    own = part_path(tmp_path / "file")
    dead = own.name.replace(f"-{os.getpid()}-", f"-{process_that_ended()}-")
    running = own.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    elsewhere = own.name.replace(machine(), "elsewhere")
    for name in (dead, running, elsewhere, "film.part", ".mvfa-x.part", "metrics.json"):
        (tmp_path / name).write_text("")
    (tmp_path / dead.replace(".part", "9.part") / "deep").mkdir(parents=True)  # of a conversion
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / dead).write_text("")
    with part_of(tmp_path / "file") as part:
        part.write_text("")
        writable(tmp_path, "--out")
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {
            *(running, elsewhere, "film.part", ".mvfa-x.part", "metrics.json", "below"),
            part.name,
        }
    assert (tmp_path / "below" / dead).exists()
    sweep(tmp_path, below=True)
    assert not (tmp_path / "below" / dead).exists()


def test_parts_are_swept_wherever_a_process_writes(tmp_path):
    own = part_path(tmp_path / "x").name
    part = tmp_path / "below" / own.replace(f"-{os.getpid()}-", f"-{process_that_ended()}-")
    part.parent.mkdir()
    part.write_text("")
    write_whole(tmp_path / "below" / "file", lambda path: path.write_text("new"))
    assert [path.name for path in part.parent.iterdir()] == ["file"]


def test_a_part_of_another_machine_is_swept_after_a_day(tmp_path):
    part = tmp_path / part_path(tmp_path / "x").name.replace(machine(), "elsewhere")
    for age, left in ((FOREIGN_PART_SECONDS - 60, True), (FOREIGN_PART_SECONDS + 60, False)):
        part.write_text("")
        os.utime(part, (time.time() - age,) * 2)
        sweep(tmp_path)
        assert part.exists() == left


def test_the_part_of_a_killed_write_is_swept_by_the_next_run(tmp_path):
    """A process that is killed while it writes leaves the old file, and a part that goes."""
    path = tmp_path / "file"
    path.write_text("old")
    code = "import os, signal, sys; from pathlib import Path; from utils import write_whole\n"
    code += "def die(part):\n    part.write_text('new'); os.kill(os.getpid(), signal.SIGKILL)\n"
    code += "write_whole(Path(sys.argv[1]), die)"
    ended = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    writable(tmp_path, "--out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync = os.fsync
    replace = Path.replace

    def synced(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(part: Path, path: Path) -> Path:
        calls.append("rename")
        return replace(part, path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_whole(tmp_path / "one", lambda part: part.write_text("x"))
    write_whole(tmp_path / "two", lambda part: part.write_text("x"), flush_folder=False)
    assert calls == ["file", "rename", "folder", "file", "rename"]


DIRECT = {  # files that write to a path themselves
    "mvfa/memory.py": "a switch of the Linux kernel, no file",
    "mvfa/locks.py": "who holds a lock, which only a message tells",
    "preparation/audit.py": "the user names the file, which may be a pipe",
    "preparation/convert.py": "into a folder that is moved into place whole",
    "preparation/transfer.py": "partial downloads, which are continued",
    "synthetic/images.py": "into a folder that is moved into place whole",
    "synthetic/standin.py": "stand-in weights of tests",
    "benchmarks/rows_runs.py": "of a benchmark",
    "benchmarks/baseline.py": "of a benchmark",
    "setup.py": "into the build folder",
}
WRITERS = ("write_text", "write_bytes", "to_csv", "save_file", "imwrite")
BUFFERS = ("data", "content")  # names of files in memory that torch.save fills
PARTS = ("part", "partial")  # names of the path that write_whole gives


def direct_writes(source: str) -> list[str]:
    """Return the calls that write to a path that does not come from write_whole."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value)
        places = [owner, *map(ast.unparse, node.args)]
        saves = owner == "torch" and node.func.attr == "save" and places[-1] not in BUFFERS
        text = node.func.attr == "to_csv" and not node.args  # returns a string
        writes = node.func.attr in WRITERS and not text and not set(PARTS) & set(places)
        if saves or writes:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_written_whole(path):
    if path.relative_to(ROOT).as_posix() not in DIRECT:
        assert direct_writes(path.read_text()) == []


def test_direct_writes_are_seen():
    direct = ["path.write_text('')", "table.to_csv(path)", "torch.save(state, path)"]
    whole = ["part.write_text('')", "table.to_csv(partial)", "torch.save(state, data)"]
    assert direct_writes("\n".join(direct + whole)) == direct
