"""Seeded draws of K normal and K abnormal `valid` images, as shot lists (SPEC section 1).

A draw is a random order of a folder's images, and its K shots are the first K: the 2 shots are the
first 2 of the 4, whichever K are asked for. Draws are independent, so two may share images.

Slices of one patient look alike. If file names contain the patient's number, a draw takes one image
of every case (patient) before it takes a second one of any. Cases are those of cases.csv, of the
pattern in object.toml, or of the general rule (dataset/cases.py). The patterns of the authors'
names are not used, so that a seed draws the same shots as before these were known.
"""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from dataset.cases import group_by_case, listed_cases
from dataset.catalog import find_object
from dataset.layout import LABELS, image_folder, list_images, object_folder
from errors import UserError
from utils import writable, write_whole

TAGS = {"good": "n", "Ungood": "a"}  # first letter of a list's lines, by state


def shuffled(groups: Sequence[Sequence[str]], generator: random.Random) -> list[str]:
    """Return all names in random order: one of every group, then a second one of every group ..."""
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
    pattern: str = "",
    known: Mapping[str, str] | None = None,
) -> dict[int, list[list[str]]]:
    """Draw shots: {K: [K names of draw 0, of draw 1, ...]} for every K of `shots`.

    Draw d comes from random.Random("<seed>/<tag>-<d>"): it depends neither on `shots` nor on
    `draws`, and normal ("n") and abnormal ("a") images with the same file names are drawn
    independently. The order of `names` does not matter. Raises UserError if a K is below 1 or above
    the number of names. `pattern` and `known`: see `dataset.cases.group_by_case`.
    """
    for k in shots:
        if not 1 <= k <= len(names):
            raise UserError(f"--shots {k}: there are {len(names)} images; choose from 1 to as many")
    groups = group_by_case(names, pattern, known) if by_case else [[name] for name in sorted(names)]
    orders = [shuffled(groups, random.Random(f"{seed}/{tag}-{d}")) for d in range(draws)]
    return {k: [order[:k] for order in orders] for k in shots}


def folder_names(folder: Path, most: int) -> list[str]:
    """List the names of a folder's images.

    Raises UserError if there are fewer than `most`, or if a name is no text, or contains white
    space, which separates names in a list.
    """
    names = [image.name for image in list_images(folder)]
    if len(names) < most:
        raise UserError(f"--shots {most}: {folder} has {len(names)} images; choose at most as many")
    for name in names:
        if name.split() != [name]:
            raise UserError(
                f"{folder / name} has white space in its name, which separates names in a list; "
                "rename it"
            )
        if not name.isprintable():
            raise UserError(f"{folder / name} has a name that is no text in UTF-8; rename it")
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
    """Write `<lists>/<obj>/<K>-shot.txt` with draws 0 to `draws` - 1 for every K of `shots`.

    Returns the files, sorted by K. Raises UserError, before anything is written, if there are too
    few images, or if a list exists with other content (the published ones have the same names) and
    `overwrite` is False.
    """
    shots = sorted(set(shots))
    paths = {k: lists / obj / f"{k}-shot.txt" for k in shots}
    pattern = find_object(data_path, obj).cases
    drawn = {}
    for state in LABELS:  # good, then Ungood
        tag = TAGS[state]
        folder = image_folder(data_path, obj, "valid", state)
        names = folder_names(folder, max(shots))
        listed = listed_cases([folder / name for name in names], object_folder(data_path, obj))
        known = {path.name: case for path, case in listed.items()}
        drawn[tag] = draw_lists(
            names, shots, draws, seed, tag=tag, by_case=by_case, pattern=pattern, known=known
        )
    contents = {path: list_content(drawn, k, draws) for k, path in paths.items()}
    if not overwrite:
        check_lists(contents)
    writable(lists / obj, "--fewshot_path", [path.name for path in paths.values()])
    for path, data in contents.items():
        write_whole(path, partial(Path.write_bytes, data=data))
    return list(paths.values())


def list_content(
    drawn: Mapping[str, Mapping[int, Sequence[Sequence[str]]]], k: int, draws: int
) -> bytes:
    """Return the content of the list of K shots; `drawn` holds names by tag, K and draw."""
    lines = (f"{tag}-{d}: {' '.join(drawn[tag][k][d])}\n" for d in range(draws) for tag in drawn)
    return "".join(lines).encode("utf-8")


def check_lists(contents: Mapping[Path, bytes]) -> None:
    """Raise UserError if lists exist whose content is not what would be written.

    Those of a command that was stopped are as this one writes them.
    """
    existing = [str(p) for p, data in contents.items() if p.exists() and p.read_bytes() != data]
    if existing:
        raise UserError(
            f"{', '.join(existing)} would be lost; pass --overwrite, or another folder "
            "by --fewshot_path"
        )
