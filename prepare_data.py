"""Prepare the data of an object: so far, draw shots.

    python prepare_data.py draw --obj Brain --draws 3 --overwrite

`draw` writes shot lists: seeded draws of K normal and K abnormal `valid` images, in the format of
the published lists, which `train_few.py --iterate` and `test_few.py --iterate` read. Slices of one
patient look alike, so a draw takes as many patients as possible, if file names tell them apart.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset.catalog import CATALOG, known_name
from mvfa.cli import command
from mvfa.flags import SEED, Flags, Parser, number
from mvfa.options import DEFAULT_SEED, SHOT_LISTS

SHOTS = (2, 4, 8, 16)
DRAW_EXAMPLES = (
    "--obj Brain --draws 3 --overwrite",
    "--obj Chest --shots 1 2 --seed 7 --fewshot_path my_lists",
)


def add_draw(parser: Parser) -> None:
    """Add the flags of `draw`."""
    parser.add_argument(
        "--obj", required=True, type=known_name, choices=list(CATALOG), help="the object"
    )
    flags = Flags(parser, "draws")
    folder = {"type": Path, "metavar": "DIR"}
    flags.add("data_path", "folder of the <obj>_AD folders", Path("data"), **folder)
    flags.add(
        "fewshot_path", "folder that DIR/<obj>/<K>-shot.txt is written to", SHOT_LISTS, **folder
    )
    count = number(int, 1)
    flags.add(
        "shots", "numbers K of shots, one list each", SHOTS, type=count, nargs="+", metavar="K"
    )
    flags.add("draws", "write draws 0 to N - 1, for --iterate", 5, type=count, metavar="N")
    flags.add("seed", "another seed gives other draws", DEFAULT_SEED, type=SEED)
    by_case = "auto: one image of every case (patient) before a second one of any; no: ignore cases"
    flags.add("by_case", by_case, "auto", choices=["auto", "no"])
    parser.add_argument("--overwrite", action="store_true", help="replace lists that exist")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. Raises UserError."""
    examples = [f"draw {example}" for example in DRAW_EXAMPLES]
    parser = Parser("prepare_data.py", "Prepare the data of an object.", examples)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summary = "write seeded draws of shots as shot lists"
    description = f"{summary.capitalize()}."
    add_draw(
        commands.add_parser("draw", help=summary, description=description, examples=DRAW_EXAMPLES)
    )
    return parser.parse_args(argv)


def draw(options: argparse.Namespace) -> list[Path]:
    """Write shot lists and return their paths. Raises UserError."""
    from dataset.draws import write_lists  # imports torch

    return write_lists(
        options.data_path,
        options.obj,
        options.fewshot_path,
        options.shots,
        draws=options.draws,
        seed=options.seed,
        by_case=options.by_case == "auto",
        overwrite=options.overwrite,
    )


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Run the chosen command and print the paths of the files it wrote. Raises UserError."""
    options = parse(argv)
    paths = {"draw": draw}[options.command](options)
    print(*paths, sep="\n")
    return paths


if __name__ == "__main__":
    command(main)
