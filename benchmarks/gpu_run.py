"""The stage of benchmarks.gpu that times a whole run of train_few.py in a process of its own."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from benchmarks.gpu_data import write_data
from benchmarks.gpu_lab import OBJECT, Lab
from benchmarks.gpu_rows import Row
from benchmarks.measure import ROOT
from mvfa.accelerator import free_bytes

EPOCH = "epoch"  # first word of the line at the beginning of each epoch
WANTED = 300  # seconds
GRACE = 20.0  # seconds that a run has to end after SIGINT
KEPT_SECONDS = 8.0  # for what follows in the stage
SAMPLING = 0.2  # seconds between looks at the device's free memory


@dataclass
class Timeline:
    """When a run did what, in seconds since its start."""

    epochs: list[float] = field(default_factory=list)  # beginnings
    end: float = 0.0
    stopped: bool = False
    killed: bool = False  # it did not come far enough, or did not stop
    taken: int = 0  # bytes of the device's memory

    def first(self) -> float:
        """Return the duration of the first epoch."""
        return (self.epochs[1] if len(self.epochs) > 1 else self.end) - self.epochs[0]

    def later(self) -> list[float]:
        """Return the durations of the epochs after the first that ended."""
        ends = self.epochs[1:] if self.stopped else [*self.epochs[1:], self.end]
        return [after - before for before, after in pairwise(ends)]

    def whole(self, epochs: int) -> float:
        """Return the seconds of the whole run: extrapolated if it was stopped."""
        if not self.stopped:
            return self.end
        return self.epochs[0] + self.first() + (epochs - 1) * median(self.later())


def watch(command: Sequence[str], most: float, log: Path, device: torch.device) -> Timeline:
    """Run a command and note when its epochs begin; after `most` seconds stop it with SIGINT.

    What it prints on standard error goes to `log`. Raises RuntimeError if it fails.
    """
    found = Timeline()
    before = free_bytes(device)
    start = time.monotonic()
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    ended = threading.Event()

    def attend() -> None:
        while not ended.wait(SAMPLING):
            found.taken = max(found.taken, before - free_bytes(device))
            spent = time.monotonic() - start
            if spent > most and not found.stopped and len(found.epochs) > 2:
                found.stopped = True
                process.send_signal(signal.SIGINT)
            if spent > most + GRACE:
                found.killed = True
                process.kill()
                return

    helper = threading.Thread(target=attend, daemon=True)
    helper.start()
    try:
        for line in process.stdout:
            if line.startswith(EPOCH) and not found.stopped:
                found.epochs.append(time.monotonic() - start)
        process.wait()
    finally:
        process.kill()  # where this process is stopped
        ended.set()
        helper.join()
    found.end = time.monotonic() - start
    if found.killed and not found.stopped:
        begun = len(found.epochs)
        raise RuntimeError(
            f"train_few.py had begun {begun} epochs after {most:.0f} s, 3 are needed"
        )
    if process.returncode and not found.stopped:
        said = log.read_text().strip().splitlines() or ["no message"]
        raise RuntimeError(f"train_few.py ended with status {process.returncode}: {said[-1]}")
    return found


def flags_of(lab: Lab, root: Path) -> list[str]:
    """Return the command of the run."""
    sizes = lab.sizes
    flags: dict[str, object] = {
        "obj": OBJECT,
        "shot": sizes.run_shots,
        "epoch": sizes.run_epochs,
        "img_size": sizes.side,
        "clip_path": lab.weights,
        "data_path": root / "data",
        "fewshot_path": root / "fewshot_seed",
        "cache_dir": root / "cache",
        "cache_images": "yes",
        "out": root / "out",
        "save_path": root / "ckpt",
        "device": lab.device,
    }
    command = [sys.executable, "train_few.py"]
    return command + [str(part) for name, value in flags.items() for part in (f"--{name}", value)]


def whole_run(lab: Lab) -> Iterator[Row]:
    """Time a few-shot training with a test after every epoch, from files to its results."""
    sizes = lab.sizes
    root = lab.setting.scratch / "run"
    start = time.monotonic()
    plan, processes = write_data(root, sizes.run_images, sizes.run_shots, sizes.side)
    spent = f"{time.monotonic() - start:.1f} s"
    remark = f"{plan.drawn:,} drawn, others are these, shifted; {processes} at once"
    yield Row(f"{sizes.run_images:,} test images written", spent, "", remark)
    lab.forget()
    most = lab.left() - GRACE - KEPT_SECONDS
    found = watch(flags_of(lab, root), most, root / "errors.txt", lab.device)
    yield from rows_of(found, lab)


def rows_of(found: Timeline, lab: Lab) -> Iterator[Row]:
    """Return the rows of a run."""
    sizes = lab.sizes
    what = f"{sizes.run_shots}-shot {OBJECT} run"
    if not found.epochs:
        raise RuntimeError("train_few.py printed no epoch")
    yield Row(f"{what}: start", f"{found.epochs[0]:.1f} s", "", "process start to first epoch")
    remark = "with decoding and features of test images"
    yield Row(f"{what}: first epoch", f"{found.first():.1f} s", "", remark)
    later = found.later()
    if later:
        counted = f"median, n = {len(later)}"
        yield Row(f"{what}: later epochs", f"{median(later):.2f} s", "", counted)
    remark = f"{sizes.run_epochs} epochs, {sizes.run_images:,} test images, whole process"
    if found.stopped:
        done = len(found.epochs) - 1
        remark = f"EXTRAPOLATED: stopped after {done} epochs for the time; {remark}"
    wanted = "" if lab.setting.small else f"below {WANTED} s"
    yield Row(f"{what}: all", f"{found.whole(sizes.run_epochs):.0f} s", wanted, remark)
    if found.taken:
        remark = "of the device's free memory, context and allocator included"
        yield Row(f"{what}: device memory", f"{found.taken / 1e9:.2f} GB", "", remark)
