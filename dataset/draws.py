"""Write shot lists: seeded draws of K normal and K abnormal `valid` images (SPEC section 1).

    python -m dataset.draws --obj Brain --data_path data --fewshot_path dataset/fewshot_seed --shots 2 4 8 16 --draws 5

A draw is one order of a folder's images, and its K shots are the first K of it: the 2 shots are the first 2 of the 4,
whatever else is asked for. Draws are independent of one another, so two may name the same images where there are few.

Slices of one patient look alike. Where file names tell the patient, a draw takes one image of every case before it
takes a second one of any (`case_of` says how a name is read, `--by_case no` turns it off).
"""

import argparse
import random
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dataset.catalog import CATALOG, known_name, object_info
from dataset.folder import LABELS, list_images, object_folder
from errors import UserError
from utils import writable, write_whole

TAGS = {"good": "n", "Ungood": "a"}  # what the lines of a list begin with
CASE = re.compile(
    r"(.+)[_\-]\d+"
)  # 00003_60, case_12_slice_40, NORMAL-1017237-1: all but the last number


def case_of(name: str) -> str:
    """What a file name shares with the other images of its case: all before the last `_` or `-` and a number.

    A name of another form is a case of its own.
    """
    stem = Path(name).stem
    found = CASE.fullmatch(stem)
    return found[1] if found else stem


def group_by_case(names: Sequence[str]) -> list[list[str]]:
    """Sorted file names in groups, one a case, sorted by case.

    Names that show no cases (all share one prefix, or no two do) give groups of one: `slice_1`, `slice_2` ... are
    numbers of images, not images of one patient.
    """
    cases: dict[str, list[str]] = {}
    for name in sorted(names):
        cases.setdefault(case_of(name), []).append(name)
    if 2 <= len(cases) < len(names):
        return [cases[case] for case in sorted(cases)]
    return [[name] for name in sorted(names)]


def shuffled(groups: Sequence[Sequence[str]], generator: random.Random) -> list[str]:
    """All names in a random order that takes one of every group, then a second one of every group that has it, ..."""
    order = [generator.sample(group, len(group)) for group in generator.sample(groups, len(groups))]
    rounds = range(max(map(len, order), default=0))
    return [group[position] for position in rounds for group in order if position < len(group)]


def draw_lists(
    names: Sequence[str],
    shots: Sequence[int],
    draws: int,
    seed: int,
    *,
    tag: str = "n",
    by_case: bool = True,
) -> dict[int, list[list[str]]]:
    """The shots of each draw: {K: [K names of draw 0, of draw 1, ...]}.

    Draw d is random.Random("<seed>/<tag>-<d>"), so that it depends neither on `shots` nor on `draws`, and normal images
    ("n") and abnormal ones ("a") of the same numbers are not drawn alike. The order of `names` does not matter.
    Raises UserError if a K is below 1 or above the number of names.
    """
    for k in shots:
        if not 1 <= k <= len(names):
            raise UserError(f"--shots {k}: there are {len(names)} images; choose from 1 to as many")
    groups = group_by_case(names) if by_case else [[name] for name in sorted(names)]
    orders = [shuffled(groups, random.Random(f"{seed}/{tag}-{d}")) for d in range(draws)]
    return {k: [order[:k] for order in orders] for k in shots}


def folder_names(folder: Path, most: int) -> list[str]:
    """Names of a folder's images. UserError if there are fewer than `most` or if a list could not hold one of them."""
    names = [image.name for image in list_images(folder)]
    if len(names) < most:
        raise UserError(f"--shots {most}: {folder} has {len(names)} images; choose at most as many")
    for name in names:
        if name.split() != [name]:
            raise UserError(
                f"{folder / name} has white space in its name, which separates names in a list; rename it"
            )
    return names


def write_lists(
    data_path: Path,
    obj: str,
    lists: Path,
    shots: Sequence[int],
    *,
    draws: int,
    seed: int,
    by_case: bool = True,
    overwrite: bool = False,
) -> list[Path]:
    """Write <lists>/<obj>/<K>-shot.txt with draws 0 to `draws` - 1 for every K; returns the files, sorted by K.

    Raises UserError, before anything is written, if there are too few images or if a list exists already (the published
    ones lie there under the same names) and `overwrite` is not set.
    """
    shots = sorted(set(shots))
    paths = {k: lists / obj / f"{k}-shot.txt" for k in shots}
    existing = [str(path) for path in paths.values() if path.exists()]
    if existing and not overwrite:
        raise UserError(
            f"{', '.join(existing)} would be lost; pass --overwrite, or another folder by --fewshot_path"
        )
    valid = object_folder(data_path, object_info(obj)) / "valid"
    drawn = {}
    for state in LABELS:  # good, then Ungood
        tag, names = TAGS[state], folder_names(valid / state / "img", max(shots))
        drawn[tag] = draw_lists(names, shots, draws, seed, tag=tag, by_case=by_case)
    writable(lists / obj, "--fewshot_path")
    for k, path in paths.items():
        lines = [
            f"{tag}-{d}: {' '.join(drawn[tag][k][d])}\n" for d in range(draws) for tag in drawn
        ]
        write_whole(path, partial(Path.write_text, data="".join(lines)))
    return list(paths.values())


def positive(text: str) -> int:
    """A whole number of at least 1, as a flag's value."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    told = "Write seeded draws of shots, from as many cases (patients) as possible, in the format of the shot lists."
    parser = argparse.ArgumentParser(
        prog="python -m dataset.draws", description=told, allow_abbrev=False
    )
    add, lists = parser.add_argument, Path("dataset/fewshot_seed")
    add("--obj", required=True, type=known_name, choices=list(CATALOG), help="the object")
    add(
        "--data_path",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="holds <obj>_AD folders (default: data)",
    )
    add(
        "--fewshot_path",
        type=Path,
        default=lists,
        metavar="DIR",
        help=f"written to DIR/<obj> (default: {lists})",
    )
    add(
        "--shots",
        type=positive,
        nargs="+",
        default=[2, 4, 8, 16],
        metavar="K",
        help="(default: 2 4 8 16)",
    )
    add(
        "--draws",
        type=positive,
        default=5,
        metavar="N",
        help="draws 0 to N - 1, for --iterate (default: 5)",
    )
    add("--seed", type=int, default=111, help="(default: 111)")
    add(
        "--by_case",
        choices=["auto", "no"],
        default="auto",
        help="cases by file names, or none (default: auto)",
    )
    add("--overwrite", action="store_true", help="replace lists that exist")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Write the lists and print their paths. Raises UserError."""
    options = parse(argv)
    paths = write_lists(
        options.data_path,
        options.obj,
        options.fewshot_path,
        options.shots,
        draws=options.draws,
        seed=options.seed,
        by_case=options.by_case == "auto",
        overwrite=options.overwrite,
    )
    print(*paths, sep="\n")
    return paths


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
