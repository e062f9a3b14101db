"""Cells of tables to runs: which training, which test, where their results are, what is missing.

A training that several tables need is run once. Names of run folders hold a digest of everything
that changes the run's results, so a changed setting makes a new run instead of reusing an old one.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from CLIP.hashing import file_hash, sha256
from CLIP.weight_files import weight_path
from dataset.catalog import SETTINGS
from dataset.layout import object_folder
from dataset.medical_zero import others
from dataset.shots import RANDOM_DRAW, draws_instead, list_path, read_list
from errors import UserError
from mvfa.defaults import DEFAULT_MODEL, FEW, MIXED, SHOT_LISTS, ZERO
from report.cells import CellSpec, Training, pairs
from report.experiments import PAPER_SHOT, StudyOptions
from report.job import Job
from report.study import DONE, FAILED, MISSING, Cell, load_cell

WEIGHT_FLAGS = ("--model_name", "--clip_path")


def digest(*content: object) -> str:
    """Return eight hexadecimal digits that depend on JSON values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def reads_clip(training: Training) -> bool:
    """Return whether the backbone of a training and its tests is CLIP, else DINOv2."""
    return training.method.model == DEFAULT_MODEL


def weights_of(training: Training, options: StudyOptions) -> Path | None:
    """Return the file of the backbone's weights, None if it does not exist."""
    try:
        if reads_clip(training):
            return weight_path(options.model_name, options.clip_path)
        return weight_path(options.dino_model, options.dino_path)
    except UserError:
        return None


def run_flags(training: Training, options: StudyOptions) -> tuple[str, ...]:
    """Return the flags of every run that change results, with those of the training's backbone."""
    if reads_clip(training):
        return options.run_flags
    kept = [pair for pair in pairs(options.run_flags) if pair[0] not in WEIGHT_FLAGS]
    dino = zip(WEIGHT_FLAGS, (options.dino_model, options.dino_path), strict=True)
    kept += [(flag, str(value)) for flag, value in dino if value is not None]
    return tuple(part for pair in kept for part in pair)


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
    trained = training.setting == ZERO and training.trains
    return [other.name for other in others(training.obj)] if trained else []


def training_name(training: Training, options: StudyOptions) -> str:
    """Return the folder name of a training."""
    suffix = "".join(
        flag.replace("--", "-").replace("_list", "") + value
        for flag, value in pairs(training.flags)
    )
    weights = weights_of(training, options)
    code = digest(
        training.flags,
        options.training_flags[training.setting] if training.trains else (),
        run_flags(training, options),
        str(options.data_path),
        "" if weights is None else file_hash(weights),
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
    if weights_of(spec.training, options) is None:
        return f"no {'CLIP' if reads_clip(spec.training) else 'DINOv2'} weights"
    needed = [spec.obj]
    if options.published is None:
        needed += needed_objects(spec.training)
    data = options.data_path
    absent = [name for name in needed if not (object_folder(data, name) / "test").is_dir()]
    if absent:
        return f"no images of {', '.join(absent)}"
    published = options.published if spec.training.trains else None
    if published is not None and (reason := missing_adapters(spec, published)):
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
    training = spec.training
    if options.published is not None and training.trains:
        return published_jobs(spec, options, root)
    folder = root / training_name(training, options)
    shared = (
        "--obj",
        spec.obj,
        *run_flags(training, options),
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
    train = Job(f"train_{training.setting}", train_flags, folder / "train")
    return (
        train if training.trains else untrained(folder),
        Job(spec.script, test_flags, folder / test_name(spec, options, pictures)),
    )


def untrained(folder: Path) -> Job:
    """Return the training without a script, of tests in a folder for which nothing is trained."""
    return Job("", (), folder / "train")


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
        untrained(folder),
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
