"""A process that ends at once has written what it printed, and has its exit status."""

import subprocess
import sys

import pytest

from tests.script_runs import ROOT

PROGRAM = """
import gc, os, sys
from mvfa import process
process.before_imports()
assert not gc.isenabled()
process.after_imports()
assert gc.isenabled()
assert gc.get_freeze_count() > 0
print("threads", os.environ[process.BLAS_THREADS])
print("told", file=sys.stderr)
process.end(int(sys.argv[1]))
print("never")
"""


def ended(status: int, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(status)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("status", [0, 1])
def test_output_is_written_before_the_end(status):
    done = ended(status)
    assert (done.returncode, done.stdout, done.stderr) == (status, "threads 1\n", "told\n")


def test_threads_of_the_user_stay():
    assert ended(0, OPENBLAS_NUM_THREADS="3").stdout == "threads 3\n"
