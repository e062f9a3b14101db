"""Places of tables to runs: which training, which test, where their results lie, what they lack.

A training that several tables need is run once. Names of runs hold a digest of everything that steers them, so that a
changed setting makes a new run and never takes an old one's results.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from CLIP.hashing import file_hash, sha256
from CLIP.weight_files import weight_path
from dataset.catalog import object_info
from dataset.folder import LABELS, list_images
from dataset.medical_zero import others
from dataset.shots import RANDOM_DRAW, read_list
from errors import UserError
from mvfa.options import FEW, ZERO
from report.plan import (
    ALL_ROW,
    ALL_SWITCHES,
    ALONE,
    AMONG,
    BRANCH_ROWS,
    FEW_ROW,
    LEVELS,
    NORMAL_ROW,
    PAPER_SHOT,
    PROJECTOR_ROW,
    SWITCHES,
    TABLES,
    ZERO_ROW,
    Wanted,
    objects_of,
    switch_flags,
)
from report.study import DONE, FAILED, Cell, load_cell


@dataclass(frozen=True)
class Training:
    """One training: its setting, its object, and the flags that only this training has."""

    setting: str
    obj: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A place of a table and the run that fills it: the script and flags of its test, and whose scores are shown."""

    table: str
    row: str
    obj: str
    seed: int
    draw: int
    training: Training
    script: str
    flags: tuple[str, ...] = ()  # of the test, beside those of the training
    branch: str = "both"
    shot: int = 0  # K; 0 where the run has no shots


@dataclass(frozen=True)
class Job:
    """One call of a script: its flags, and the folder of its results."""

    script: str  # "" where the authors' adapters stand for a training
    flags: tuple[str, ...]
    out: Path

    @property
    def done(self) -> bool:
        """Whether its metrics.json, which is written last, is there. Nothing is to do where there is no script."""
        return not self.script or (self.out / "metrics.json").is_file()


@dataclass(frozen=True)
class Column:
    """What the places of a table for one object, seed and draw have in common."""

    wanted: Wanted
    table: str
    obj: str
    seed: int
    draw: int

    def few(self, row: str, *flags: str, shot: int = PAPER_SHOT, draw: int | None = None) -> Place:
        """A few-shot run; `flags` are the training's."""
        draw = self.draw if draw is None else draw
        chosen = ("--seed", str(self.seed), "--shot", str(shot), "--iterate", str(draw), *flags)
        return self.place(row, Training(FEW, self.obj, chosen), "test_few", shot)

    def zero(self, row: str, *flags: str) -> Place:
        """A zero-shot run; `flags` are the training's."""
        return self.place(
            row, Training(ZERO, self.obj, ("--seed", str(self.seed), *flags)), "test_zero", 0
        )

    def normal(self, row: str) -> Place:
        """A run with normal shots only."""
        flags = ("--shot", str(PAPER_SHOT), "--iterate", str(self.draw), "--abnormal_shot", "0")
        return replace(self.zero(row), script="test_few", flags=flags, shot=PAPER_SHOT)

    def place(self, row: str, training: Training, script: str, shot: int) -> Place:
        """A place of this column."""
        return Place(self.table, row, self.obj, self.seed, self.draw, training, script, shot=shot)


def level_runs(column: Column) -> list[Place]:
    """Table 5."""
    blocks = tuple(map(str, LEVELS))
    alone = [column.few(row, "--features_list", b) for row, b in zip(ALONE, blocks, strict=True)]
    among = [
        replace(column.few(row), flags=("--score_levels", b))
        for row, b in zip(AMONG, blocks, strict=True)
    ]
    return [*alone, *among, column.few(ALL_ROW)]


def switch_runs(column: Column) -> list[Place]:
    """Paper against released code."""
    every = [name for names in SWITCHES.values() for name in names]
    rows = {**SWITCHES, ALL_SWITCHES: every}
    released = (
        ("--recipe", "released") if "paper" in column.wanted.shared else ()
    )  # what the switches start from
    return [column.few(row, *released, *switch_flags(names)) for row, names in rows.items()]


RUNS: dict[str, Callable[[Column], list[Place]]] = {
    "table1": lambda c: [c.few(FEW_ROW)],
    "figure3": lambda c: [c.few(f"K = {k}", shot=k) for k in c.wanted.shots],
    "table2": lambda c: [c.zero(ZERO_ROW)],
    "table4": lambda c: [c.zero(ZERO_ROW), c.zero(PROJECTOR_ROW, "--projector", "all")],
    "table5": level_runs,
    "figure5": lambda c: [c.few(FEW_ROW), c.zero(ZERO_ROW)],
    "branches": lambda c: [
        replace(c.few(row), branch=branch) for row, branch in BRANCH_ROWS.items()
    ],
    "normal": lambda c: [c.normal(NORMAL_ROW)],
    "allshots": lambda c: [
        c.few("all shots", shot=available(c.wanted.data_path, c.obj), draw=RANDOM_DRAW)
    ],
    "skin": lambda c: [c.few(FEW_ROW), c.zero(ZERO_ROW)],
    "switches": switch_runs,
}


def available(data_path: Path, obj: str) -> int:
    """How many normal and abnormal shots an object's folder has, the smaller number."""
    return min(
        len(list_images(data_path / f"{obj}_AD" / "valid" / state / "img")) for state in LABELS
    )


def places(wanted: Wanted) -> list[Place]:
    """Every place of every table asked for. A run that does not depend on the draw is there once."""
    found = []
    for table in (name for name in TABLES if name in wanted.tables):
        for obj, seed, draw in product(objects_of(table, wanted), wanted.seeds, wanted.draws):
            runs = RUNS[table](Column(wanted, table, obj, seed, draw))
            first = draw == wanted.draws[0]
            found += [place for place in runs if first or (place.shot and table != "allshots")]
    return found


def digest(*content: object) -> str:
    """Eight digits that a name changes with."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def weights_identity(wanted: Wanted) -> str:
    """Hash of the CLIP weights, empty if they are not there."""
    try:
        return file_hash(weight_path(wanted.model_name, wanted.clip_path))
    except UserError:
        return ""


def listed(wanted: Wanted, obj: str, flags: Sequence[str]) -> list[list[str]] | None:
    """The shots that flags name, None where the list or its draw is missing or nothing is named."""
    asked = dict(pairs(flags))
    draw = int(asked.get("--iterate", RANDOM_DRAW))
    if draw == RANDOM_DRAW:
        return None
    path = wanted.fewshot_path / obj / f"{asked['--shot']}-shot.txt"
    try:
        return list(read_list(path, draw, abnormal="--abnormal_shot" not in asked))
    except (OSError, UserError):
        return None


def training_name(training: Training, wanted: Wanted) -> str:
    """The folder of a training."""
    told = "".join(
        flag.replace("--", "-").replace("_list", "") + value
        for flag, value in pairs(training.flags)
    )
    steered = (training.flags, wanted.steering[training.setting], wanted.shared)
    files = (
        str(wanted.data_path),
        weights_identity(wanted),
        listed(wanted, training.obj, training.flags),
    )
    return f"{training.setting}-{training.obj}{told}-{digest(*steered, *files)}"


def test_name(place: Place, wanted: Wanted, pictures: Sequence[str]) -> str:
    """The folder of a test, below its training's."""
    told = "".join(flag.replace("--", "-") + value for flag, value in pairs(place.flags))
    return f"{place.script}{told}-{digest(place.flags, list(pictures), listed(wanted, place.obj, place.flags))}"


def pairs(flags: Sequence[str]) -> list[tuple[str, str]]:
    """Flags and their values, two by two."""
    return list(zip(flags[::2], flags[1::2], strict=True))


def lacks(place: Place, wanted: Wanted) -> str:
    """What a run needs and does not find, nothing if all is there."""
    try:
        weight_path(wanted.model_name, wanted.clip_path)
    except UserError:
        return "no CLIP weights"
    trained = wanted.published is None and place.training.setting == ZERO
    needed = [place.obj, *(other.name for other in others(object_info(place.obj)) if trained)]
    absent = [name for name in needed if not (wanted.data_path / f"{name}_AD" / "test").is_dir()]
    if absent:
        return f"no images of {', '.join(absent)}"
    if wanted.published is not None and (reason := lacks_published(place, wanted.published)):
        return reason
    if place.table == "allshots":
        return "" if place.shot else "no images in valid/ to draw from"
    flags = place.flags if "--shot" in place.flags else place.training.flags
    if place.shot and listed(wanted, place.obj, flags) is None:
        return f"no list of {place.shot} shots with draw {place.draw}"
    return ""


def published_adapters(training: Training, folder: Path) -> Path:
    """The file of the authors' adapters for an object."""
    return folder / f"{training.setting}-shot" / f"{training.obj}.pth"


def lacks_published(place: Place, folder: Path) -> str:
    """Why a place cannot be filled with the authors' adapters, nothing if it can.

    They were published for K = 4 and for zero-shot, trained as the released code does by default.
    """
    asked = dict(pairs(place.training.flags))
    plain = (
        set(asked) <= {"--seed", "--shot", "--iterate"}
        and int(asked.get("--shot", PAPER_SHOT)) == PAPER_SHOT
    )
    if not plain:
        return "no adapters were published for this row"
    path = published_adapters(place.training, folder)
    return "" if path.is_file() else f"no published adapters {path}"


def jobs(place: Place, wanted: Wanted, root: Path) -> tuple[Job, Job]:
    """The training and the test of a place; their folders lie below `root`."""
    if wanted.published is not None:
        return published_jobs(place, wanted, root)
    training, folder = place.training, root / training_name(place.training, wanted)
    shared = (
        "--obj",
        place.obj,
        *wanted.shared,
        *wanted.places,
        f"--save_path={folder}",
        *training.flags,
    )
    lists = (f"--fewshot_path={wanted.fewshot_path}",)
    learn = (
        *shared,
        *wanted.steering[training.setting],
        *(lists if training.setting == FEW else ()),
    )
    pictures = ("--pictures", str(wanted.pictures))
    score = (*shared, *place.flags, *pictures, *(lists if place.script == "test_few" else ()))
    return (
        Job(f"train_{training.setting}", learn, folder / "train"),
        Job(place.script, score, folder / test_name(place, wanted, pictures)),
    )


def published_jobs(place: Place, wanted: Wanted, root: Path) -> tuple[Job, Job]:
    """The test of a place with the authors' adapters, and in place of a training nothing."""
    assert wanted.published is not None
    training, pictures = place.training, ("--pictures", str(wanted.pictures))
    adapters = published_adapters(training, wanted.published)
    folder = (
        root / f"published-{training_name(training, wanted)}-{digest(sha256_or_none(adapters))}"
    )
    lists = (f"--fewshot_path={wanted.fewshot_path}",) if place.script == "test_few" else ()
    flags = (
        "--obj",
        place.obj,
        *wanted.shared,
        *wanted.places,
        f"--ckpt={adapters}",
        *training.flags,
        *place.flags,
    )
    return (
        Job("", (), folder / "train"),
        Job(place.script, (*flags, *pictures, *lists), folder / test_name(place, wanted, pictures)),
    )


def sha256_or_none(path: Path) -> str | None:
    """Hash of a file, None if it is not there."""
    return sha256(path) if path.is_file() else None


def filled(place: Place, train: Path, test: Path, lacking: str, failed: str) -> Cell:
    """The cell of a place: from what its run left, else what it lacks or how it failed."""
    cell = load_cell(
        place.table,
        place.row,
        place.obj,
        seed=place.seed,
        draw=place.draw,
        test=test,
        training=train,
    )
    if cell.state != DONE:
        return (
            replace(cell, state=FAILED, reason=failed)
            if failed
            else replace(cell, reason=lacking or cell.reason)
        )
    if place.branch == "both":
        return cell
    image, pixel = cell.measures("image", place.branch), cell.measures("pixel", place.branch)
    shown = {
        "image_auroc": image.get("auroc"),
        "pixel_auroc": pixel.get("auroc"),
        "details": None,
        "pictures": None,
    }
    return replace(cell, metrics={**cell.metrics, **shown})


def settings(cells: Sequence[Cell]) -> dict[str, Mapping[str, Any]]:
    """Recipe, training options, versions and hashes of the first run that is done; paths are left out."""
    done = [cell for cell in cells if cell.state == DONE]
    if not done:
        return {}
    metrics, training = done[0].metrics, done[0].training.get("options", {})
    learned = {
        key: training.get(key)
        for key in ("epoch", "batch_size", "learning_rate", "img_size", "precision")
    }
    weights = {
        "file": Path(metrics["weights"]["file"]).name,
        "sha256": metrics["weights"]["sha256"],
    }
    return {
        "Recipe": training.get("recipe", {}),
        f"Training of the first run ({done[0].row}, {done[0].obj})": learned,
        "Versions": metrics["versions"],
        "Weights": weights,
    }
