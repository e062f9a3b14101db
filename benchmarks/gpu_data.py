"""Test images for benchmarks.gpu's whole run, written by several processes.

python -m benchmarks.gpu_data DATA NORMAL ABNORMAL DRAWN_NORMAL DRAWN_ABNORMAL SIDE FIRST STEP
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import ROOT
from dataset.layout import image_folder, mask_folder
from synthetic.images import IMAGE_SEED, picture, write_images, write_shots

OBJECT = "Brain"
STATES = ("good", "Ungood")
DRAW_SECONDS = 0.022  # of one image with its files, on one core
MOST_DRAWING = 25.0  # seconds
MOST_PROCESSES = 32
FEWEST = 8  # images of a process
NORMAL = 640 / 3_715  # fraction of the Brain test split


@dataclass(frozen=True)
class Plan:
    """Test images of both states: how many, and how many of them are drawn; others are shifted."""

    normal: int
    abnormal: int
    drawn_normal: int
    drawn_abnormal: int
    side: int

    @property
    def drawn(self) -> int:
        """The images that are drawn."""
        return self.drawn_normal + self.drawn_abnormal


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # of Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_part(data: Path, plan: Plan, first: int, step: int) -> None:
    """Write the drawn images first, first + step, ... of each state, and those shifted from them.

    Abnormal images have masks. No two files are equal.
    """
    states = zip(
        STATES,
        (plan.normal, plan.abnormal),
        (plan.drawn_normal, plan.drawn_abnormal),
        strict=True,
    )
    for state, count, drawn in states:
        folder = image_folder(data, OBJECT, "test", state)
        for number in range(first, drawn, step):
            pair = picture(OBJECT, "test", state, number, seed=IMAGE_SEED, size=plan.side)
            for shift, copy in enumerate(range(number, count, drawn)):
                pixels, mask = (np.roll(values, shift, axis=1) for values in pair)
                name = f"{copy:05d}.png"
                Image.fromarray(pixels).save(folder / name, compress_level=1)
                if state == STATES[1]:
                    grey = Image.fromarray(mask.astype(np.uint8) * 255)
                    grey.save(mask_folder(folder) / name, compress_level=1)


def write_data(root: Path, count: int, shots: int, side: int) -> tuple[Plan, int]:
    """Write `count` test images, shots and their list; return the plan and how many processes did.

    Where all cannot be drawn in time, some are others, shifted. Raises RuntimeError.
    """
    data = root / "data"
    valid = max(shots, 2)
    for state in STATES:
        write_images(data, OBJECT, "valid", state, valid, seed=IMAGE_SEED, size=side)
        image_folder(data, OBJECT, "test", state).mkdir(parents=True)
    mask_folder(image_folder(data, OBJECT, "test", STATES[1])).mkdir()
    write_shots(root / "fewshot_seed" / OBJECT, OBJECT, valid, (shots,), seed=IMAGE_SEED)
    processes = max(1, min(cores(), MOST_PROCESSES, count // FEWEST))
    share = min(1.0, MOST_DRAWING * processes / DRAW_SECONDS / count)
    normal = max(2, round(NORMAL * count))
    abnormal = count - normal
    plan = Plan(normal, abnormal, max(1, int(share * normal)), max(1, int(share * abnormal)), side)
    command = [sys.executable, "-m", "benchmarks.gpu_data", str(data), *map(str, astuple(plan))]
    running = [
        subprocess.Popen([*command, str(first), str(processes)], cwd=ROOT)
        for first in range(processes)
    ]
    statuses = [process.wait() for process in running]  # all of them end
    if any(statuses):
        raise RuntimeError("a process that draws images failed")
    return plan, processes


def main(argv: Sequence[str]) -> None:
    """Write one part."""
    data, *numbers, first, step = argv
    write_part(Path(data), Plan(*map(int, numbers)), int(first), int(step))


if __name__ == "__main__":
    main(sys.argv[1:])
