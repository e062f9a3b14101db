"""Flags of reproduce.py, and the request they make. This module needs no torch."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from CLIP.weight_files import DEMO_DINO, WEIGHTS_SHOWN
from dataset.catalog import PAPER_ORDER, object_name
from errors import UserError
from mvfa.defaults import DEFAULT_MODEL, DEFAULT_SEED, FEW, SHOT_LISTS, ZERO
from mvfa.flags import SEED, Flags, Parser, cluster_option, number
from mvfa.methods.catalog import METHODS, PATCH_MEMORY
from mvfa.recipe import CHOICES, RECIPES, RECIPES_SHOWN
from mvfa.shared_flags import add_machine, add_weights
from report.experiments import SHORTCUTS, SKIN, TABLES, StudyOptions
from synthetic.settings import (
    DEMO_ROOT,
    DEPTHS,
    MODEL,
    MODEL_FLAGS,
    PLAIN,
    TRAINING_FLAGS,
    demo_root,
)

SHOTS = (2, 4, 8, 16)  # K of figure 3
PICTURES = 6  # of each run
DEMO_JOBS = 4  # at most
MOST_RUNS = 50  # seeds or draws that one number can ask for
EVERYTHING = (*TABLES, SHORTCUTS)
ROOT = Path("reproduction")
EXAMPLES = ("table1 table2 --objects Brain Liver", "all --plan")
# flags that change results: the page shows those that are not the defaults
SHOWN = (
    "depth",
    "objects",
    "shots",
    "seeds",
    "draws",
    "disjoint_cases",
    "recipe",
    "select",
    "epoch",
    "published",
)
TRAINING_ONLY = ("seeds", "recipe", "select", "epoch")  # no effect on published adapters


@dataclass(frozen=True)
class Request:
    """What reproduce.py was asked for; `command` is the command line as the page shows it."""

    options: StudyOptions
    root: Path
    plan: bool
    demo: bool
    depth: str
    cluster: str | None
    jobs: int
    cluster_options: dict[str, str | int]
    command: str

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.root / "runs"


def add_tables(parser: Parser) -> None:
    """Add what is computed: tables, objects, shots, seeds, draws."""
    flags = Flags(parser, "what to compute")
    flags.group.add_argument(
        "tables",
        nargs="+",
        choices=[*EVERYTHING, "all"],
        metavar="TABLE",
        help=f"all, or some of {' '.join(EVERYTHING)} (no default)",
    )
    several = {"nargs": "+"}
    flags.add(
        "objects",
        f"some of {' '.join(PAPER_ORDER)}, for the table skin of {' '.join(SKIN)}, and any other "
        "NAME of a folder NAME_AD in --data_path",
        list(PAPER_ORDER),
        shown="the first six",
        type=object_name,
        metavar="OBJ",
        **several,
    )
    flags.add(
        "shots",
        "numbers of shots of figure 3",
        list(SHOTS),
        shown=SHOTS,
        type=number(int, 1),
        metavar="K",
        **several,
    )
    flags.add(
        "seeds",
        f"one number: so many seeds, from {DEFAULT_SEED} upwards; several: these seeds. One run "
        "for each; tables show mean, standard deviation and range",
        [1],
        shown=1,
        type=SEED,
        metavar="SEED",
        **several,
    )
    flags.add(
        "draws",
        "one number: so many draws of the shot lists, from 0 upwards; several: these draws",
        [1],
        shown=1,
        type=number(int, 0),
        metavar="D",
        **several,
    )
    add_output(flags)


def add_output(flags: Flags) -> None:
    """Add what runs and pages show, and what they are of."""
    flags.yes_no(
        "disjoint_cases",
        "also give few-shot AUROCs without the test images of cases (patients) that gave a shot",
        False,
    )
    flags.add(
        "pictures", "test images that each run draws", PICTURES, type=number(int, 0), metavar="N"
    )
    group = flags.group.add_argument
    group("--plan", action="store_true", help="list the runs and what is missing, and stop")
    group("--demo", action="store_true", help="use synthetic images and a small stand-in for CLIP")
    flags.add(
        "depth",
        "of the demo's images: which cases and slices they are of, see demo.py --help",
        PLAIN,
        choices=DEPTHS,
    )


def add_training(parser: Parser) -> None:
    """Add how the adapters are made."""
    flags = Flags(parser, "adapters")
    flags.add(
        "recipe",
        RECIPES_SHOWN,
        "released",
        choices=list(RECIPES),
    )
    flags.add(
        "select", "which checkpoint is tested", shown="the recipe's", choices=CHOICES["select"]
    )
    flags.add(
        "epoch",
        "epochs",
        shown="50; in the demo 3, zero-shot 1",
        type=number(int, 1),
        metavar="N",
    )
    flags.add(
        "published",
        "train nothing: test the authors' adapters DIR/few-shot/<obj>.pth and "
        "DIR/zero-shot/<obj>.pth; without a value DIR is ckpt",
        shown="adapters are trained",
        type=Path,
        nargs="?",
        const=Path("ckpt"),
        metavar="DIR",
    )


def add_files(parser: Parser) -> None:
    """Add what is read and written."""
    flags = Flags(parser, "files")
    folder = {"type": Path, "metavar": "DIR"}
    flags.add(
        "root",
        "folder of runs and report",
        shown=f"{ROOT}; demo: {DEMO_ROOT}, with a --depth {demo_root('<depth>')}",
        **folder,
    )
    flags.add(
        "data_path", "folder of the <obj>_AD folders", shown="data; demo: below --root", **folder
    )
    flags.add(
        "fewshot_path",
        "folder of the lists <obj>/<K>-shot.txt",
        shown=f"{SHOT_LISTS}; demo: below --root",
        **folder,
    )


def add_model(parser: Parser) -> None:
    """Add the network, and where and how it and its jobs run."""
    flags = Flags(parser, "model and machine")
    count = {"type": number(int, 1), "metavar": "N"}
    add_weights(flags)
    flags.add(
        "dino_path",
        "weights of DINOv2, for the table rivals",
        shown=f"the file of {METHODS[PATCH_MEMORY].model} in {WEIGHTS_SHOWN}",
        type=Path,
        metavar="FILE",
    )
    flags.add("img_size", "image side in pixels", shown="240; demo: 120", **count)
    add_machine(flags)
    flags.add(
        "cluster",
        "run jobs there, with the package submitit",
        shown="this process",
        choices=["slurm", "local"],
    )
    flags.add(
        "jobs",
        "jobs that share the runs, on this machine or the cluster",
        shown=f"1; in the demo one per core, at most {DEMO_JOBS}",
        **count,
    )
    flags.add(
        "cluster_options",
        "for submitit, such as timeout_min=600",
        [],
        shown="none",
        nargs="+",
        metavar="KEY=VALUE",
    )


def build_parser() -> Parser:
    """Build the parser."""
    parser = Parser("reproduce.py", "Make the tables and figures of the paper.", EXAMPLES)
    add_tables(parser)
    add_training(parser)
    add_files(parser)
    add_model(parser)
    return parser


def given_flags(values: argparse.Namespace, *names: str) -> list[str]:
    """Return those of some flags that were given, with their values."""
    answers = {True: "yes", False: "no"}
    given = {name: getattr(values, name) for name in names}
    return [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name}", answers[value] if isinstance(value, bool) else str(value))
    ]


def default_precision(device: str | None) -> str:
    """Return the precision of the runs on a device; None means CUDA where there is one."""
    import torch  # slow, and only needed here

    from mvfa import accelerator

    return accelerator.default_precision(torch.device(device or accelerator.default_device()))


def training_flags(values: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Return the flags of trainings that change their results, by setting."""
    flags = {}
    for setting in (FEW, ZERO):
        demo = TRAINING_FLAGS[setting].split() if values.demo else ()
        flags[setting] = (*demo, *given_flags(values, "epoch", "select"))
    return flags


def run_flags(values: argparse.Namespace) -> tuple[str, ...]:
    """Return the flags of every run that change results."""
    demo = MODEL_FLAGS.split() if values.demo else []
    names = ("clip_path", "img_size") if values.demo else ("model_name", "clip_path", "img_size")
    precision = values.precision or default_precision(values.device)
    return (
        *demo,
        *given_flags(values, *names),
        *("--precision", precision),
        *("--recipe", values.recipe),
    )


def counted_or_listed(flag: str, values: Sequence[int], first: int) -> tuple[int, ...]:
    """Return the seeds or draws of a flag: N from `first` upwards for one number N, else the list.

    Values given twice count once. Raises UserError for one number that is 0 or above MOST_RUNS.
    """
    if len(values) > 1:
        return tuple(dict.fromkeys(values))
    count = values[0]
    if not 1 <= count <= MOST_RUNS:
        raise UserError(
            f"--{flag} {count}: one number says how many, 1 to {MOST_RUNS}; to name a single one, "
            f"write it twice: --{flag} {count} {count}"
        )
    return tuple(range(first, first + count))


def study_options(values: argparse.Namespace, root: Path) -> StudyOptions:
    """Return the study that the flags ask for; values given twice count once."""
    base = root if values.demo else Path()
    data_path = values.data_path or base / "data"
    lists = root / "fewshot_seed" if values.demo else SHOT_LISTS
    neutral = [
        f"--data_path={data_path}",
        f"--cache_dir={values.cache_dir}",
        *given_flags(values, "device", "workers", "cache_images"),
    ]
    model = MODEL if values.demo else values.model_name
    if model is None and values.clip_path is None:
        model = DEFAULT_MODEL
    return StudyOptions(
        tables=EVERYTHING if "all" in values.tables else tuple(values.tables),
        objects=tuple(dict.fromkeys(values.objects)),
        shots=tuple(dict.fromkeys(values.shots)),
        seeds=counted_or_listed("seeds", values.seeds, DEFAULT_SEED),
        draws=counted_or_listed("draws", values.draws, 0),
        data_path=data_path,
        fewshot_path=values.fewshot_path or lists,
        model_name=model,
        clip_path=values.clip_path,
        run_flags=run_flags(values),
        training_flags=training_flags(values),
        neutral_flags=tuple(neutral),
        pictures=values.pictures,
        published=values.published,
        disjoint_cases=values.disjoint_cases,
        dino_model=dino_model(values),
        dino_path=values.dino_path,
    )


def dino_model(values: argparse.Namespace) -> str | None:
    """Return the DINOv2 model of the table rivals; None: what --dino_path holds."""
    if values.demo:
        return DEMO_DINO
    return METHODS[PATCH_MEMORY].model if values.dino_path is None else None


def parse(argv: Sequence[str] | None) -> Request:
    """Return what the flags ask for. UserError for what cannot work, before torch is imported."""
    values = build_parser().parse_args(argv)
    cluster_options = dict(map(cluster_option, values.cluster_options))
    if values.published is not None:
        check_untrained(values)
    if values.depth != PLAIN and not values.demo:
        raise UserError(
            f"--depth {values.depth} is of the demo's images; add --demo or leave it out"
        )
    root = values.root or (demo_root(values.depth) if values.demo else ROOT)
    demo_jobs = min(os.cpu_count() or 1, DEMO_JOBS)
    return Request(
        options=study_options(values, root),
        root=root,
        plan=values.plan,
        demo=values.demo,
        depth=values.depth,
        cluster=values.cluster,
        jobs=values.jobs or (demo_jobs if values.demo else 1),
        cluster_options=cluster_options,
        command=command_line(values),
    )


def changed(values: argparse.Namespace, names: Sequence[str]) -> dict[str, object]:
    """Return those of some flags whose values are not the defaults."""
    defaults = build_parser().parse_args(["all"])
    return {
        name: getattr(values, name)
        for name in names
        if getattr(values, name) != getattr(defaults, name)
    }


def check_untrained(values: argparse.Namespace) -> None:
    """Raise UserError for flags of trainings that are given together with --published."""
    if values.demo:
        raise UserError("--published tests the authors' adapters on real images; leave out --demo")
    useless = changed(values, TRAINING_ONLY)
    if useless:
        raise UserError(
            f"--published trains nothing, so --{next(iter(useless))} has no effect; leave it out"
        )


def command_line(values: argparse.Namespace) -> str:
    """Return the command as the page shows it: the flags that change results."""
    parts = ["python reproduce.py", *(["--demo"] if values.demo else []), *values.tables]
    words = {True: "yes", False: "no"}
    for name, value in changed(values, SHOWN).items():
        several = value if isinstance(value, list) else [value]
        texts = [words[one] if isinstance(one, bool) else str(one) for one in several]
        parts.append(f"--{name} {' '.join(texts)}")
    return " ".join(parts)
