"""However a process ends, it has written what it printed, and has its exit status."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mvfa.process import Stopped, stoppable
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


WAITING = """
import sys, time
if __name__ == "__main__":
    from mvfa.process import guard_imports
    guard_imports()
if sys.argv[1] == "importing":
    print("ready", flush=True)
    time.sleep(60)
from mvfa.cli import command
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(float(sys.argv[1]))
        print("cleaned up", flush=True)
command(main)
"""
STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def signalled(
    numbers: list[signal.Signals], *, state: str = "0", ignored: tuple = (), pause: float = 0
) -> tuple[int, str, str]:
    """Send signals to a script that has started; return its status, output and errors.

    `state`: "importing", or the seconds that its cleaning up takes.
    """

    def prepare() -> None:
        for number in STATUSES:  # a job in the background starts with some ignored
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-c", WAITING, state],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,  # noqa: PLW1509  # no thread of pytest's holds a lock
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
            time.sleep(pause)
        output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


@pytest.mark.parametrize(("number", "status"), STATUSES.items())
def test_a_signal_ends_a_script_with_its_status(number, status):
    """It cleans up, and says one line."""
    line = "\nstopped; files written so far are whole\n"
    assert signalled([number]) == (status, "cleaned up\n", line)


@pytest.mark.parametrize(("number", "status"), STATUSES.items())
def test_so_does_one_during_the_imports(number, status):
    line = "\nstopped; files written so far are whole\n"
    assert signalled([number], state="importing") == (status, "", line)


def test_what_nohup_ignores_stays_ignored():
    numbers = [signal.SIGHUP, signal.SIGTERM]
    status, _, _ = signalled(numbers, ignored=(signal.SIGHUP,), pause=0.1)
    assert status == 143


def test_a_signal_that_comes_twice_does_not_cut_the_end_short():
    """As `timeout` sends them; one that comes later does."""
    assert signalled([signal.SIGTERM] * 2, state="0.2")[:2] == (143, "cleaned up\n")
    status, output, _ = signalled([signal.SIGINT] * 2, state="30", pause=1.1)
    assert (status, output) == (130, "")


def test_a_bug_among_the_imports_keeps_its_traceback():
    program = "from mvfa.process import guard_imports; guard_imports(); import nothing_of_the_name"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


def test_the_handlers_of_the_caller_come_back():
    before = [signal.getsignal(number) for number in STATUSES]
    with stoppable(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in STATUSES] == before
