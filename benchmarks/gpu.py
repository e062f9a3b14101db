"""Show on a machine with a GPU whether the program is right there, and how fast it is.

    python -m benchmarks.gpu [--budget 480] [--out FILE] [--only STAGE ...] [--small]

Rows are printed and written as soon as they are measured. What fails is a row, and the rest runs.
The exit status is 1 if something failed or is wrong, or nothing was measured.
"""

from benchmarks.gpu_flags import BUDGET, parse
from mvfa.cli import command
from mvfa.process import guard_imports

if __name__ == "__main__":  # help and mistakes come before the imports below, which take seconds
    guard_imports()
    command(parse)

import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import gpu_parity, gpu_rival, gpu_run, gpu_speed, gpu_steps
from benchmarks.gpu_data import cores
from benchmarks.gpu_rows import Row, head
from benchmarks.gpu_settings import Setting
from benchmarks.gpu_worker import Stage, Worker
from CLIP.weights import infer_config, read_state
from errors import UserError
from mvfa.accelerator import choose_device, describe, runtime, usable_devices

RUN = 110.0  # seconds that the whole run needs at least
RIVAL = 40.0
DRIVER = Path("/proc/driver/nvidia/version")
STAGES = (  # by worth
    Stage("ceilings", gpu_speed.ceilings, 6),
    Stage("inputs", gpu_speed.inputs, 25),
    Stage("parity", gpu_parity.parity, 30),
    Stage("precision", gpu_parity.precisions, 30),
    Stage("training", gpu_parity.training, 25),
    Stage("test", gpu_speed.test, 60),
    Stage("steps", gpu_steps.steps, 15),
    Stage("waits", gpu_steps.loops, 5),
    Stage("latency", gpu_steps.latency, 10),
    Stage("metrics", gpu_speed.metrics, 20),
    Stage("memory", gpu_steps.memory, 10),
    Stage("compiled", gpu_steps.compiled, 110, reserve=RIVAL + RUN),
    Stage("rival", gpu_rival.rival, RIVAL, reserve=RUN),
    Stage("run", gpu_run.whole_run, RUN),
)
PRECISIONS = (
    "fp32 is without TF32; with fp16 and bf16 (the backbone's) all else is as the program has it"
)
SKIPPED = "skipped"
LEGEND = (
    "Times are medians after one call that does not count, with the device synchronized before "
    "each reading of the clock; n: measurements, with the largest deviation from the median. "
    "Images and masks are drawn, weights are random unless --clip_path names a file. Share of the "
    "product rate: operations of the matrix products that the work needs, by formula, divided by "
    "its time and by the rate of the large product above."
)


def chosen_device(name: str | None, small: bool) -> torch.device:
    """Return the device. Raises UserError if there is no GPU and none is named."""
    if name is not None or small:
        return choose_device(name or "cpu")
    device = choose_device(None)
    if device.type == "cpu":
        raise UserError(
            f"no GPU that torch can use here, only {', '.join(usable_devices())}; pass --small to "
            "check every stage on the CPU"
        )
    return device


def driver() -> str:
    """Return the versions of the driver and of what torch was built for."""
    built = f"torch built for {runtime()}"
    try:
        line = DRIVER.read_text().partition("\n")[0]
    except OSError:
        return f"{built}, driver unknown"
    return f"{built}, driver {line.removeprefix('NVRM version:').strip()}"


def header(setting: Setting) -> str:
    """Describe time, commit, machine, versions and settings as a Markdown list."""
    from benchmarks.bench import processor, tree  # imports much

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-learn"))
    device = torch.device(setting.device)
    size = "ViT-demo, small numbers: no speed means anything" if setting.small else "ViT-L/14-336"
    weights = setting.weights.name if setting.weights else f"random weights of {size}"
    used = f"{cores()} of {os.cpu_count()} cores usable, {torch.get_num_threads()} threads"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {tree()}",
        f"{describe(device)}; {driver()}",
        f"{processor()}, {used}",
        f"Python {platform.python_version()}, {packages}",
        f"{weights}, {setting.sizes.side} x {setting.sizes.side} pixels",
        PRECISIONS,
    ]
    return "\n".join(f"- {line}" for line in lines)


class Report:
    """The table, printed and written line by line, so that a cut run keeps what it has.

    Args:
        path: file to write.

    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():  # a card's table is not lost to a run that measures nothing
                path.replace(path.with_name(f"{path.name}.old"))
            self.file = path.open("w", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or "it cannot be written"
            raise UserError(f"--out {path}: {reason}; choose another") from error
        self.bad = 0
        self.good = 0
        self.skipped = 0

    def say(self, text: str) -> None:
        """Print and write text."""
        print(text, flush=True)
        print(text, file=self.file, flush=True)

    def add(self, row: Row) -> None:
        """Print and write a row."""
        self.bad += row.bad
        self.skipped += row.measured == SKIPPED
        self.good += not row.bad and row.measured != SKIPPED
        self.say(row.line())


def measure(stages: Sequence[Stage], setting: Setting, report: Report) -> None:
    """Run stages as far as the time allows, and report their rows."""
    worker = Worker(setting)
    try:
        for stage in stages:
            left = setting.deadline - time.monotonic()
            if stage.seconds + stage.reserve > left:
                needed = f"needs about {stage.seconds:.0f} s"
                if stage.reserve:
                    needed += f", and {stage.reserve:.0f} s are kept for what follows"
                report.add(
                    Row(stage.name, SKIPPED, "", f"{needed}; {max(0.0, left):.0f} s are left")
                )
                continue
            start = time.monotonic()
            for row in worker.run(stage):
                report.add(row)
            print(f"{stage.name}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    finally:
        worker.stop()


def main(argv: Sequence[str] | None = None, stages: Sequence[Stage] = STAGES) -> None:
    """Measure the chosen stages; exit with status 1 unless something was measured and all is right.

    Raises UserError for flags, weights or a device that cannot be used.
    """
    started = time.monotonic()
    options = parse(argv)
    device = chosen_device(options.device, options.small)
    if options.clip_path is not None:
        infer_config(read_state(options.clip_path), str(options.clip_path))
    report = Report(options.out)
    with tempfile.TemporaryDirectory(prefix="mvfa-gpu-") as scratch:
        setting = Setting(
            device=str(device),
            small=options.small,
            weights=options.clip_path and options.clip_path.resolve(),
            scratch=Path(scratch),
            deadline=started + options.budget,
            patience=max(1.0, options.budget / BUDGET),
        )
        report.say(f"{header(setting)}\n\n{head()}")
        measure([s for s in stages if s.name in options.only], setting, report)
    took = f"{time.monotonic() - started:.0f} s in all; rows that failed or are wrong: {report.bad}"
    report.say(f"\n{took}; stages left out: {report.skipped}. {LEGEND}")
    if report.bad or not report.good:
        raise SystemExit(1)


if __name__ == "__main__":
    command(main)
