"""The stage of benchmarks.gpu that times a whole run of train_few.py in a process of its own."""

import multiprocessing as mp
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_lab import OBJECT, STATES, Lab, cores
from benchmarks.gpu_rows import Row
from benchmarks.measure import ROOT
from dataset.layout import image_folder, mask_folder
from mvfa.accelerator import free_bytes
from synthetic.images import IMAGE_SEED, picture, write_images, write_shots

DRAW_SECONDS = 0.022  # of one image with its files, on one core
MOST_DRAWING = 25.0  # seconds
MOST_PROCESSES = 32
NORMAL = 640 / 3_715  # fraction of the Brain test split
EPOCH = "epoch"  # first word of the line at the beginning of each epoch
WANTED = 300  # seconds
GRACE = 20.0  # seconds that a run has to end after SIGINT
KEPT_SECONDS = 8.0  # for what follows in the stage
SAMPLING = 0.2  # seconds between looks at the device's free memory


@dataclass(frozen=True)
class Part:
    """Test images of one state that one process writes: numbers first, first + step, ..."""

    data: Path
    state: str
    count: int  # images of the state
    different: int  # images that are drawn; others are these, shifted
    first: int
    step: int
    side: int


def write_part(part: Part) -> None:
    """Write the images of a part, and their masks; no two files are equal."""
    folder = image_folder(part.data, OBJECT, "test", part.state)
    masks = mask_folder(folder) if part.state == STATES[1] else None
    for number in range(part.first, part.different, part.step):
        pair = picture(OBJECT, "test", part.state, number, seed=IMAGE_SEED, size=part.side)
        for shift, copy in enumerate(range(number, part.count, part.different)):
            pixels, mask = (np.roll(values, shift, axis=1) for values in pair)
            name = f"{copy:05d}.png"
            Image.fromarray(pixels).save(folder / name, compress_level=1)
            if masks is not None:
                grey = Image.fromarray(mask.astype(np.uint8) * 255)
                grey.save(masks / name, compress_level=1)


def write_data(root: Path, lab: Lab) -> int:
    """Write shots and test images below a folder; return how many were drawn from scratch."""
    sizes = lab.sizes
    data = root / "data"
    valid = max(sizes.run_shots, 2)
    for state in STATES:
        write_images(data, OBJECT, "valid", state, valid, seed=IMAGE_SEED, size=sizes.side)
    lists = root / "fewshot_seed" / OBJECT
    write_shots(lists, OBJECT, valid, (sizes.run_shots,), seed=IMAGE_SEED)
    processes = min(cores(), MOST_PROCESSES)
    share = min(1.0, MOST_DRAWING * processes / DRAW_SECONDS / sizes.run_images)
    normal = max(2, round(NORMAL * sizes.run_images))
    parts = []
    drawn = 0
    for state, count in zip(STATES, (normal, sizes.run_images - normal), strict=True):
        folder = image_folder(data, OBJECT, "test", state)
        folder.mkdir(parents=True)
        if state == STATES[1]:
            mask_folder(folder).mkdir()
        different = max(1, round(share * count))
        drawn += different
        parts += [
            Part(data, state, count, different, first, processes, sizes.side)
            for first in range(processes)
        ]
    if processes == 1:
        list(map(write_part, parts))
    else:
        with ProcessPoolExecutor(processes, mp.get_context("spawn")) as pool:
            list(pool.map(write_part, parts))
    return drawn


@dataclass
class Timeline:
    """When a run did what, in seconds since its start."""

    epochs: list[float] = field(default_factory=list)  # beginnings
    end: float = 0.0
    stopped: bool = False
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
    if process.returncode and not (found.stopped and found.later()):
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
    drawn = write_data(root, lab)
    spent = f"{time.monotonic() - start:.1f} s"
    processes = f"{min(cores(), MOST_PROCESSES)} processes"
    remark = f"{drawn:,} drawn, others are these, shifted; {processes}"
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
    remark = "of the device's free memory, context and allocator included"
    yield Row(f"{what}: device memory", f"{found.taken / 1e9:.2f} GB", "", remark)
