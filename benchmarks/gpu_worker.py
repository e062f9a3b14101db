"""The process of benchmarks.gpu that computes: where it dies or hangs, the next stage has another.

An error of a device can leave a process that fails in whatever it does next, or end it.
"""

import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection

from tqdm import tqdm

from benchmarks.gpu_lab import Lab
from benchmarks.gpu_rows import FAILED, Row, guarded
from benchmarks.gpu_settings import Setting
from mvfa.accelerator import synchronize
from mvfa.memory import tune_process

SLACK = 20.0  # seconds that a stage may take beyond the budget before it is stopped
READY = "ready"  # what a new process says first
STARTING = 120.0  # seconds within which it should


@dataclass(frozen=True)
class Stage:
    """A part of the benchmark.

    name: for --only; measure: yields its rows; seconds: expected on an H100, or with --small on a
    processor; reserve: seconds that later stages should have.
    """

    name: str
    measure: Callable[[Lab], Iterator[Row]]
    seconds: float
    reserve: float = 0.0

    def limit(self, left: float, patience: float) -> float:
        """Return the seconds after which the stage is stopped, of those that are left."""
        return min(patience * (3 * self.seconds + 60), left - self.reserve + SLACK)


@dataclass(frozen=True)
class Done:
    """What a process says at the end of a stage: the facts, and whether its device still works."""

    facts: dict[str, float]
    works: bool


def serve(connection: Connection, setting: Setting) -> None:
    """Run stages until the other end closes the connection, or is gone."""
    with suppress(EOFError, OSError):  # in the middle of a stage, too
        run_stages(connection, setting)


def run_stages(connection: Connection, setting: Setting) -> None:
    """Run stages that the other end sends. Raises EOFError or OSError when it is gone."""
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    os.setsid()  # so that the other end can end this process with all that it has started
    tune_process()
    lab = Lab(setting)
    connection.send(READY)
    while True:
        stage, facts = connection.recv()
        lab.facts = facts
        for row in guarded(stage.name, partial(stage.measure, lab)):
            connection.send(row)
        done = Done(lab.facts, works(lab))
        connection.send(done)
        if not done.works:
            return


def works(lab: Lab) -> bool:
    """Return whether the device still computes."""
    try:
        synchronize(lab.device)
    except RuntimeError:
        return False
    return True


@dataclass
class Worker:
    """Runs stages in a process of its own, which is started when it is needed."""

    setting: Setting
    facts: dict[str, float] = field(default_factory=dict)
    process: mp.process.BaseProcess | None = None

    def start(self) -> None:
        """Start the process. Raises EOFError if it ends at once or does not answer."""
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        # not a daemon, which could have no processes of its own
        self.process = context.Process(target=serve, args=(theirs, self.setting))
        self.process.start()
        theirs.close()
        if not self.connection.poll(STARTING):
            raise EOFError
        self.connection.recv()

    def run(self, stage: Stage) -> Iterator[Row]:
        """Yield the rows of a stage as they come."""
        try:
            if self.process is None:
                self.start()
            left = self.setting.deadline - time.monotonic()
            limit = stage.limit(left, self.setting.patience)
            end = time.monotonic() + limit
            self.connection.send((stage, self.facts))
            while True:
                if not self.connection.poll(max(0.0, end - time.monotonic())):
                    self.stop()
                    yield Row(stage.name, f"{FAILED}: stopped after {limit:.0f} s", "", "too slow")
                    return
                said = self.connection.recv()
                if isinstance(said, Done):
                    break
                yield said
        except (EOFError, OSError):
            status = self.stop()
            yield Row(stage.name, f"{FAILED}: the process ended with status {status}")
            return
        self.facts = said.facts
        if not said.works:
            self.stop()

    def stop(self) -> int | None:
        """End the process and all that it has started; return its exit status."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        self.connection.close()
        process.join(1.0)
        if process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):  # it has no group of its own yet
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        return process.exitcode
