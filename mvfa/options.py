"""Flags and their defaults: the only home of both. `parse(script, argv)` returns one frozen record.

The flags of the released scripts keep their names. A setting that cannot work is refused here,
before anything loads: this module needs no torch, so help and mistakes come at once.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from CLIP.weight_files import WEIGHTS_SHOWN, known_models
from dataset.catalog import CATALOG, MASK_RULES, object_name, object_noun
from dataset.intensity import Intensity, intensity
from errors import UserError
from mvfa.flags import SEED, Flags, Parser, number, truth
from mvfa.method_options import add_method, check_method
from mvfa.methods.catalog import MADCLIP, METHODS, MVFA
from mvfa.recipe import (
    APRIL_GAN,
    CHOICES,
    FIELDS,
    LEVELS,
    OWN_FLAGS,
    RECIPES,
    RECIPES_SHOWN,
    Recipe,
)

DEFAULT_MODEL = METHODS[MVFA].model
DEFAULT_EPOCHS = 50
DEFAULT_SEED = 111
LARGEST_WEIGHT = 1e6  # of the recipe: no product of a few is infinite
# how a number of the recipe is read
WEIGHT: dict[str, Any] = {
    "type": number(float, -LARGEST_WEIGHT, top=LARGEST_WEIGHT),
    "metavar": "X",
}
STATE_SUFFIX = ".state"  # of an unfinished training, beside its checkpoint
DEFAULT_RESAMPLES = 1_000  # of bootstrap intervals
FEW = "few"
ZERO = "zero"
CHECKPOINTS = {FEW: Path("ckpt/few-shot"), ZERO: Path("ckpt/zero-shot")}  # of MVFA
OTHER_CHECKPOINTS = {name: Path("ckpt") / name for name in METHODS if name != MVFA}
SHOT_LISTS = Path("dataset/fewshot_seed")
PRECISIONS = ("fp32", "bf16", "fp16")
ORDERS = ("worst", "best", "random")  # of pictures
MIXED = "mixed"  # some of the worst, and some random ones
UNUSED = ("batch_size", "epoch", "learning_rate", "save_model")  # of the released test scripts
EXAMPLES = {
    "train_few": ("--obj Brain --shot 4", "--obj Brain --shot 4 --select valid --seed 112"),
    "test_few": ("--obj Brain --shot 4", "--obj Brain --shot 4 --abnormal_shot 0 --pictures 20"),
    "train_zero": ("--obj Liver", "--obj Liver --recipe paper --save_path ckpt/paper"),
    "test_zero": ("--obj Liver", "--obj Liver --ckpt ckpt/zero-shot/Liver.pth --pictures 20"),
}


@dataclass(frozen=True)
class Options:
    """Everything a script was asked for: one field a flag, and the complete recipe."""

    script: str
    obj: str
    recipe: Recipe
    recipe_name: str
    method: str
    model_name: str
    clip_path: Path | None
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
    noun: str | None = None
    mask_rule: str | None = None
    intensity: Intensity | None = None
    # defaults of flags that some scripts do not have
    fewshot_path: Path = Path()
    shot: int = 0
    iterate: int = 0
    epoch: int = 0
    train_objects: tuple[str, ...] | None = None
    pack: bool | None = None
    save_model: int = 0
    init: Path | None = None
    resume: bool = True
    ckpt: Path | None = None
    abnormal_shot: int | None = None
    score_levels: tuple[int, ...] = ()
    disjoint_cases: bool = False
    calibrated: bool = False
    threshold: float | None = None
    bootstrap: int = 0
    pictures: int = 0
    picture_order: str = ORDERS[0]
    picture_scale: str = "common"
    page: bool = False
    # of single methods
    rotate: bool | None = None
    contrast: bool = True
    # of calibrate.py
    normals: Path | None = None
    prepare: str = "none"
    detector: Path = Path()

    @property
    def setting(self) -> str:
        """Few-shot or zero-shot."""
        return self.script.split("_")[1]

    @property
    def adapters_setting(self) -> str:
        """Setting whose adapters are used: zero-shot where there are normal shots only."""
        return ZERO if self.abnormal_shot == 0 else self.setting

    @property
    def run_name(self) -> str:
        """Name of the checkpoint: <obj>-<K>shot, or <obj> for zero-shot adapters."""
        return f"{self.obj}-{self.shot}shot" if self.adapters_setting == FEW else self.obj

    @property
    def checkpoint(self) -> Path:
        """File of this run's checkpoint."""
        return self.save_path / f"{self.run_name}.pth"

    @property
    def state(self) -> Path:
        """File that this training goes on from if it is stopped."""
        return self.checkpoint.with_suffix(STATE_SUFFIX)

    @property
    def text_cache(self) -> Path | None:
        """Folder of cached text features; None with --cache_gb 0."""
        return self.cache_dir / "text" if self.cache_gb else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for files."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}
        plain["recipe"] = self.recipe.as_dict()
        plain["intensity"] = self.intensity and str(self.intensity)
        plain["train_objects"] = self.train_objects and list(self.train_objects)
        plain["features_list"] = list(self.features_list)
        plain["score_levels"] = list(self.score_levels)
        return plain


def default_cache() -> Path:
    """Return the user's cache folder for this program, by the conventions of the system.

    For a user without a home, as in some containers, it is below the current folder.
    """
    with suppress(RuntimeError):  # older versions return a path that begins with ~ instead
        if (path := user_cache_path("mvfa", appauthor=False)).is_absolute():
            return path
    return Path(".cache", "mvfa")


def add_weights(flags: Flags) -> None:
    """Add which CLIP weights are read."""
    flags.add(
        "model_name",
        f"one of {', '.join(known_models())}",
        shown=f"{DEFAULT_MODEL}, or what --clip_path holds",
    )
    flags.add(
        "clip_path",
        "weights of the backbone: CLIP's, DINOv2's with --method patch_memory",
        shown=f"the model's file in {WEIGHTS_SHOWN}",
        type=Path,
        metavar="FILE",
    )


def add_machine(flags: Flags) -> None:
    """Add where and how the network runs."""
    flags.add("device", "cpu, cuda, cuda:1, mps ...", shown="cuda where there is one, else cpu")
    flags.add(
        "precision",
        "number type of the backbone's matrix products",
        shown="fp16 on CUDA, else fp32",
        choices=PRECISIONS,
    )
    flags.add(
        "workers",
        "processes that decode images",
        shown="4 on CUDA, else 0",
        type=number(int, 0),
        metavar="N",
    )
    flags.add(
        "cache_dir", "folder of cached text features", default_cache(), type=Path, metavar="DIR"
    )


def add_files(parser: Parser, setting: str) -> None:
    """Add what is read and written."""
    flags = Flags(parser, "files")
    folder = {"type": Path, "metavar": "DIR"}
    flags.add("data_path", "folder of the <obj>_AD folders", Path("data"), **folder)
    if setting == FEW:
        flags.add("fewshot_path", "folder of the lists <obj>/<K>-shot.txt", SHOT_LISTS, **folder)
    flags.add(
        "save_path",
        "folder of checkpoints",
        shown=f"{CHECKPOINTS[setting]}, of other methods ckpt/<method>",
        **folder,
    )
    flags.add(
        "out",
        "folder of metrics.json, curves.json, scores.csv and pictures",
        shown="results/<script>/<run>",
        **folder,
    )


def add_model(parser: Parser) -> None:
    """Add the backbone and how it runs."""
    flags = Flags(parser, "model")
    add_weights(flags)
    flags.add("pretrain", "CLIP weights; there is one choice", "openai", choices=["openai"])
    flags.add("img_size", "image side in pixels", 240, type=number(int, 1), metavar="S")
    flags.add("features_list", "blocks with adapters", LEVELS, type=int, nargs="+", metavar="BLOCK")
    add_machine(flags)
    flags.yes_no(
        "compile",
        "compile the network with torch.compile; the first step of each batch size takes a minute",
        False,
    )
    flags.add(
        "test_batch_size",
        "images scored at once; it changes no score",
        shown="32 on CUDA, else 8",
        type=number(int, 1),
        metavar="B",
    )
    flags.add(
        "cache_gb",
        "bound on cached features and images; 0 caches nothing, no text features either",
        8.0,
        type=number(float, 0),
        metavar="GB",
    )
    flags.add("seed", "seed of adapters, shuffling and draws", DEFAULT_SEED, type=SEED)


def add_source(parser: Parser) -> None:
    """Add what the object is called and how its files are read."""
    flags = Flags(parser, "the object (for each flag object.toml in its folder has a key)")
    flags.add(
        "noun",
        "stands for the object in the sentences, as in 'damaged Brain'",
        shown="the catalog's, else the object's name",
        type=object_noun,
        metavar="WORDS",
    )
    flags.add(
        "mask_rule",
        "foreground of masks; half: grey values above 127, any: above 0, for masks of 0 and 1",
        shown="half",
        choices=MASK_RULES,
    )
    flags.add(
        "intensity",
        "how values of more than 8 bit become 8 bit: auto (a DICOM file's window, else minmax), "
        "minmax (each image's own range), full (the range of the type) or LOW:HIGH, as -200:250",
        shown="auto",
        type=intensity,
        metavar="RULE",
    )


def add_training(parser: Parser, rate: str) -> None:
    """Add what only training needs."""
    flags = Flags(parser, "training")
    if rate == "rate_zero":
        flags.add(
            "train_objects",
            "objects whose test splits are trained on, never --obj itself",
            shown="the benchmark's six without --obj",
            type=object_name,
            nargs="+",
            metavar="OBJ",
        )
    flags.add(
        "epoch",
        "epochs",
        shown=f"{DEFAULT_EPOCHS}, madclip {METHODS[MADCLIP].defaults['epoch']}",
        type=number(int, 1),
        metavar="N",
    )
    flags.add(
        "batch_size",
        "images of a training step",
        shown=f"the recipe's, 1, madclip {METHODS[MADCLIP].defaults['batch_size']}",
        type=number(int, 1),
        metavar="B",
    )
    flags.add(
        "learning_rate",
        "Adam's learning rate",
        shown=f"the recipe's, {getattr(RECIPES['released'], rate):g}",
        type=number(float, 0),
        metavar="RATE",
    )
    flags.yes_no(
        "pack",
        "pack the frozen weights for the training steps: faster on an Intel CPU, for up to 3 GB "
        f"with {DEFAULT_MODEL}",
        None,
        shown="yes for steps of one image on an Intel CPU with 16 GB and a torch with MKL",
    )
    flags.add("save_model", "0: write no checkpoint", 1, type=int, choices=[0, 1])
    flags.add("init", "adapters to start from", shown="drawn by --seed", type=Path, metavar="FILE")
    flags.yes_no(
        "resume",
        "go on where the same command was stopped, from <run>.state in --save_path",
        True,
    )


def add_testing(parser: Parser, setting: str) -> None:
    """Add what only testing has: which features are scored, what is measured and drawn."""
    flags = Flags(parser, "scores and pictures")
    flags.add(
        "ckpt",
        "use this checkpoint, whatever it was made for",
        shown="<obj>-<K>shot.pth, <obj>.pth or <obj>_<K>.pth in --save_path"
        if setting == FEW
        else "<obj>.pth in --save_path",
        type=Path,
        metavar="FILE",
    )
    if setting == FEW:
        flags.add(
            "abnormal_shot",
            "0: normal shots only; they fill the memory bank, and the adapters are zero-shot ones",
            shown="as many as --shot",
            type=int,
            choices=[0],
        )
    flags.add(
        "score_levels",
        "score the features of these blocks only",
        shown="all of --features_list",
        type=int,
        nargs="+",
        metavar="BLOCK",
    )
    flags.add(
        "threshold",
        "scores at or above T count as abnormal, of images and pixels, in every branch",
        shown="for each the best for F1 on the test set, an oracle",
        type=number(float, 0),
        metavar="T",
    )
    if setting == FEW:
        flags.yes_no(
            "calibrated",
            "also give the AUROCs of scores that are scaled by constants of images that are not "
            "tested, as a detector's are",
            True,
        )
    text = "also give the AUROCs without the test images of cases (patients) that gave a shot"
    text += "" if setting == FEW else "; zero-shot there are none, so yes is refused"
    flags.yes_no("disjoint_cases", text, False)
    add_outputs(flags)


def add_outputs(flags: Flags) -> None:
    """Add what a test writes beside its scores."""
    flags.add(
        "bootstrap",
        "resamples of 95 % intervals",
        DEFAULT_RESAMPLES,
        type=number(int, 0),
        metavar="N",
    )
    flags.add("pictures", "test images to draw", 0, type=number(int, 0), metavar="N")
    flags.add(
        "picture_order",
        "which ones; worst and best take normal and abnormal images in turn; mixed: half the "
        "worst, half random",
        ORDERS[0],
        choices=(*ORDERS, MIXED),
    )
    flags.add(
        "picture_scale",
        "common: the same colours in all pictures; image: each image's own range",
        "common",
        choices=["common", "image"],
    )
    flags.yes_no(
        "page",
        "also write index.html, a page of this run that needs no other file and no network",
        False,
    )


def add_unused(parser: Parser) -> None:
    """Add flags of the released test scripts that change nothing in a test."""
    group = parser.add_argument_group("no effect (accepted since the released scripts have them)")
    for name in UNUSED:
        group.add_argument(f"--{name}", type=float, metavar="X", help="no effect on a test")


def add_recipe(parser: Parser) -> None:
    """Add the recipe, and a flag for each of its fields."""
    flags = Flags(parser, "recipe (each flag overrides one choice of the recipe)")
    flags.add(
        "recipe",
        RECIPES_SHOWN,
        "released",
        choices=list(RECIPES),
    )
    for name, field in FIELDS.items():
        if name in OWN_FLAGS:
            continue
        values = {recipe: getattr(value, name) for recipe, value in RECIPES.items()}
        if values[APRIL_GAN] == values["released"]:
            del values[APRIL_GAN]
        if isinstance(field.default, bool):
            more: dict[str, Any] = {"type": truth, "metavar": "yes|no"}
            values = {recipe: "yes" if value else "no" for recipe, value in values.items()}
        else:
            more = {"type": str, "choices": CHOICES[name]} if name in CHOICES else WEIGHT
        shown = ", ".join(f"{recipe} {value}" for recipe, value in values.items())
        flags.add(name, field.metadata["help"], shown=shown, **more)


def build_parser(script: str) -> Parser:
    """Build the parser of one of the four scripts."""
    verb, setting = script.split("_")
    action = {"train": "Train the adapters", "test": "Score the test split"}[verb]
    kind = {FEW: "few-shot", ZERO: "zero-shot: trained on other objects"}[setting]
    parser = Parser(f"{script}.py", f"{action} of MVFA ({kind}).", EXAMPLES[script])
    parser.add_argument(
        "--obj",
        required=True,
        type=object_name,
        metavar="OBJ",
        help=f"the object: {', '.join(CATALOG)}, or any other name NAME of a folder NAME_AD in "
        "--data_path (no default)",
    )
    add_source(parser)
    add_method(parser)
    if setting == FEW:
        flags = Flags(parser, "shots")
        flags.add("shot", "normal and abnormal shots", 4, type=number(int, 1), metavar="K")
        flags.add(
            "iterate",
            "draw of the shot list; -1 draws the shots by --seed",
            0,
            type=number(int, -1),
            metavar="D",
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


def chosen_recipe(values: dict[str, Any], setting: str) -> Recipe:
    """Take the recipe and its overriding flags out of `values`; return the complete recipe.

    A method's own defaults come before the recipe's, after flags.
    """
    recipe = RECIPES[values["recipe_name"]]
    overrides = {name: values.pop(name) for name in FIELDS if name not in OWN_FLAGS}
    defaults = METHODS[values["method"]].defaults
    for flag, name in (("batch_size", "batch_size"), ("learning_rate", f"rate_{setting}")):
        given = values.pop(flag, None)
        overrides[name] = defaults.get(flag) if given is None else given
    return replace(recipe, **{name: v for name, v in overrides.items() if v is not None})


def parse(script: str, argv: Sequence[str] | None = None) -> Options:
    """Return the options of `train_few`, `test_few`, `train_zero` or `test_zero`.

    Raises UserError for what cannot work.
    """
    values = vars(build_parser(script).parse_args(argv))
    setting = script.split("_")[1]
    del values["pretrain"]
    if script.startswith("test"):
        for name in UNUSED:
            del values[name]
    if setting == ZERO and values.get("disjoint_cases"):
        raise UserError(
            f"--disjoint_cases yes: zero-shot tests have no shots of {values['obj']}, whose cases "
            "could be left out; leave the flag out, or use test_few.py"
        )
    if values.get("train_objects"):
        values["train_objects"] = training_names(values["train_objects"], values["obj"])
    run = values["obj"]
    if setting == FEW:
        run += f"-{values['shot']}{'normal' if values.get('abnormal_shot') == 0 else 'shot'}"
    if values["method"] != MVFA:
        run += f"-{values['method']}"
    values["out"] = values["out"] or Path("results") / script / run
    return options_of(script, values)


def options_of(script: str, values: dict[str, Any]) -> Options:
    """Return the options of a script from the values of its flags. Raises UserError."""
    setting = script.split("_")[1]
    method = values["method"]
    check_method(script, values)
    values["contrast"] = values.pop("contrast_mood")
    values["epoch"] = values.get("epoch") or METHODS[method].defaults.get("epoch", DEFAULT_EPOCHS)
    values["recipe_name"] = values.pop("recipe")
    recipe = chosen_recipe(values, setting)
    values["batch_size"] = recipe.batch_size
    values["learning_rate"] = getattr(recipe, f"rate_{setting}")
    if values["model_name"] is None and values["clip_path"] is None:
        values["model_name"] = METHODS[method].model
    values["features_list"] = tuple(values["features_list"])
    values["score_levels"] = tuple(values.get("score_levels") or ())
    check_score_levels(values["score_levels"], values["features_list"])
    adapters = ZERO if values.get("abnormal_shot") == 0 else setting
    own = CHECKPOINTS[adapters] if method == MVFA else OTHER_CHECKPOINTS[method]
    values["save_path"] = values["save_path"] or own
    return Options(script=script, recipe=recipe, **values)


def training_names(names: Sequence[str], target: str) -> tuple[str, ...]:
    """Return the objects to train on, each once. Raises UserError if the target is among them."""
    if target in names:
        raise UserError(
            f"--train_objects {target}: zero-shot adapters never see the object of --obj; "
            "leave it out"
        )
    return tuple(dict.fromkeys(names))


def check_score_levels(scored: Sequence[int], levels: Sequence[int]) -> None:
    """Raise UserError for blocks to score that have no adapter or are named twice."""
    if len(set(scored)) < len(scored):
        raise UserError("--score_levels names a block twice; name each once")
    wrong = [block for block in scored if block not in levels]
    if wrong:
        allowed = " ".join(map(str, levels))
        raise UserError(
            f"--score_levels {wrong[0]}: no adapter follows this block; "
            f"--features_list has {allowed}"
        )
