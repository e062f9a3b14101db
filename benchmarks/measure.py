"""Tools of the benchmark: alternating timing, fresh processes, operation counts, table rows."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.child import REPORT
from CLIP.model import ClipConfig
from mvfa.recipe import LEVELS

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    weights: Path
    side: int
    quick: bool  # small settings, to check that every row works
    repeats: int  # measurements of a row
    scratch: Path  # folder for generated files
    device: str = "cpu"

    @property
    def few_repeats(self) -> int:
        """Number of measurements that take minutes."""
        return 1 if self.quick else min(2, self.repeats)


@dataclass(frozen=True)
class Row:
    """One row of the first table. Pairs are of the baseline and of this program."""

    work: str
    wanted: str
    baseline: list[float]  # seconds
    ours: list[float]  # seconds, alternating with the baseline's
    images: int = 0  # in one measurement
    # floating-point operations of one measurement's matrix products
    products: tuple[float, float] = (0.0, 0.0)
    # operations per second of one large product, alternating with the others
    rates: list[float] = field(default_factory=list)
    peaks: tuple[float, float] | None = None  # bytes
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Seconds of the baseline over those of the program, per measurement."""
        return [b / o for b, o in zip(self.baseline, self.ours, strict=True)]

    def cells(self) -> list[str]:
        """Format the row."""
        low = min(self.ratios)
        middle = median(self.ratios)
        high = max(self.ratios)
        seconds = [median(times) for times in (self.baseline, self.ours)]
        speeds = [f"{self.images / s:.3g}" for s in seconds] if self.images else []
        fractions = [
            f"{p / s / median(self.rates):.0%}"
            for p, s in zip(self.products, seconds, strict=True)
            if self.rates
        ]
        peaks = [f"{peak / 1e9:.2f}" for peak in self.peaks or ()]
        return [
            self.work,
            f"{middle:.3g}x ({low:.3g} to {high:.3g}, n = {len(self.ratios)})",
            self.wanted,
            *(f"{s:.3g}" for s in seconds),
            *(" / ".join(pair) for pair in (speeds, fractions, peaks)),
            self.note,
        ]


ROW_HEADERS = [
    "work",
    "ratio, median (spread)",
    "wanted",
    "baseline, s",
    "ours, s",
    "images/s, both",
    "fraction of product rate, both",
    "peak memory, GB, both",
    "note",
]


@dataclass(frozen=True)
class Growth:
    """One row of the second table: peak memory in bytes by number of test images."""

    work: str
    wanted: str
    peaks: Mapping[int, float]

    def slope(self, first: int, last: int) -> float:
        """Compute the bytes per image between two of the measured numbers of images."""
        return (self.peaks[last] - self.peaks[first]) / (last - first)

    def cells(self) -> list[str]:
        """Format the row."""
        counts = list(self.peaks)
        peaks = ", ".join(f"{n:,}: {peak / 1e6:.1f}" for n, peak in self.peaks.items())
        steps = [f"{self.slope(a, b) / 1e3:.2f}" for a, b in pairwise(counts)]
        return [
            self.work,
            peaks,
            ", ".join(steps),
            f"{self.slope(counts[0], counts[-1]) / 1e3:.2f}",
            self.wanted,
        ]


GROWTH_HEADERS = [
    "run",
    "peak memory at n images, MB",
    "kB an image, step by step",
    "kB an image, first to last",
    "wanted",
]


def each(seconds: list[float], count: int) -> list[float]:
    """Return the seconds of one of `count` equal pieces of work that were measured together."""
    return [s / count for s in seconds]


def in_turn(
    work: Mapping[str, Callable[[], object]], repeats: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Measure functions alternately, `repeats` times; return the seconds of each.

    With `warm_up` there is one round before, which is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + warm_up):
        for name, function in work.items():
            start = time.perf_counter()
            function()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@dataclass(frozen=True)
class Product:
    """A large float32 matrix product, to measure the machine's rate."""

    side: int
    device: str = "cpu"

    def __call__(self) -> None:
        """Compute the product once."""
        a = torch.ones(self.side, self.side, device=self.device)
        torch.mm(a, a)

    def rates(self, seconds: list[float]) -> list[float]:
        """Return the operations per second of measured products."""
        return [2 * self.side**3 / s for s in seconds]


@dataclass(frozen=True)
class Report:
    """What a fresh process measured and printed."""

    measured: dict[str, Any]  # of the task, and "peak": bytes
    printed: str
    started: float  # seconds of the monotonic clock
    ended: float

    @property
    def seconds(self) -> float:
        """Duration of the whole process."""
        return self.ended - self.started


def fresh(*arguments: object) -> Report:
    """Run a task of benchmarks.child in a process of its own. Raises RuntimeError if it fails."""
    command = [sys.executable, "-m", "benchmarks.child", *map(str, arguments)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    ended = time.monotonic()
    *printed, last = done.stdout.splitlines() or [""]
    if done.returncode or not last.startswith(REPORT):
        raise RuntimeError(
            f"{' '.join(command)} failed with status {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return Report(json.loads(last.removeprefix(REPORT)), "\n".join(printed), started, ended)


def block_products(tokens: int, width: int) -> float:
    """Count the operations of a block's products: 12 D^2 weights per token, two of T x T x D."""
    return 2 * tokens * 12 * width**2 + 4 * tokens**2 * width


def image_products(config: ClipConfig, side: int, *, skipped: int = 0, bank: int = 0) -> float:
    """Count the operations of the products of one test image.

    Embedding (unless blocks are skipped), blocks after the first `skipped`, adapters and the
    comparison with `bank` rows per level. At the last level one adapter is computed, and only its
    first matrix.
    """
    patches = (side // config.patch_size) ** 2
    width = config.vision.width
    embedding = 0 if skipped else 2 * patches * 3 * config.patch_size**2 * width
    blocks = (config.vision.layers - skipped) * block_products(1 + patches, width)
    matrices = 4 * (len(LEVELS) - 1) + 1
    adapters = matrices * 2 * (1 + patches) * width * config.embed_dim
    return embedding + blocks + adapters + len(LEVELS) * 2 * patches * bank * config.embed_dim


def step_products(config: ClipConfig, side: int) -> float:
    """Count the operations of the products of one training step after the first adapter.

    Forward, gradients of the hidden tokens, and gradients of the adapters.
    """
    tokens = 1 + (side // config.patch_size) ** 2
    width = config.vision.width
    blocks = config.vision.layers - LEVELS[0]
    # attention has four products backward, two forward
    backward = blocks * (block_products(tokens, width) + 4 * tokens**2 * width)
    matrices = 4 * (len(LEVELS) - 1) + 2
    adapters = 3 * matrices * 2 * tokens * width * config.embed_dim
    return blocks * block_products(tokens, width) + backward + adapters
