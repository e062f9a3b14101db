"""Flags of calibrate.py. No torch: help and mistakes come at once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset.catalog import known_name
from errors import UserError
from mvfa.defaults import DEFAULT_SEED, FEW, SHOT_LISTS, ZERO
from mvfa.detector_file import SUFFIX
from mvfa.flags import SEED, Flags, Parser, number
from mvfa.method_options import add_method
from mvfa.options import Options, options_of
from mvfa.recipe import LEVELS
from mvfa.shared_flags import add_machine, add_recipe, add_source, add_weights
from scans.preparation import PREPARATIONS

SCRIPTS = {FEW: "calibrate_few", ZERO: "calibrate_zero"}  # Options.script, by setting
EXAMPLES = (
    "--obj Brain --shot 4",
    "--obj Liver --shot 0 --normals my_normal_images",
    "--obj Chest --shot 8 --abnormal_shot 0",
)


def add_object(parser: Parser) -> None:
    """Add the object, its shots, and how its files are read."""
    parser.add_argument("--obj", required=True, type=known_name, help="the object (no default)")
    flags = Flags(parser, "shots")
    flags.add(
        "shot",
        "normal and abnormal shots; 0: zero-shot, without a memory bank",
        4,
        type=number(int, 0),
        metavar="K",
    )
    flags.add(
        "iterate",
        "draw of the shot list; -1 draws the shots by --seed",
        0,
        type=number(int, -1),
        metavar="D",
    )
    flags.add(
        "abnormal_shot",
        "0: normal shots only; they fill the memory bank, and the adapters are zero-shot ones",
        shown="as many as --shot",
        type=int,
        choices=[0],
    )
    add_source(parser)


def add_calibration(parser: Parser) -> None:
    """Add what the scores are calibrated with, and what is written."""
    flags = Flags(parser, "calibration")
    folder = {"type": Path, "metavar": "DIR"}
    flags.add(
        "normals",
        "calibrate with the normal images of this folder",
        shown="the images of valid/ that are no shots, else the normal shots, each left out in "
        "turn",
        **folder,
    )
    flags.add(
        "prepare",
        "how volumes are made into slices like the training images",
        shown="the object's own, for Brain and Liver, else none",
        choices=list(PREPARATIONS),
    )
    flags.add(
        "out",
        "the detector to write",
        shown=f"<obj>-<K>shot{SUFFIX}, <obj>-<K>normal{SUFFIX} or <obj>{SUFFIX} in --save_path",
        type=Path,
        metavar="FILE",
    )
    flags.add("data_path", "folder of the <obj>_AD folders", Path("data"), **folder)
    flags.add("fewshot_path", "folder of the lists <obj>/<K>-shot.txt", SHOT_LISTS, **folder)
    flags.add(
        "save_path", "folder of checkpoints", shown="ckpt/few-shot or ckpt/zero-shot", **folder
    )
    flags.add(
        "ckpt",
        "use this checkpoint, whatever it was made for",
        shown="that of test_few.py or test_zero.py",
        type=Path,
        metavar="FILE",
    )


def add_model(parser: Parser) -> None:
    """Add the backbone and how it runs."""
    flags = Flags(parser, "model")
    add_weights(flags)
    flags.add("img_size", "image side in pixels", 240, type=number(int, 1), metavar="S")
    flags.add("features_list", "blocks with adapters", LEVELS, type=int, nargs="+", metavar="BLOCK")
    add_machine(flags)
    flags.add(
        "cache_gb",
        "0: cache nothing in --cache_dir",
        8.0,
        type=number(float, 0),
        metavar="GB",
    )
    flags.add("seed", "seed of draws", DEFAULT_SEED, type=SEED)


def build_parser() -> Parser:
    """Build the parser."""
    summary = "Make a detector: adapters, memory bank, text and calibration in one file."
    parser = Parser("calibrate.py", summary, EXAMPLES)
    add_object(parser)
    add_method(parser)
    add_calibration(parser)
    add_model(parser)
    add_recipe(parser)
    return parser


def default_preparation(name: str) -> str:
    """Return how volumes of an object are made into slices: as its training images were."""
    return name if name in PREPARATIONS else PREPARATIONS[0]


def detector_name(values: dict[str, Any]) -> str:
    """Return the name of the file that is written."""
    if not values["shot"]:
        return f"{values['obj']}{SUFFIX}"
    kind = "normal" if values["abnormal_shot"] == 0 else "shot"
    return f"{values['obj']}-{values['shot']}{kind}{SUFFIX}"


def parse(argv: Sequence[str] | None = None) -> Options:
    """Return the options of calibrate.py; `detector` is the file to write. Raises UserError."""
    values = vars(build_parser().parse_args(argv))
    values["prepare"] = values["prepare"] or default_preparation(values["obj"])
    setting = FEW if values["shot"] else ZERO
    if setting == ZERO and values["abnormal_shot"] == 0:
        raise UserError("--abnormal_shot 0 needs normal shots; give --shot K, or leave it out")
    file = values.pop("out")
    name = detector_name(values)
    values |= {"out": Path(), "compile": False, "test_batch_size": None}
    options = options_of(SCRIPTS[setting], values)
    file = file or options.save_path / name
    if file.suffix != SUFFIX:
        raise UserError(f"--out {file}: the name of a detector ends in {SUFFIX}")
    return replace(options, detector=file, out=file.parent)
