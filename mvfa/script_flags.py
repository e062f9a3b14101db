"""The flags of the four scripts, and their parsers. No torch: help and mistakes come at once.

The flags of the released scripts keep their names.
"""

from pathlib import Path

from dataset.catalog import CATALOG, object_name
from mvfa.defaults import (
    CHECKPOINTS,
    DEFAULT_EPOCHS,
    DEFAULT_MODEL,
    DEFAULT_RESAMPLES,
    DEFAULT_SEED,
    EXAMPLES,
    FEW,
    MIXED,
    ORDERS,
    SHOT_LISTS,
    UNUSED,
    ZERO,
)
from mvfa.flags import SEED, Flags, Parser, number
from mvfa.method_options import add_method
from mvfa.methods.catalog import MADCLIP, METHODS
from mvfa.recipe import LEVELS, RECIPES
from mvfa.shared_flags import add_machine, add_recipe, add_source, add_weights


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
        "bound on features and images cached for the run; 0 caches nothing, in --cache_dir neither",
        8.0,
        type=number(float, 0),
        metavar="GB",
    )
    flags.add("seed", "seed of adapters, shuffling and draws", DEFAULT_SEED, type=SEED)


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
    flags.yes_no(
        "cuda_graphs",
        "capture the kernels of a step of one image once and launch them together: for a GPU that "
        "waits for the CPU; MVFA's steps only",
        False,
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
