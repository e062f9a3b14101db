"""Cells of tables to runs: which training, which test, where their results are, what is missing.

A training that several tables need is run once. Names of run folders hold a digest of everything
that changes the run's results, so a changed setting makes a new run instead of reusing an old one.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from CLIP.hashing import file_hash, sha256
from CLIP.weight_files import weight_path
from dataset.catalog import CATALOG, SETTINGS, existing_folder
from dataset.layout import LABELS, image_folder, list_images, object_folder
from dataset.medical_zero import others
from dataset.shots import RANDOM_DRAW, draws_instead, list_path, read_list
from errors import UserError
from mvfa.options import FEW, MIXED, SHOT_LISTS, ZERO
from mvfa.recipe import LEVELS
from report.experiments import (
    ALL_LEVELS_ROW,
    ALL_SHOTS_ROW,
    ALL_SWITCHES,
    ALONE,
    AMONG,
    BRANCH_ROWS,
    FEW_ROW,
    MASK_ROW,
    NORMAL_ROW,
    PAPER_SHOT,
    PROJECTOR_ROW,
    SWITCHES,
    TABLES,
    ZERO_ROW,
    StudyOptions,
    new_objects,
    objects_of,
    switch_flags,
)
from report.job import Job
from report.study import DONE, FAILED, MISSING, Cell, load_cell


@dataclass(frozen=True)
class Training:
    """One training: its setting ("few" or "zero"), its object, and the flags it alone has."""

    setting: str
    obj: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class CellSpec:
    """A table's cell for one seed and draw, and the run that fills it.

    `script` and `flags` are those of the test (`flags` beside the training's); `branch` is the one
    whose scores the cell shows; `shot` is K, and 0 where the run has no shots.
    """

    table: str
    row: str
    obj: str
    seed: int
    draw: int
    training: Training
    script: str
    flags: tuple[str, ...] = ()
    branch: str = "both"
    shot: int = 0


@dataclass(frozen=True)
class CellFactory:
    """Makes the cells of one table, object, seed and draw."""

    options: StudyOptions
    table: str
    obj: str
    seed: int
    draw: int

    def few(
        self, row: str, *flags: str, shot: int = PAPER_SHOT, draw: int | None = None
    ) -> CellSpec:
        """Return the cell of a few-shot run; `flags` are the training's."""
        draw = self.draw if draw is None else draw
        fixed = ("--seed", str(self.seed), "--shot", str(shot), "--iterate", str(draw))
        training = Training(FEW, self.obj, (*fixed, *flags))
        return self.cell(row, training, "test_few", shot)

    def zero(self, row: str, *flags: str) -> CellSpec:
        """Return the cell of a zero-shot run; `flags` are the training's."""
        training = Training(ZERO, self.obj, ("--seed", str(self.seed), *flags))
        return self.cell(row, training, "test_zero", 0)

    def normal(self, row: str) -> CellSpec:
        """Return the cell of a run with normal shots only."""
        flags = ("--shot", str(PAPER_SHOT), "--iterate", str(self.draw), "--abnormal_shot", "0")
        return replace(self.zero(row), script="test_few", flags=flags, shot=PAPER_SHOT)

    def cell(self, row: str, training: Training, script: str, shot: int) -> CellSpec:
        """Return a cell of this table, object, seed and draw."""
        return CellSpec(
            self.table, row, self.obj, self.seed, self.draw, training, script, shot=shot
        )


def level_cells(factory: CellFactory) -> list[CellSpec]:
    """Return the cells of table 5."""
    blocks = tuple(map(str, LEVELS))
    alone = [
        factory.few(row, "--features_list", block) for row, block in zip(ALONE, blocks, strict=True)
    ]
    among = [
        replace(factory.few(row), flags=("--score_levels", block))
        for row, block in zip(AMONG, blocks, strict=True)
    ]
    return [*alone, *among, factory.few(ALL_LEVELS_ROW)]


def switch_cells(factory: CellFactory) -> list[CellSpec]:
    """Return the cells of the table that compares paper and released code."""
    every = [name for names in SWITCHES.values() for name in names]
    rows = {**SWITCHES, ALL_SWITCHES: every}
    # the rows start from the released recipe, whatever --recipe says
    released = ("--recipe", "released") if "paper" in factory.options.run_flags else ()
    cells = [factory.few(row, *released, *switch_flags(names)) for row, names in rows.items()]
    if factory.obj in CATALOG and not CATALOG[factory.obj].masks:
        return cells
    return [*cells, factory.few(MASK_ROW, *released, "--mask_rule", "any")]


def all_shots_cells(factory: CellFactory) -> list[CellSpec]:
    """Return the cell of the run with all available shots."""
    shot = available_shots(factory.options.data_path, factory.obj)
    return [factory.few(ALL_SHOTS_ROW, shot=shot, draw=RANDOM_DRAW)]


CELLS: dict[str, Callable[[CellFactory], list[CellSpec]]] = {
    "table1": lambda f: [f.few(FEW_ROW)],
    "figure3": lambda f: [f.few(f"K = {k}", shot=k) for k in f.options.shots],
    "table2": lambda f: [f.zero(ZERO_ROW)],
    "table4": lambda f: [f.zero(ZERO_ROW), f.zero(PROJECTOR_ROW, "--projector", "all")],
    "table5": level_cells,
    "figure5": lambda f: [f.few(FEW_ROW), f.zero(ZERO_ROW)],
    "branches": lambda f: [
        replace(f.few(row), branch=branch) for row, branch in BRANCH_ROWS.items()
    ],
    "normal": lambda f: [f.normal(NORMAL_ROW)],
    "allshots": all_shots_cells,
    "skin": lambda f: [f.few(FEW_ROW), f.zero(ZERO_ROW)],
    "switches": switch_cells,
}


def available_shots(data_path: Path, obj: str) -> int:
    """Return how many shots of each label valid/ of an object has: the smaller number."""
    return min(len(list_images(image_folder(data_path, obj, "valid", s))) for s in LABELS)


def cell_specs(options: StudyOptions) -> list[CellSpec]:
    """Return every cell of every table asked for; a run that has no draw is there once.

    Raises UserError if an object that is in no table has no folder.
    """
    for obj in new_objects(options):
        existing_folder(options.data_path, obj)
    specs = []
    for table in (name for name in TABLES if name in options.tables):
        for obj, seed, draw in product(objects_of(table, options), options.seeds, options.draws):
            cells = CELLS[table](CellFactory(options, table, obj, seed, draw))
            first = draw == options.draws[0]
            specs += [cell for cell in cells if first or (cell.shot and table != "allshots")]
    if not options.disjoint_cases:
        return specs
    more = ("--disjoint_cases", "yes")
    return [
        replace(spec, flags=(*spec.flags, *more)) if spec.script == "test_few" else spec
        for spec in specs
    ]


def digest(*content: object) -> str:
    """Return eight hexadecimal digits that depend on JSON values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def pairs(flags: Sequence[str]) -> list[tuple[str, str]]:
    """Return flags and their values, two by two."""
    return list(zip(flags[::2], flags[1::2], strict=True))


def weights_hash(options: StudyOptions) -> str:
    """Return the hash of the CLIP weights, "" if the file does not exist."""
    try:
        return file_hash(weight_path(options.model_name, options.clip_path))
    except UserError:
        return ""


def listed_shots(
    options: StudyOptions, obj: str, flags: Sequence[str]
) -> tuple[list[str], list[str]] | None:
    """Return the normal and abnormal shots that `flags` name in a shot list.

    None where the list or the draw does not exist, and where the shots are drawn by the seed.
    """
    values = dict(pairs(flags))
    draw = int(values.get("--iterate", RANDOM_DRAW))
    if draw == RANDOM_DRAW:
        return None
    path = list_path(options.fewshot_path, obj, int(values["--shot"]))
    try:
        return read_list(path, draw, abnormal="--abnormal_shot" not in values)
    except (OSError, UserError):
        return None


def object_settings(training: Training, options: StudyOptions) -> list[tuple[str, str]]:
    """Return the object.toml files that change a training, as object and text."""
    names = [training.obj, *needed_objects(training)]
    paths = {name: object_folder(options.data_path, name) / SETTINGS for name in names}
    return [(name, path.read_text()) for name, path in paths.items() if path.is_file()]


def needed_objects(training: Training) -> list[str]:
    """Return the objects, besides its own, whose images a training reads."""
    return [other.name for other in others(training.obj)] if training.setting == ZERO else []


def training_name(training: Training, options: StudyOptions) -> str:
    """Return the folder name of a training."""
    suffix = "".join(
        flag.replace("--", "-").replace("_list", "") + value
        for flag, value in pairs(training.flags)
    )
    code = digest(
        training.flags,
        options.training_flags[training.setting],
        options.run_flags,
        str(options.data_path),
        weights_hash(options),
        listed_shots(options, training.obj, training.flags),
        *object_settings(training, options),
    )
    return f"{training.setting}-{training.obj}{suffix}-{code}"


def test_name(spec: CellSpec, options: StudyOptions, pictures: Sequence[str]) -> str:
    """Return the folder name of a test, below its training's folder."""
    suffix = "".join(flag.replace("--", "-") + value for flag, value in pairs(spec.flags))
    code = digest(spec.flags, list(pictures), listed_shots(options, spec.obj, spec.flags))
    return f"{spec.script}{suffix}-{code}"


def missing_input(spec: CellSpec, options: StudyOptions) -> str:
    """Return what a run needs and does not have, in words; "" if it can run."""
    try:
        weight_path(options.model_name, options.clip_path)
    except UserError:
        return "no CLIP weights"
    needed = [spec.obj]
    if options.published is None:
        needed += needed_objects(spec.training)
    data = options.data_path
    absent = [name for name in needed if not (object_folder(data, name) / "test").is_dir()]
    if absent:
        return f"no images of {', '.join(absent)}"
    if options.published is not None and (reason := missing_adapters(spec, options.published)):
        return reason
    if spec.table == "allshots":
        return "" if spec.shot else "no images in valid/ to draw from"
    flags = spec.flags if "--shot" in spec.flags else spec.training.flags
    if draws_instead(spec.obj, spec.shot, options.fewshot_path, spec.draw):
        return ""
    if spec.shot and listed_shots(options, spec.obj, flags) is None:
        return f"no list of {spec.shot} shots with draw {spec.draw}; {draw_command(spec, options)}"
    return ""


def draw_command(spec: CellSpec, options: StudyOptions) -> str:
    """Return in words which command writes every draw that a study asks for of an object."""
    drawn = {spec.shot, *(options.shots if "figure3" in options.tables else ())}
    flags = ["--obj", spec.obj, "--shots", *map(str, sorted(drawn))]
    flags += ["--draws", str(max(options.draws) + 1)]
    if options.data_path != Path("data"):
        flags += ["--data_path", str(options.data_path)]
    if options.fewshot_path != SHOT_LISTS:
        flags += ["--fewshot_path", str(options.fewshot_path)]
    replaced = ""
    if any(list_path(options.fewshot_path, spec.obj, k).exists() for k in drawn):
        flags.append("--overwrite")
        replaced = ", in place of lists that are there"
    return f"python prepare_data.py draw {shlex.join(flags)} writes it{replaced}"


def published_adapters(training: Training, folder: Path) -> Path:
    """Return the file of the authors' adapters for an object."""
    return folder / f"{training.setting}-shot" / f"{training.obj}.pth"


def missing_adapters(spec: CellSpec, folder: Path) -> str:
    """Return why the authors' adapters cannot fill a cell, in words; "" if they can.

    They were published for K = 4 and for zero-shot, trained as the released code does by default.
    """
    values = dict(pairs(spec.training.flags))
    default = set(values) <= {"--seed", "--shot", "--iterate"}
    if not default or int(values.get("--shot", PAPER_SHOT)) != PAPER_SHOT:
        return "no adapters were published for this row"
    path = published_adapters(spec.training, folder)
    return "" if path.is_file() else f"no published adapters {path}"


def picture_flags(options: StudyOptions) -> tuple[str, ...]:
    """Return the flags of every test's pictures: worst errors, and images that tests share."""
    return ("--pictures", str(options.pictures), "--picture_order", MIXED)


def jobs_of(spec: CellSpec, options: StudyOptions, root: Path) -> tuple[Job, Job]:
    """Return the training and the test of a cell; their folders are below `root`."""
    if options.published is not None:
        return published_jobs(spec, options, root)
    training = spec.training
    folder = root / training_name(training, options)
    shared = (
        "--obj",
        spec.obj,
        *options.run_flags,
        *options.neutral_flags,
        f"--save_path={folder}",
        *training.flags,
    )
    lists = (f"--fewshot_path={options.fewshot_path}",)
    train_flags = (*shared, *options.training_flags[training.setting])
    if training.setting == FEW:
        train_flags += lists
    pictures = picture_flags(options)
    test_flags = (*shared, *spec.flags, *pictures)
    if spec.script == "test_few":
        test_flags += lists
    return (
        Job(f"train_{training.setting}", train_flags, folder / "train"),
        Job(spec.script, test_flags, folder / test_name(spec, options, pictures)),
    )


def published_jobs(spec: CellSpec, options: StudyOptions, root: Path) -> tuple[Job, Job]:
    """Return the test of a cell with the authors' adapters, and a training without a script."""
    assert options.published is not None
    training = spec.training
    adapters = published_adapters(training, options.published)
    code = digest(sha256(adapters) if adapters.is_file() else None)
    folder = root / f"published-{training_name(training, options)}-{code}"
    pictures = picture_flags(options)
    flags = (
        "--obj",
        spec.obj,
        *options.run_flags,
        *options.neutral_flags,
        f"--ckpt={adapters}",
        *training.flags,
        *spec.flags,
        *pictures,
    )
    if spec.script == "test_few":
        flags += (f"--fewshot_path={options.fewshot_path}",)
    return (
        Job("", (), folder / "train"),
        Job(spec.script, flags, folder / test_name(spec, options, pictures)),
    )


def cell_result(spec: CellSpec, train: Path, test: Path, missing: str, failure: str) -> Cell:
    """Return the cell of a spec from the folders of its training and test.

    Without whole results the cell is failed with the reason `failure`, or missing with `missing`.
    """
    cell = load_cell(
        spec.table,
        spec.row,
        spec.obj,
        seed=spec.seed,
        draw=spec.draw,
        test=test,
        training=train,
    )
    if cell.state != DONE and failure:
        return replace(cell, state=FAILED, reason=failure)
    if cell.state == MISSING:
        return replace(cell, reason=missing or cell.reason)
    if cell.state == FAILED:  # its files are not whole
        return cell
    return cell if spec.branch == "both" else branch_result(cell, spec.branch)


def branch_result(cell: Cell, branch: str) -> Cell:
    """Return a done cell with the AUROCs of one branch, without details and pictures."""
    results = {
        "image_auroc": cell.measures("image", branch).get("auroc"),
        "pixel_auroc": cell.measures("pixel", branch).get("auroc"),
        "details": None,
        "pictures": None,
    }
    return replace(cell, metrics={**cell.metrics, **results}, branch=branch)
