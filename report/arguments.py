"""Flags of reproduce.py, and what they ask for."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dataset.catalog import known_name
from errors import UserError
from mvfa.options import (
    DEFAULT_MODEL,
    FEW,
    PRECISIONS,
    SEED,
    ZERO,
    Parser,
    default_cache,
    number,
    truth,
)
from mvfa.recipe import CHOICES, RECIPES
from report.plan import SKIN, TABLES, Wanted
from report.study import OBJECTS

SHOTS = (2, 4, 8, 16)  # of figure 3
PICTURES = 6  # an object
CHOSEN = (
    "objects",
    "shots",
    "seeds",
    "draws",
    "recipe",
    "select",
    "epoch",
    "published",
)  # told on the page
DEMO_JOBS = 4  # at most
DEMO_ROOT, ROOT = Path("demo"), Path("reproduction")
# what a demo run is given beside the demo's own model and training flags
DEMO_STEERING = {
    FEW: "--epoch 3 --batch_size 8",
    ZERO: "--epoch 1 --batch_size 8 --learning_rate 3e-3",
}


@dataclass(frozen=True)
class Request:
    """What reproduce.py was asked for; `told` is the command as the page tells it."""

    wanted: Wanted
    root: Path
    plan: bool
    demo: bool
    cluster: str | None
    jobs: int
    cluster_options: dict[str, str | int]
    told: str

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.root / "runs"


def build_parser() -> Parser:
    """The parser."""
    parser = Parser(
        prog="reproduce.py", description="Make the tables and figures.", allow_abbrev=False
    )
    add = parser.add_argument
    objects = (
        f"of {' '.join(OBJECTS)}, and for the table skin {' '.join(SKIN)} (default: the first six)"
    )
    add(
        "tables",
        nargs="+",
        choices=[*TABLES, "all"],
        metavar="TABLE",
        help=f"all, or some of {' '.join(TABLES)}",
    )
    add(
        "--objects",
        nargs="+",
        type=known_name,
        choices=[*OBJECTS, *SKIN],
        default=list(OBJECTS),
        metavar="OBJ",
        help=objects,
    )
    add(
        "--shots",
        nargs="+",
        type=number(int, 1),
        default=list(SHOTS),
        metavar="K",
        help="of figure 3 (2 4 8 16)",
    )
    add(
        "--seeds",
        nargs="+",
        type=SEED,
        default=[111],
        metavar="SEED",
        help="a run for each (default: 111)",
    )
    add(
        "--draws",
        nargs="+",
        type=number(int, 0),
        default=[0],
        metavar="D",
        help="of the shot lists (default: 0)",
    )
    add("--recipe", choices=list(RECIPES), default="released", help="(default: released)")
    add(
        "--select",
        choices=CHOICES["select"],
        help="which checkpoint is tested (default: the recipe's)",
    )
    add(
        "--epoch",
        type=number(int, 1),
        metavar="N",
        help="epochs (default: 50; in the demo 3, zero-shot 1)",
    )
    add(
        "--pictures",
        type=number(int, 0),
        default=PICTURES,
        metavar="N",
        help=f"a run (default: {PICTURES})",
    )
    published = "test the authors' adapters DIR/few-shot/<obj>.pth and DIR/zero-shot/<obj>.pth; train nothing"
    add(
        "--published",
        type=Path,
        nargs="?",
        const=Path("ckpt"),
        metavar="DIR",
        help=f"{published} (DIR: ckpt)",
    )
    add("--plan", action="store_true", help="list what would run and what it lacks, and stop")
    add(
        "--demo",
        action="store_true",
        help="on synthetic images and a small stand-in for CLIP, which are made first",
    )
    add(
        "--root",
        type=Path,
        metavar="DIR",
        help=f"of runs and report (default: {ROOT}; in the demo {DEMO_ROOT})",
    )
    add("--data_path", type=Path, metavar="DIR", help="holds <obj>_AD folders (default: data)")
    add(
        "--fewshot_path",
        type=Path,
        metavar="DIR",
        help="holds <obj>/<K>-shot.txt (default: dataset/fewshot_seed)",
    )
    add("--model_name", help=f"(default: {DEFAULT_MODEL}, or what --clip_path holds)")
    add(
        "--clip_path",
        type=Path,
        metavar="FILE",
        help="CLIP weights (default: the model's file in CLIP/ckpt)",
    )
    trusted = (
        "load a TorchScript file that is not a published one: it runs code that the file holds"
    )
    add(
        "--trust_weights",
        type=truth,
        default=False,
        metavar="yes|no",
        help=f"{trusted} (default: no)",
    )
    add("--img_size", type=number(int, 1), metavar="S", help="image side in pixels (default: 240)")
    add("--device", help="cpu, cuda, cuda:1 ... (default: cuda where there is one)")
    add(
        "--precision",
        choices=PRECISIONS,
        help="of the backbone's products (default: fp32 on a CPU, fp16 on CUDA)",
    )
    add(
        "--workers",
        type=number(int, 0),
        metavar="N",
        help="processes that decode images (default: by device)",
    )
    add(
        "--cache_dir",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="text features are kept there",
    )
    add("--cluster", choices=["slurm", "local"], help="where jobs run, by submitit (default: here)")
    told = "that share the work, here or on the cluster (default: 1; in the demo one a core, at most 4)"
    add("--jobs", type=number(int, 1), metavar="J", help=f"jobs {told}")
    add(
        "--cluster_options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="for submitit, as timeout_min=600",
    )
    return parser


def pair(text: str) -> tuple[str, str | int]:
    """KEY=VALUE, a whole number where it is one. UserError for anything else."""
    key, sign, value = text.partition("=")
    if not (key and sign and value):
        build_parser().error(f"--cluster_options {text}: allowed is KEY=VALUE")
    return key, int(value) if value.isdigit() else value


def flags(given: argparse.Namespace, *names: str) -> list[str]:
    """Those of some flags that were given, with their values."""
    return [
        part
        for name in names
        if getattr(given, name) is not None
        for part in (f"--{name}", str(getattr(given, name)))
    ]


def precision(given: argparse.Namespace) -> str:
    """The precision that the runs will have; it is part of what tells runs apart."""
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return given.precision or ("fp16" if device.startswith("cuda") else "fp32")


def steering(given: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """The flags of trainings that change their results, by setting."""
    found: dict[str, tuple[str, ...]] = {}
    for setting in (FEW, ZERO):
        found[setting] = (
            *(DEMO_STEERING[setting].split() if given.demo else ()),
            *flags(given, "epoch", "select"),
        )
    return found


def parse(argv: Sequence[str] | None, model: str) -> Request:
    """What the flags ask for; `model` are the demo's own flags of the network. UserError for what cannot work."""
    given = build_parser().parse_args(argv)
    root = given.root or (DEMO_ROOT if given.demo else ROOT)
    data = given.data_path or (root / "data" if given.demo else Path("data"))
    lists = given.fewshot_path or (
        root / "fewshot_seed" if given.demo else Path("dataset/fewshot_seed")
    )
    name = (
        model.split()[model.split().index("--model_name") + 1] if given.demo else given.model_name
    )
    shared = model.split() if given.demo else []
    model_flags = (
        ("clip_path", "img_size") if given.demo else ("model_name", "clip_path", "img_size")
    )
    shared += [
        *flags(given, *model_flags),
        "--precision",
        precision(given),
        "--recipe",
        given.recipe,
    ]
    if given.published is not None:
        check_untrained(given)
    places = [
        f"--data_path={data}",
        f"--cache_dir={given.cache_dir}",
        *flags(given, "device", "workers"),
    ]
    places += ["--trust_weights=yes"] if given.trust_weights else []
    tables = TABLES if "all" in given.tables else tuple(given.tables)
    wanted = Wanted(
        tables=tables,
        objects=tuple(given.objects),
        shots=tuple(dict.fromkeys(given.shots)),  # one asked for twice would count as two runs
        seeds=tuple(dict.fromkeys(given.seeds)),
        draws=tuple(dict.fromkeys(given.draws)),
        data_path=data,
        fewshot_path=lists,
        model_name=name if name or given.clip_path else DEFAULT_MODEL,
        clip_path=given.clip_path,
        steering=steering(given),
        shared=tuple(shared),
        places=tuple(places),
        pictures=given.pictures,
        published=given.published,
    )
    told = [f"--{key} {' '.join(map(str, value))}" for key, value in chosen(given).items()]
    return Request(
        wanted=wanted,
        root=root,
        plan=given.plan,
        demo=given.demo,
        cluster=given.cluster,
        jobs=given.jobs or (min(os.cpu_count() or 1, DEMO_JOBS) if given.demo else 1),
        cluster_options=dict(map(pair, given.cluster_options)),
        told=" ".join(
            ["python reproduce.py", *(["--demo"] if given.demo else []), *given.tables, *told]
        ),
    )


def check_untrained(given: argparse.Namespace) -> None:
    """Raise UserError for flags that steer trainings, given together with --published."""
    default = build_parser().parse_args(["all"])
    steered = [
        name
        for name in ("seeds", "recipe", "select", "epoch")
        if getattr(given, name) != getattr(default, name)
    ]
    if given.demo:
        raise UserError("--published tests the authors' adapters on real images; leave out --demo")
    if steered:
        raise UserError(
            f"--published trains nothing, so --{steered[0]} has no effect; leave it out"
        )


def chosen(given: argparse.Namespace) -> dict[str, list[object]]:
    """What the page says of the command: the flags that change results, where they are not the defaults."""
    asked = {name: getattr(given, name) for name in CHOSEN}
    default = build_parser().parse_args(["all"])
    return {
        k: v if isinstance(v, list) else [v] for k, v in asked.items() if v != getattr(default, k)
    }
