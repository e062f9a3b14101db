"""Measure the program against the baseline, alternating on this machine; prints Markdown tables.

    python -m benchmarks.bench [--clip_path FILE] [--img_size 240] [--quick] [--only NAME ...]

Without --clip_path, stand-in weights of the published size are written once to .cache/standin.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import rows_methods, rows_model, rows_predict, rows_runs
from benchmarks.measure import GROWTH_HEADERS, ROOT, ROW_HEADERS, Growth, Row, Settings
from mvfa.accelerator import describe
from mvfa.checkpoint import commit
from mvfa.markdown import markdown_table
from mvfa.memory import tune_process
from synthetic.standin import write_standin

STANDIN = ROOT / ".cache" / "standin"
ROWS: dict[str, Callable[[Settings], Sequence[Row | Growth]]] = {
    "start": rows_model.start,
    "text": rows_model.text,
    "image": rows_model.image,
    "step": rows_model.step,
    "epochs": rows_runs.epochs,
    "madclip": rows_methods.madclip,
    "dino": rows_methods.dino,
    "predict": rows_predict.predict,
    "metrics": rows_runs.metrics,
    "memory": rows_runs.memory,
}
LEGEND = (
    "Baseline and program ran alternately; the ratio is taken turn by turn. Fraction of product "
    "rate: operations of the matrix products that the program needs for the work, by formula, "
    "divided by the seconds and by the rate of one large float32 product measured in the same "
    "turns. Peak memory is that of a fresh process."
)


def standin_weights() -> Path:
    """Return the stand-in weight file, written completely or not at all."""
    if not STANDIN.is_dir():
        STANDIN.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STANDIN.parent) as folder:
            partial = Path(folder) / "standin"
            partial.mkdir()
            write_standin(partial)
            partial.rename(STANDIN)
    return STANDIN / "standin.pt"


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def tree() -> str:
    """Return the commit, and whether the working tree differs from it."""
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return (commit() or "unknown") + (" with changes" if changed.stdout.strip() else "")


def header(settings: Settings) -> str:
    """Describe time, commit, machine, versions and settings as a Markdown list."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-learn", "kornia", "pillow")
    )
    device = describe(torch.device(settings.device))
    quick = ", quick settings: not meaningful" if settings.quick else ""
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {tree()}",
        f"{processor()}, {cores}, on {device}",
        f"Python {platform.python_version()}, {packages}",
        f"weights {settings.weights.name}, {settings.side} x {settings.side} pixels{quick}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the chosen rows and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--clip_path", type=Path, metavar="FILE", help="weights (default: stand-in weights)"
    )
    parser.add_argument(
        "--img_size", type=int, metavar="S", help="image side (default: 240; 112 with --quick)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small settings, to check that every row works"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(ROWS),
        default=list(ROWS),
        metavar="NAME",
        help=str([*ROWS]),
    )
    parser.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help="measurements of a row (default: 5; 2 with --quick)",
    )
    parser.add_argument(
        "--device", default="cpu", help="of the rows start, text, image, step and epochs"
    )
    options = parser.parse_args(argv)
    tune_process()  # affects the program only: the baseline has its own process
    weights = options.clip_path.resolve() if options.clip_path else standin_weights()
    side = options.img_size or (112 if options.quick else 240)
    repeats = options.repeats or (2 if options.quick else 5)
    rows: list[Row | Growth] = []
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(weights, side, options.quick, repeats, Path(scratch), options.device)
        for name in options.only:
            measured = ROWS[name](settings)
            rows += measured
            for row in measured:
                print(" | ".join(row.cells()), file=sys.stderr, flush=True)
        print(header(settings))
    for kind, headers in ((Row, ROW_HEADERS), (Growth, GROWTH_HEADERS)):
        chosen = [row.cells() for row in rows if isinstance(row, kind)]
        if chosen:
            print(f"\n{markdown_table(headers, chosen)}")
    print(f"\n{LEGEND}")


if __name__ == "__main__":
    main()
