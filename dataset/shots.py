"""Choose the K shots: from the published lists, or by a seeded draw (SPEC section 1)."""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataset.catalog import CATALOG, ObjectInfo, existing_folder
from dataset.folder import Record, make_records
from dataset.layout import LABELS, image_folder, list_images
from dataset.texts import read_text
from dataset.wording import shortened
from errors import UserError

LIST_FORM = "a shot list has lines such as 'n-0: a.png b.png'"
RANDOM_DRAW = -1  # the value of --iterate that draws instead of reading a list


@dataclass(frozen=True)
class Shots:
    """K normal and K (or no) abnormal images of `valid`."""

    normal: list[Record]
    abnormal: list[Record]
    note: str = ""  # what a run says about the choice

    def names(self) -> dict[str, list[str]]:
        """Return the file names by "normal" and "abnormal", for checkpoints and result files."""
        return {
            "normal": [r.name for r in self.normal],
            "abnormal": [r.name for r in self.abnormal],
        }


class ListLine(NamedTuple):
    """A line of a shot list, `n-0: a.png b.png`, and its number, from 1."""

    number: int
    key: str  # "" for a line of another form
    names: list[str]


def list_lines(path: Path) -> list[ListLine]:
    """Read the lines of a shot list, but the empty ones. Raises UserError."""
    lines = []
    for number, line in enumerate(read_text(path, LIST_FORM).splitlines(), 1):
        key, colon, names = line.partition(":")
        if line.strip():
            lines.append(ListLine(number, key.strip() if colon else "", names.split()))
    return lines


def read_list(path: Path, draw: int, abnormal: bool = True) -> tuple[list[str], list[str]]:
    """Read the file names of the normal and (if wanted) the abnormal shots of a draw.

    Raises UserError if the file is not text, has two lines of a draw, or none of this one.
    """
    lines: dict[str, list[str]] = {}
    for number, key, names in list_lines(path):
        if key and key in lines:
            raise UserError(f"{path} line {number}: a second line {key!r}; keep one")
        lines[key] = names
    for key in (f"n-{draw}", f"a-{draw}") if abnormal else (f"n-{draw}",):
        if not lines.get(key):
            has = shortened(", ".join(sorted(filter(None, lines)))) or "nothing"
            raise UserError(
                f"{path} has no line {key!r}: (it has {has}); choose another --iterate, "
                "or -1 for a draw"
            )
    return lines[f"n-{draw}"], lines[f"a-{draw}"] if abnormal else []


def find(folder: Path, info: ObjectInfo, names: list[str], source: Path) -> list[Record]:
    """Return the records of file names that the list `source` gives.

    Raises UserError for the first name that is not in the folder.
    """
    images = {image.name for image in list_images(folder)}
    for name in names:
        if name not in images:
            raise UserError(
                f"{source} names {name}, which is not in {folder}; "
                "the list and the images do not belong together"
            )
    return make_records(info, folder, names)


def choose_shots(
    data_path: Path,
    info: ObjectInfo,
    k: int,
    *,
    lists: Path,
    seed: int,
    draw: int = 0,
    abnormal: bool = True,
) -> Shots:
    """Choose K normal and K abnormal images of `valid`.

    Args:
        data_path: holds `<name>_AD` folders.
        info: the object.
        k: K, the number of images of each label.
        lists: holds `<name>/<K>-shot.txt`.
        seed: of the draw, if `draw` is RANDOM_DRAW.
        draw: number of a line of the list; RANDOM_DRAW (-1): draw by `seed` without a list. So does
            0 for an object that is not in the catalog and has no list.
        abnormal: whether to choose abnormal images; the normal ones are the same without.

    Raises:
        UserError: the list, a draw or a file is missing, the list has another K, or there are too
            few images to draw from.

    """
    existing_folder(data_path, info.name)
    states = list(LABELS) if abnormal else list(LABELS)[:1]  # normal first
    folders = [image_folder(data_path, info.name, "valid", state) for state in states]
    note = ""
    if draws_instead(info.name, k, lists, draw):
        note = f"no shot list {list_path(lists, info.name, k)}: shots are drawn by --seed {seed}"
        draw = RANDOM_DRAW
    if draw == RANDOM_DRAW:
        groups = random_shots(folders, info, k, seed)
    else:
        groups = listed_shots(folders, info, k, lists, draw)
    return Shots(groups[0], groups[1] if abnormal else [], note)


def list_path(lists: Path, name: str, k: int) -> Path:
    """Return the file of an object's shot lists for K shots, which need not exist."""
    return lists / name / f"{k}-shot.txt"


def draws_instead(name: str, k: int, lists: Path, draw: int) -> bool:
    """Return whether shots are drawn by the seed because nobody can have published a list."""
    return draw == 0 and name not in CATALOG and not list_path(lists, name, k).exists()


def random_shots(folders: list[Path], info: ObjectInfo, k: int, seed: int) -> list[list[Record]]:
    """Draw K images of each folder; the order of the folders is part of the draw. UserError."""
    generator = random.Random(seed)
    groups = []
    for folder in folders:
        images = list_images(folder)
        if len(images) < k:
            raise UserError(
                f"--shot {k}: {folder} has {len(images)} images; choose at most as many"
            )
        chosen = generator.sample(images, k)
        groups.append(make_records(info, folder, [image.name for image in chosen]))
    return groups


def listed_shots(
    folders: list[Path], info: ObjectInfo, k: int, lists: Path, draw: int
) -> list[list[Record]]:
    """Return the images of each folder that a draw of the object's list names. UserError."""
    path = list_path(lists, info.name, k)
    if not path.is_file():
        remedy = f"write it with python prepare_data.py draw --obj {info.name}"
        if info.benchmark:
            remedy = "run python prepare_data.py download shots"
        raise UserError(
            f"no shot list {path}; {remedy}, pass --fewshot_path DIR, or draw with --iterate -1"
        )
    listed = read_list(path, draw, abnormal=len(folders) == len(LABELS))[: len(folders)]
    for names in listed:
        if len(names) != k:
            raise UserError(
                f"{path} names {len(names)} files in draw {draw}; {k} are allowed, so fix the list"
            )
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(
                f"{path} names {repeated[0]} twice in draw {draw}; allowed are {k} different "
                "images, so fix the list"
            )
    return [find(folder, info, names, path) for folder, names in zip(folders, listed, strict=True)]
