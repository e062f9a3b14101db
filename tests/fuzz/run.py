"""Read damaged and hostile files with every reader, and count what comes of them.

    python -m tests.fuzz.run --inputs 20000 --seed 0

A reader may return, or raise a UserError of one line. All else is a fault: another exception, more
than 5 seconds, more than 1 GB of memory, something written outside the folder of the input, a
program started, and a changed file of this program (checkpoint, detector, state, cache entry) that
is taken with other values. Faulty inputs are written to a folder; the exit status is then 1.
"""

import argparse
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as hypothesis_seed

from dataset import lossless_jpeg
from errors import UserError
from tests.fuzz.mutate import mutated
from tests.fuzz.readers import TARGETS, Bench
from tests.fuzz.seeds import File
from tests.odd_weights import peak

SECONDS = 5
MEMORY = 1e9  # bytes more than before
LONGEST = 1_000  # characters of a message
SHARE = 0.3  # of the inputs of a target that are structured, where it has a strategy of them
OUTCOMES = ("read", "refused", "none", "fault")
FOUND = Path(__file__).parent / "found"
RESET_PEAK = Path("/proc/self/clear_refs")
WAITED = Path("/proc/self/schedstat")  # second number: nanoseconds without a core
LEAST_TIMER = 0.01  # seconds
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {  # audit events whose first argument is a path that is changed
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "os.mknod",
    "os.mkfifo",
}
STARTS = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "socket.connect",
}
DECODER = [sys.executable, "-P", str(Path(lossless_jpeg.__file__).resolve())]  # of DICOM files


class HungError(BaseException):
    """An input took too long. No `except Exception` of a reader holds it."""


@dataclass
class Watch:
    """What a process changes while an input is read: `top` is where it may."""

    top: str = ""
    seen: list[str] = field(default_factory=list)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of an event of `sys.addaudithook` that should not happen."""
        if not self.top:
            return
        decodes = event == "subprocess.Popen" and arguments[1] == DECODER
        if event in STARTS and not decodes:
            self.seen.append(f"{event} {arguments!r:.200}")
        if event == "open":
            path, _, flags = arguments
            if not flags or not flags & WRITING:
                return
        elif event in CHANGES:
            if event == "os.rename":
                self.note(event, arguments[1])
            path = arguments[1] if event in ("os.link", "os.symlink") else arguments[0]
            if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # within an open folder
                path = Path(f"/proc/self/fd/{arguments[1]}").readlink() / path
        else:
            return
        self.note(event, path)

    def note(self, event: str, path: object) -> None:
        """Take note of a path that is changed, if it is not below `top`."""
        if isinstance(path, (str, bytes, os.PathLike)):
            place = os.path.realpath(os.fsdecode(path))
            if not f"{place}/".startswith(f"{self.top}/") and place != os.devnull:
                self.seen.append(f"{event} {place}")


WATCH = Watch()
sys.addaudithook(WATCH.hook)


def clock() -> float:
    """Return seconds that pass while this process runs or sleeps, not while others have the cores.

    Where the system does not say how long it waited for a core, that is plain time.
    """
    waited = int(WAITED.read_text().split()[1]) / 1e9 if WAITED.exists() else 0.0
    return time.perf_counter() - waited


@contextmanager
def alarm() -> Iterator[None]:
    """Raise HungError in what takes more than SECONDS, see `clock`."""
    end = clock() + SECONDS

    def ring(*_: object) -> None:
        left = end - clock()
        if left <= 0:
            raise HungError
        signal.setitimer(signal.ITIMER_REAL, max(left, LEAST_TIMER))

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reset_peak() -> None:
    """Let the largest memory of this process count anew, where the system can."""
    if RESET_PEAK.exists():
        RESET_PEAK.write_text("5")


def complaint(error: UserError) -> str:
    """Return what is wrong with a message; "" if it is one line."""
    text = str(error)
    if len(text) > LONGEST:
        return f"a message of {len(text)} characters"
    odd = [character for character in text if not character.isprintable()]
    return f"a message with {odd[0]!r}: {text!r}" if odd else ""


@dataclass(frozen=True)
class Verdict:
    """What came of an input: one of OUTCOMES, and what is wrong."""

    outcome: str
    reason: str = ""


class Fuzz:
    """One target's reader, and what came of its inputs.

    Args:
        name: of the target.
        folder: where its files go.

    Attributes:
        counts: inputs by outcome.
        faults: each with what is wrong.

    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.target = TARGETS[name]
        (folder / "bench").mkdir(parents=True)
        self.bench: Bench = self.target.make(folder / "bench")
        self.counts: Counter[str] = Counter()
        self.faults: list[tuple[File, str]] = []
        self.number = 0
        self.contents = {self.content(file) for file in self.bench.files} - {None}

    def content(self, file: File) -> Any:
        """Return what a valid file holds, where the target's own files are compared."""
        with self.placed(file) as path:
            try:
                found = self.bench.read(path)
            except UserError:  # a format that is refused
                return None
        return found if self.target.own else None

    @contextmanager
    def placed(self, file: File) -> Iterator[Path]:
        """Write an input to a folder of its own, which is removed."""
        self.number += 1
        top = self.folder / "cage" / str(self.number)
        top.mkdir(parents=True)
        path = top / file.name
        path.write_bytes(file.data)
        try:
            yield path
        finally:
            shutil.rmtree(top, ignore_errors=True)

    def judge(self, file: File, *, structured: bool) -> Verdict:
        """Read an input; return what came of it."""
        with self.placed(file) as path:
            reset_peak()
            before = peak()
            started = clock()
            WATCH.seen.clear()
            WATCH.top = os.path.realpath(path.parent)
            try:
                with alarm():
                    verdict = self.outcome(path, structured=structured)
            except HungError:
                verdict = Verdict("fault")
            finally:
                WATCH.top = ""
            seconds = clock() - started
            others = [p.name for p in self.folder.joinpath("cage").iterdir() if p != path.parent]
        if seconds > SECONDS:
            return Verdict("fault", f"more than {SECONDS} s")
        if (more := peak() - before) > MEMORY:
            return Verdict("fault", f"{more / 1e9:.1f} GB more memory")
        if WATCH.seen or others:
            return Verdict("fault", f"changed: {', '.join([*WATCH.seen, *others])[:300]}")
        return verdict

    def outcome(self, path: Path, *, structured: bool) -> Verdict:
        """Read a file; return what came of it, but for time, memory and what was changed."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self.bench.read(path)
        except UserError as error:
            wrong = complaint(error)
            return Verdict("fault", wrong) if wrong else Verdict("refused")
        except Exception:  # noqa: BLE001  # each is a fault, and the next input is to be read
            return Verdict("fault", traceback.format_exc())
        if self.target.cache and found is None:
            return Verdict("none")
        if self.target.own and not structured and found not in self.contents:
            return Verdict("fault", "it is taken with other values")
        return Verdict("read")

    def take(self, file: File, *, structured: bool = False) -> Verdict:
        """Read an input and count what came of it."""
        verdict = self.judge(file, structured=structured)
        self.counts[verdict.outcome] += 1
        if verdict.outcome == "fault":
            self.faults.append((file, verdict.reason))
        if self.number % 200 == 0:
            gc.collect()
        return verdict

    def run(self, inputs: int, seed: int) -> None:
        """Read so many inputs: changed copies of the valid files, and structured ones."""
        odd = int(inputs * SHARE) if self.bench.structured is not None else 0
        draw = Random(f"{self.name} {seed}")
        contents = [file.data for file in self.bench.files]
        for number in range(inputs - odd):
            which = number % len(contents)
            name = self.bench.files[which].name
            self.take(File(name, mutated(contents, which, draw)))
        if odd:
            self.run_structured(odd, seed)

    def run_structured(self, inputs: int, seed: int) -> None:
        """Read so many structured inputs; a strategy that has fewer ends earlier."""

        @hypothesis_seed(seed)
        @settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        @given(self.bench.structured)
        def each(file: File) -> None:
            self.take(file, structured=True)

        each()


def shares(inputs: int) -> dict[str, int]:
    """Divide inputs among the targets, by their weights."""
    total = sum(target.weight for target in TARGETS.values())
    return {name: -(-inputs * target.weight // total) for name, target in TARGETS.items()}


def found_files() -> list[tuple[str, Path]]:
    """List the inputs that were a fault once: the target's name, and the file."""
    return [
        (name, path)
        for name in TARGETS
        for path in sorted((FOUND / folder_name(name)).glob("*/*"))
        if path.is_file()
    ]


def folder_name(target: str) -> str:
    """Return the folder of a target's inputs."""
    return target.replace(" ", "_")


def keep(fuzz: Fuzz, folder: Path) -> None:
    """Write the faulty inputs of a target to a folder, each with what was wrong."""
    for number, (file, reason) in enumerate(fuzz.faults):
        place = folder / folder_name(fuzz.name) / str(number)
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.data)
        (place.parent / f"{number}.txt").write_text(reason)


def table_line(name: str, counts: Counter[str], seconds: float) -> str:
    """Return a line of the table."""
    numbers = "".join(f"{counts[outcome]:>9,}" for outcome in OUTCOMES)
    return f"{name:26}{counts.total():>9,}{numbers}{seconds:>9.1f}"


def run_all(inputs: int, seed: int, faulty: Path, names: Sequence[str], say: Callable) -> int:
    """Run targets, say a line of each; return how many faults there were."""
    say(f"{'':26}{'inputs':>9}{''.join(f'{outcome:>9}' for outcome in OUTCOMES)}{'seconds':>9}")
    total: Counter[str] = Counter()
    began = time.perf_counter()
    for name in names:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="mvfa-fuzz-") as folder:
            fuzz = Fuzz(name, Path(folder))
            fuzz.run(shares(inputs)[name], seed)
        say(table_line(name, fuzz.counts, time.perf_counter() - started))
        keep(fuzz, faulty)
        total += fuzz.counts
    say(table_line("all", total, time.perf_counter() - began))
    return total["fault"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run with flags; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--faulty", type=Path, default=Path("fuzz-faults"))
    flags = parser.parse_args(argv)
    say = partial(print, flush=True)
    faults = run_all(flags.inputs, flags.seed, flags.faulty, flags.only, say)
    if faults:
        print(f"{faults} faults, in {flags.faulty}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # else an import looks like a reader that writes
    sys.exit(main())
