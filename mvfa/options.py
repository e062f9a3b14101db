"""What a script was asked for: `parse(script, argv)` returns one frozen record.

A setting that cannot work is refused here, before anything loads: this module needs no torch. Flags
are in script_flags.py and shared_flags.py, their defaults in defaults.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset.intensity import Intensity
from errors import UserError
from mvfa.defaults import (
    CHECKPOINTS,
    DEFAULT_EPOCHS,
    FEW,
    ORDERS,
    OTHER_CHECKPOINTS,
    STATE_SUFFIX,
    UNUSED,
    ZERO,
)
from mvfa.method_options import check_method
from mvfa.methods.catalog import METHODS, MVFA
from mvfa.recipe import FIELDS, OWN_FLAGS, RECIPES, Recipe
from mvfa.script_flags import build_parser


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
    cache_images: bool | None
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
    cuda_graphs: bool = False
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

    @property
    def image_cache(self) -> Path | None:
        """Folder of cached decoded images; None with --cache_gb 0."""
        return self.cache_dir / "images" if self.cache_gb else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for files."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}
        plain["recipe"] = self.recipe.as_dict()
        plain["intensity"] = self.intensity and str(self.intensity)
        plain["train_objects"] = self.train_objects and list(self.train_objects)
        plain["features_list"] = list(self.features_list)
        plain["score_levels"] = list(self.score_levels)
        return plain


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
    if values.get("cache_images") and not values["cache_gb"]:
        raise UserError("--cache_images yes with --cache_gb 0, which caches nothing; leave one out")
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
