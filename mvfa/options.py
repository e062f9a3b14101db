"""Flags and their defaults: the only home of both. `parse(script, argv)` gives one frozen record.

The names of the released scripts' flags are kept. A setting that cannot work is refused here, before anything loads:
this needs no torch, so that help and mistakes come at once.
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any

from CLIP.weight_files import known_models
from dataset.catalog import CATALOG, known_name
from errors import UserError
from mvfa.recipe import CHOICES, FIELDS, RECIPES, Recipe

DEFAULT_MODEL = "ViT-L-14-336"
FEW, ZERO = "few", "zero"
WHERE = {FEW: Path("ckpt/few-shot"), ZERO: Path("ckpt/zero-shot")}
PRECISIONS = ("fp32", "bf16", "fp16")
ORDERS = ("worst", "best", "random")  # of pictures
UNUSED = (
    "batch_size",
    "epoch",
    "learning_rate",
    "save_model",
)  # flags of the released test scripts
OWN_FLAGS = (
    "batch_size",
    "rate_few",
    "rate_zero",
)  # recipe fields that a flag of another kind sets


@dataclass(frozen=True)
class Options:
    """Everything a script was asked for; one field a flag, the recipe complete."""

    script: str
    obj: str
    recipe: Recipe
    recipe_name: str
    model_name: str
    clip_path: Path | None
    trust_weights: bool
    data_path: Path
    save_path: Path
    out: Path
    batch_size: int
    test_batch_size: int | None
    img_size: int
    learning_rate: float
    features_list: tuple[int, ...]
    seed: int
    device: str | None
    precision: str | None
    compile: bool
    workers: int | None
    cache_gb: float
    cache_dir: Path
    # what not every script has, as it is where the flag does not exist
    fewshot_path: Path = Path()
    shot: int = 0
    iterate: int = 0
    epoch: int = 0
    pack: bool | None = None
    save_model: int = 0
    init: Path | None = None
    ckpt: Path | None = None
    abnormal_shot: int | None = None
    score_levels: tuple[int, ...] = ()
    threshold: float | None = None
    bootstrap: int = 0
    pictures: int = 0
    picture_order: str = ORDERS[0]
    picture_scale: str = "common"

    @property
    def setting(self) -> str:
        """Few-shot or zero-shot."""
        return self.script.split("_")[1]

    @property
    def adapters_setting(self) -> str:
        """Whose adapters are used: zero-shot ones where there are normal shots only."""
        return ZERO if self.abnormal_shot == 0 else self.setting

    @property
    def run_name(self) -> str:
        """What a checkpoint is called: <obj>-<K>shot, or <obj> where the adapters are zero-shot ones."""
        return f"{self.obj}-{self.shot}shot" if self.adapters_setting == FEW else self.obj

    @property
    def checkpoint(self) -> Path:
        """Where this run's checkpoint lies."""
        return self.save_path / f"{self.run_name}.pth"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        plain = {
            k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items() if k != "recipe"
        }
        levels = {
            "features_list": list(self.features_list),
            "score_levels": list(self.score_levels),
        }
        return plain | levels | {"recipe": self.recipe.as_dict()}


def default_cache() -> Path:
    """Where caches live by the conventions of the desktop: $XDG_CACHE_HOME/mvfa, else ~/.cache/mvfa."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mvfa"


class Parser(argparse.ArgumentParser):
    """Errors as one line, exit status 2; no abbreviations, so a misspelt option is never taken for another."""

    def error(self, message: str) -> Any:
        """Raise a UserError instead of printing the usage."""
        raise UserError(f"{message} (see {self.prog} --help)")


def number(
    kind: type[int] | type[float], low: float, inclusive: bool = True, top: float = math.inf
) -> Any:
    """A converter that refuses values below `low`, above `top`, and infinite ones."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not finite")
        if value > top:
            raise argparse.ArgumentTypeError(f"{text} is not at most {top:g}")
        if not (value > low or (inclusive and value == low)):
            raise argparse.ArgumentTypeError(
                f"{text} is not {'at least' if inclusive else 'above'} {low:g}"
            )
        return value

    convert.__name__ = kind.__name__
    return convert


def truth(text: str) -> bool:
    """Yes or no as a flag's value."""
    if text.lower() not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"{text} is not yes or no")
    return text.lower() == "yes"


SEED = number(int, 0, top=2**32 - 1)  # numpy takes no larger one


def add_files(parser: Parser, setting: str) -> None:
    """What is read and written."""
    group = parser.add_argument_group("files")
    add = group.add_argument
    add(
        "--data_path",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="holds <obj>_AD folders (default: data)",
    )
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
    if setting == FEW:
        lists = Path("dataset/fewshot_seed")
        add(
            "--fewshot_path",
            type=Path,
            default=lists,
            metavar="DIR",
            help=f"holds <obj>/<K>-shot.txt (default: {lists})",
        )
    add(
        "--save_path",
        type=Path,
        metavar="DIR",
        help=f"folder of checkpoints (default: {WHERE[setting]})",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="metrics.json and scores.csv go there (default: results/<script>/<run>)",
    )


def add_model(parser: Parser) -> None:
    """The backbone and how it runs."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--model_name",
        help=f"one of {', '.join(known_models())} (default: {DEFAULT_MODEL}, or what --clip_path holds)",
    )
    add(
        "--pretrain",
        choices=["openai"],
        default="openai",
        help="whose weights: there is one choice",
    )
    add(
        "--img_size",
        type=number(int, 1),
        default=240,
        metavar="S",
        help="image side in pixels (default: 240)",
    )
    add(
        "--features_list",
        type=int,
        nargs="+",
        default=[6, 12, 18, 24],
        metavar="BLOCK",
        help="blocks with adapters",
    )
    add("--device", help="cpu, cuda, cuda:1 ... (default: cuda where there is one)")
    add(
        "--precision",
        choices=PRECISIONS,
        help="of the backbone's products (default: fp32 on a CPU, fp16 on CUDA)",
    )
    compiled = "compile the network with torch.compile; the first step of each batch size then takes a minute"
    add("--compile", type=truth, default=False, metavar="yes|no", help=f"{compiled} (default: no)")
    add(
        "--workers",
        type=number(int, 0),
        metavar="N",
        help="processes that decode images (default: by device)",
    )
    add(
        "--test_batch_size",
        type=number(int, 1),
        metavar="B",
        help="images scored at once (default: 8, on CUDA 32)",
    )
    cache = "bound on streams and images that are kept (default: 8; 0: nothing is kept, text features neither)"
    add("--cache_gb", type=number(float, 0), default=8.0, metavar="GB", help=cache)
    folder = default_cache()
    add(
        "--cache_dir",
        type=Path,
        default=folder,
        metavar="DIR",
        help=f"text features are kept there (default: {folder})",
    )
    add("--seed", type=SEED, default=111, help="of adapters, shuffling and draws (default: 111)")


def add_training(parser: Parser, rate: str) -> None:
    """What only training needs."""
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epoch", type=number(int, 1), default=50, metavar="N", help="epochs (default: 50)")
    add(
        "--batch_size",
        type=number(int, 1),
        metavar="B",
        help="images a step (default: the recipe's, 1)",
    )
    released = getattr(RECIPES["released"], rate)
    add(
        "--learning_rate",
        type=number(float, 0),
        metavar="RATE",
        help=f"of Adam (default: the recipe's, {released:g})",
    )
    packed = "pack the frozen weights for the steps: faster on an Intel CPU, for up to 3 GB with ViT-L-14-336"
    when = "yes for steps of one image on an Intel CPU with 16 GB and a torch with MKL"
    add("--pack", type=truth, metavar="yes|no", help=f"{packed} (default: {when})")
    add(
        "--save_model",
        type=int,
        choices=[0, 1],
        default=1,
        help="0: write no checkpoint (default: 1)",
    )
    add(
        "--init",
        type=Path,
        metavar="FILE",
        help="adapters to start from (default: drawn by --seed)",
    )


def add_testing(parser: Parser, setting: str) -> None:
    """What only testing has: which features are scored, what is measured and drawn."""
    group = parser.add_argument_group("scores and pictures")
    add = group.add_argument
    add("--ckpt", type=Path, metavar="FILE", help="use this checkpoint, whatever it was made for")
    if setting == FEW:
        told = "normal shots only: they fill the memory, and the adapters are zero-shot ones"
        add(
            "--abnormal_shot", type=int, choices=[0], help=f"0: {told} (default: as many as --shot)"
        )
    add(
        "--score_levels",
        type=int,
        nargs="+",
        metavar="BLOCK",
        help="score the features of these blocks only",
    )
    told = (
        "score from which on an image or a pixel, of any branch, counts as abnormal "
        "(default: for each the best for F1 on the test set, an oracle)"
    )
    add("--threshold", type=number(float, 0), metavar="T", help=told)
    add(
        "--bootstrap",
        type=number(int, 0),
        default=1_000,
        metavar="N",
        help="resamples of 95%% intervals (default: 1000)",
    )
    add(
        "--pictures",
        type=number(int, 0),
        default=0,
        metavar="N",
        help="test images that are drawn (default: 0)",
    )
    add(
        "--picture_order",
        choices=ORDERS,
        default=ORDERS[0],
        help=f"which ones (default: {ORDERS[0]})",
    )
    scale = "colours of all pictures alike, or each image's own range (default: common)"
    add("--picture_scale", choices=["common", "image"], default="common", help=scale)


def add_unused(parser: Parser) -> None:
    """Flags of the released test scripts that change nothing in a test."""
    group = parser.add_argument_group("no effect (accepted since the released scripts have them)")
    for name in UNUSED:
        group.add_argument(f"--{name}", type=float, metavar="X", help="no effect on a test")


def add_recipe(parser: Parser) -> None:
    """The recipe, and a flag for each of its fields."""
    group = parser.add_argument_group("recipe (each flag overrides one choice of the recipe)")
    group.add_argument(
        "--recipe", choices=list(RECIPES), default="released", help="(default: released)"
    )
    for name, field in FIELDS.items():
        if name in OWN_FLAGS:
            continue
        assert field.default is not MISSING
        values = " or ".join(f"{getattr(recipe, name)!s}" for recipe in RECIPES.values())
        kind = truth if isinstance(field.default, bool) else type(field.default)
        metavar = "yes|no" if kind is truth else None
        group.add_argument(
            f"--{name}", type=kind, choices=CHOICES.get(name), metavar=metavar, help=f"({values})"
        )


def build_parser(script: str) -> Parser:
    """The parser of one of the four scripts."""
    verb, setting = script.split("_")
    told = {"train": "Train the adapters", "test": "Score the test split"}[verb]
    kind = {FEW: "few-shot", ZERO: "zero-shot: trained on the other five objects"}[setting]
    parser = Parser(
        prog=f"{script}.py", description=f"{told} of MVFA ({kind}).", allow_abbrev=False
    )
    parser.add_argument(
        "--obj", required=True, type=known_name, choices=list(CATALOG), help="the object"
    )
    if setting == FEW:
        parser.add_argument(
            "--shot",
            type=number(int, 1),
            default=4,
            metavar="K",
            help="normal and abnormal shots (default: 4)",
        )
        parser.add_argument(
            "--iterate",
            type=number(int, -1),
            default=0,
            metavar="D",
            help="draw of the list; -1 draws by seed",
        )
    add_files(parser, setting)
    add_model(parser)
    if verb == "train":
        add_training(parser, f"rate_{setting}")
    else:
        add_testing(parser, setting)
        add_unused(parser)
    add_recipe(parser)
    return parser


def parse(script: str, argv: Sequence[str] | None = None) -> Options:
    """The options of `train_few`, `test_few`, `train_zero` or `test_zero`. Raises UserError for what cannot work."""
    given = vars(build_parser(script).parse_args(argv))
    setting, name = script.split("_")[1], given.pop("recipe")
    given.pop("pretrain")
    if script.startswith("test"):
        for key in UNUSED:
            given.pop(key)
    overrides = {key: given.pop(key) for key in FIELDS if key not in OWN_FLAGS}
    recipe = replace(
        RECIPES[name], **{key: value for key, value in overrides.items() if value is not None}
    )
    if given.get("batch_size"):
        recipe = replace(recipe, batch_size=given["batch_size"])
    if given.get("learning_rate") is not None:
        recipe = replace(recipe, **{f"rate_{setting}": given["learning_rate"]})
    given["batch_size"], given["learning_rate"] = (
        recipe.batch_size,
        getattr(recipe, f"rate_{setting}"),
    )
    if given["model_name"] is None and given["clip_path"] is None:
        given["model_name"] = DEFAULT_MODEL
    values: dict[str, Any] = given | {"script": script, "recipe": recipe, "recipe_name": name}
    values["features_list"] = tuple(values["features_list"])
    values["score_levels"] = tuple(values.get("score_levels") or ())
    strange = [block for block in values["score_levels"] if block not in values["features_list"]]
    if strange:
        allowed = " ".join(map(str, values["features_list"]))
        raise UserError(
            f"--score_levels {strange[0]}: no adapter follows this block; --features_list has {allowed}"
        )
    normal_only = values.get("abnormal_shot") == 0
    values["save_path"] = values["save_path"] or WHERE[ZERO if normal_only else setting]
    run = (
        f"{values['obj']}-{values['shot']}{'normal' if normal_only else 'shot'}"
        if setting == FEW
        else values["obj"]
    )
    values["out"] = values["out"] or Path("results") / script / run
    return Options(**values)
