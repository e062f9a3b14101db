"""Tools of the benchmark: timing in turn, fresh processes, the machine's matrix-product rate, work by formula, rows."""

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

ROOT = Path(__file__).parent.parent
LEVELS = (6, 12, 18, 24)


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    weights: Path
    side: int
    quick: bool
    repeats: int
    scratch: Path  # a folder for generated files
    device: str = "cpu"

    @property
    def few_repeats(self) -> int:
        """How often a measurement of minutes is made."""
        return 1 if self.quick else min(2, self.repeats)


@dataclass(frozen=True)
class Row:
    """One line of the first table: seconds of the baseline and of this program, measured in turn."""

    work: str
    wanted: str
    baseline: list[float]
    ours: list[float]
    images: int = 0  # in one measurement
    products: tuple[float, float] = (
        0.0,
        0.0,
    )  # floating-point operations that a measurement needs, in products
    rates: list[float] = field(
        default_factory=list
    )  # operations a second of one large product, measured in turn
    peaks: tuple[float, float] | None = None  # bytes
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times faster, measurement by measurement."""
        return [b / o for b, o in zip(self.baseline, self.ours, strict=True)]

    def cells(self) -> list[str]:
        """The row as it is printed."""
        low, middle, high = min(self.ratios), median(self.ratios), max(self.ratios)
        seconds = [median(times) for times in (self.baseline, self.ours)]
        speeds = [f"{self.images / s:.3g}" for s in seconds] if self.images else []
        shares = [
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
            *(" / ".join(pair) for pair in (speeds, shares, peaks)),
            self.note,
        ]


ROW_HEADS = [
    "work",
    "ratio, median (spread)",
    "wanted",
    "baseline, s",
    "ours, s",
    "images/s, both",
    "share of product rate, both",
    "peak memory, GB, both",
    "note",
]


@dataclass(frozen=True)
class Growth:
    """One line of the second table: peak memory [bytes] by number of test images."""

    work: str
    wanted: str
    peaks: Mapping[int, float]

    def slope(self, first: int, last: int) -> float:
        """Bytes an image between two of the measured numbers."""
        return (self.peaks[last] - self.peaks[first]) / (last - first)

    def cells(self) -> list[str]:
        """The row as it is printed."""
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


GROWTH_HEADS = [
    "run",
    "peak memory at n images, MB",
    "kB an image, step by step",
    "kB an image, first to last",
    "wanted",
]


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def each(seconds: list[float], count: int) -> list[float]:
    """Seconds of one of `count` equal things that were measured together."""
    return [s / count for s in seconds]


def in_turn(
    work: Mapping[str, Callable[[], object]], repeats: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each function, all of them one after another, `repeats` times; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + warm_up):
        for name, function in work.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@dataclass(frozen=True)
class Product:
    """A large float32 matrix product, the yardstick of the machine."""

    side: int
    device: str = "cpu"

    def __call__(self) -> None:
        """Multiply."""
        a = torch.ones(self.side, self.side, device=self.device)
        torch.mm(a, a)

    def rates(self, seconds: list[float]) -> list[float]:
        """Operations a second."""
        return [2 * self.side**3 / s for s in seconds]


@dataclass(frozen=True)
class Report:
    """What a fresh process told, what it printed, and when it was started and over (seconds of the monotonic clock)."""

    told: dict[str, Any]
    printed: str
    started: float
    ended: float


def fresh(*arguments: object) -> Report:
    """Run a task of benchmarks.child in a process of its own. RuntimeError if it fails."""
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
    """Operations of the products of one transformer block: 12 D^2 weights a token, and two T x T x D products."""
    return 2 * tokens * 12 * width**2 + 4 * tokens**2 * width


def image_products(config: ClipConfig, side: int, *, skipped: int = 0, bank: int = 0) -> float:
    """Operations of the products that one test image needs, without those of the first `skipped` blocks.

    Embedding, blocks, adapters (the last two give nothing back to the stream; only one of them is read) and the
    comparison with `bank` rows a level.
    """
    patches, width = (side // config.patch_size) ** 2, config.vision.width
    embedding = 0 if skipped else 2 * patches * 3 * config.patch_size**2 * width
    blocks = (config.vision.layers - skipped) * block_products(1 + patches, width)
    matrices = 4 * (len(LEVELS) - 1) + 1
    adapters = matrices * 2 * (1 + patches) * width * config.embed_dim
    return embedding + blocks + adapters + len(LEVELS) * 2 * patches * bank * config.embed_dim


def step_products(config: ClipConfig, side: int) -> float:
    """Operations of the products of one training step after the stem: forward, gradients of the stream and adapters."""
    tokens, width = 1 + (side // config.patch_size) ** 2, config.vision.width
    blocks = config.vision.layers - LEVELS[0]
    backward = blocks * (
        block_products(tokens, width) + 4 * tokens**2 * width
    )  # attention: four products, not two
    matrices = 4 * (len(LEVELS) - 1) + 2
    adapters = 3 * matrices * 2 * tokens * width * config.embed_dim
    return blocks * block_products(tokens, width) + backward + adapters
