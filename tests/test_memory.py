"""Memory is measured plausibly, and systems without POSIX or glibc lose nothing but speed."""

import builtins
import ctypes
import subprocess
import sys
import warnings

import psutil
import pytest
import torch

from mvfa import memory
from tests.script_runs import ROOT

CPU = torch.device("cpu")
# this system without what only POSIX has; psutil for Linux needs it, psutil for Windows does not
WINDOWS = """
import os, sys
import psutil
for name in ("resource", "fcntl"):
    sys.modules[name] = None  # an import of it fails
del os.sysconf
from pathlib import Path
import torch
import mvfa.cli, mvfa.options, mvfa.memory, mvfa.environment, mvfa.packing, mvfa.results
from mvfa.memory import available_memory, installed_memory, peak_memory, tune_process
tune_process()
assert 0 < available_memory() <= installed_memory()
assert peak_memory(torch.device("cpu"))["host"] > 2**24
options = mvfa.options.parse("test_few", ["--obj", "Brain", "--out", sys.argv[1]])
env = mvfa.environment.set_up(options)
mvfa.packing.packs(options, env)
print("done")
"""


def test_sizes_are_plausible():
    free = memory.available_memory()
    assert 2**24 < free <= memory.installed_memory()
    assert memory.installed_memory() == psutil.virtual_memory().total


def test_the_peak_grows_with_memory_and_does_not_shrink():
    before = memory.peak_host_memory()
    now = psutil.Process().memory_info().rss
    size = max(0, before - now) + 200 * 2**20
    block = torch.ones(size, dtype=torch.uint8)
    grown = memory.peak_host_memory()
    assert grown >= before + 100 * 2**20
    del block
    assert memory.peak_host_memory() >= grown
    assert memory.peak_memory(CPU).keys() == {"host"}


def test_the_peak_is_measured_without_resource(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    with pytest.raises(ImportError):
        builtins.__import__("resource")
    resident = psutil.Process().memory_info().rss
    assert memory.peak_memory(CPU)["host"] == pytest.approx(resident, rel=0.1)


def test_numpy_does_not_warn_of_small_numbers():
    """At its lowest version it does, when it finds out that they are zero."""
    text = "The value of the smallest subnormal for <class 'numpy.float32'> type is zero."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        memory.tune_process()
        warnings.warn(text, stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(warning.message) for warning in said] == ["another"]


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError])
def test_another_c_library_costs_only_speed(monkeypatch, error):
    """Windows has no library of the process, macOS and musl none with mallopt."""
    loads = []

    def refuse(name):
        loads.append(name)
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    memory.tune_process()
    with memory.large_blocks_returned():
        assert torch.ones(2**20).sum() == 2**20
    assert loads == [None] * 3


def test_another_error_within_is_not_swallowed(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: (_ for _ in ()).throw(OSError))
    with pytest.raises(TypeError, match="within"), memory.large_blocks_returned():
        raise TypeError("within")


def test_nothing_needs_posix(tmp_path):
    """Neither resource, nor fcntl, nor os.sysconf."""
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS, tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "done\n"
