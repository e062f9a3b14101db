"""Which images are the K shots: the published lists, or a seeded draw (SPEC section 1)."""

import random
from dataclasses import dataclass
from pathlib import Path

from dataset.catalog import ObjectInfo
from dataset.folder import Record, list_images, object_folder, record
from errors import UserError

LISTS = "https://raw.githubusercontent.com/MediaBrain-SJTU/MVFA-AD/main/dataset/fewshot_seed"
RANDOM_DRAW = -1  # the value of --iterate that draws instead of reading a list


@dataclass(frozen=True)
class Shots:
    """K normal and K abnormal images of `valid`."""

    normal: list[Record]
    abnormal: list[Record]

    def names(self) -> dict[str, list[str]]:
        """File names, for checkpoints and result files."""
        return {
            "normal": [r.name for r in self.normal],
            "abnormal": [r.name for r in self.abnormal],
        }


def read_list(path: Path, draw: int, abnormal: bool = True) -> tuple[list[str], list[str]]:
    """File names of the normal and (if wanted) the abnormal shots of a draw. UserError if the list lacks it."""
    draws = {}
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no text; a shot list has lines such as 'n-0: a.png b.png'"
        ) from error
    for line in text.splitlines():
        key, _, names = line.partition(":")
        draws[key.strip()] = names.split()
    for key in (f"n-{draw}", f"a-{draw}") if abnormal else (f"n-{draw}",):
        if not draws.get(key):
            has = ", ".join(sorted(draws)) or "nothing"
            raise UserError(
                f"{path} has no line {key!r}: (it has {has}); choose another --iterate, or -1 for a draw"
            )
    return draws[f"n-{draw}"], draws[f"a-{draw}"] if abnormal else []


def find(folder: Path, info: ObjectInfo, names: list[str], source: Path) -> list[Record]:
    """Records of the named files. UserError for the first that is not in the folder."""
    images = {image.name for image in list_images(folder)}
    for name in names:
        if name not in images:
            raise UserError(
                f"{source} names {name}, which is not in {folder}; the list and the images do not belong together"
            )
    return [record(info, folder, name) for name in names]


def choose_shots(
    data_path: Path,
    info: ObjectInfo,
    k: int,
    *,
    draw: int = 0,
    seed: int = 111,
    lists: Path = Path("dataset/fewshot_seed"),
    abnormal: bool = True,
) -> Shots:
    """The K shots of draw number `draw` of the object's list, or a seeded draw if `draw` is RANDOM_DRAW.

    Without `abnormal` only the normal ones, of which the same are chosen.

    Raises UserError if the list, a draw or a file is missing, if the list has another K, or if there are too few
    images to draw from.
    """
    valid = object_folder(data_path, info) / "valid"
    folders = [valid / "good" / "img", valid / "Ungood" / "img"]
    if draw == RANDOM_DRAW:
        generator, drawn = random.Random(seed), []
        for folder in folders[: 1 + abnormal]:  # normals first: the order belongs to the draw
            images = list_images(folder)
            if len(images) < k:
                raise UserError(
                    f"--shot {k}: {folder} has {len(images)} images; choose at most as many"
                )
            drawn.append(
                [record(info, folder, image.name) for image in generator.sample(images, k)]
            )
        return Shots(drawn[0], drawn[1] if abnormal else [])
    path = lists / info.name / f"{k}-shot.txt"
    if not path.is_file():
        raise UserError(
            f"no shot list {path}; get {LISTS}/{info.name}/{k}-shot.txt, "
            f"pass --fewshot_path DIR, or draw with --iterate -1"
        )
    names = read_list(path, draw, abnormal)
    for group in names[: 1 + abnormal]:
        if len(group) != k:
            raise UserError(
                f"{path} names {len(group)} files in draw {draw}; {k} are allowed, so mend the list"
            )
    return Shots(
        *(find(folder, info, group, path) for folder, group in zip(folders, names, strict=True))
    )
