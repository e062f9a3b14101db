"""Troubles of the system that tests make: limits of file sizes, and small disks."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mvfa.cli import command


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within, no file of this process may have more bytes: writing more is EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Within, a folder is a disk of its own of some size, which can be full. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def ended(main, capsys) -> tuple[int, str]:
    """Run a script's main as a script; return its exit status and its error, which is one line."""
    capsys.readouterr()
    try:
        command(main)
    except SystemExit as exit_:
        errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(errors) == 1
        return int(exit_.code or 0), errors[0]
    return 0, ""
