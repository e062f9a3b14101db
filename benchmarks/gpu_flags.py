"""The flags of benchmarks.gpu. No torch: help and mistakes come at once."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from errors import UserError
from mvfa.flags import Parser, number

ROOT = Path(__file__).parent.parent
BUDGET = 480.0  # seconds
LONGEST = 86_400.0
STAGES = {  # by worth
    "ceilings": "how fast the device copies and multiplies",
    "inputs": "random weights are written, images drawn",
    "parity": "float32 against the released code's numbers",
    "precision": "float16 and bfloat16 against float32",
    "training": "50 epochs in float16 stay finite",
    "test": "test images a second, by batch and memory bank",
    "steps": "training steps a second, also by CUDA graphs",
    "waits": "how often the loops wait for the device",
    "latency": "a single image",
    "metrics": "metrics of 3,715 maps",
    "memory": "the device's peak memory",
    "compiled": "with torch.compile",
    "rival": "the released code's way of computing, for comparison",
    "run": "train_few.py, 4 shots, 50 epochs, 3,715 test images",
}


def build_parser() -> Parser:
    """Return the parser of the flags."""
    parser = Parser(
        "-m benchmarks.gpu",
        "Show on a machine with a GPU whether the program is right there, and how fast it is.",
        ["--out gpu.md", "--only parity precision", "--small"],
    )
    parser.add_argument(
        "--small", action="store_true", help="small network, on the CPU: to check every stage"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="table; its folder is made, a table that is there is kept as FILE.old "
        "(default: .cache/gpu.md, with --small .cache/gpu-small.md)",
    )
    parser.add_argument("--device", help="default: the GPU; with --small the CPU")
    parser.add_argument(
        "--budget",
        type=number(float, 0, inclusive=False, top=LONGEST),
        default=BUDGET,
        metavar="S",
        help=f"seconds; stages that do not fit are left out (default: {BUDGET:g})",
    )
    shown = "; ".join(f"{name}: {text}" for name, text in STAGES.items())
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(STAGES),
        default=list(STAGES),
        metavar="STAGE",
        help=f"{shown} (default: all)".replace("%", "%%"),
    )
    parser.add_argument(
        "--clip_path",
        type=Path,
        metavar="FILE",
        help="weights of all stages but parity (default: random ones)",
    )
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the values of the flags. Raises UserError for a mistake in them."""
    options = build_parser().parse_args(argv)
    if options.clip_path is not None and not options.clip_path.is_file():
        raise UserError(f"--clip_path {options.clip_path} is not a file; pass one with weights")
    name = "gpu-small.md" if options.small else "gpu.md"
    options.out = options.out or ROOT / ".cache" / name
    if options.out.is_dir():
        raise UserError(f"--out {options.out} is a folder; pass a file")
    return options
