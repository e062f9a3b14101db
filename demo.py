"""Run everything without any download: on synthetic images, with a small stand-in for CLIP.

    python demo.py

Data, shot lists, checkpoints, results, table.md and detectors, for predict.py and app.py, are
written below --root. The numbers are of synthetic images and of a backbone that has learned
nothing: they show that the program works, not how well the method does.
"""

from mvfa.process import guard_imports

if __name__ == "__main__":
    guard_imports()  # a script that is stopped or has too little memory ends with one line

import argparse
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from dataset.catalog import PAPER_ORDER
from errors import UserError
from mvfa.cli import command
from mvfa.defaults import CHECKPOINTS, DEFAULT_SEED, FEW, ZERO
from mvfa.flags import SEED, Flags, Parser
from synthetic.settings import (
    DEMO_ROOT,
    DEPTHS,
    MODEL_FLAGS,
    PLAIN,
    TRAINING_FLAGS,
    demo_root,
)

if TYPE_CHECKING:
    from mvfa.evaluation import Evaluation

SHOTS = (2, 4, 8, 16)  # the lists that are written
TABLE = "table.md"
FOLDERS = ("fewshot_seed", "data")  # data is moved into place last
LABEL = (
    "Demo figures, of synthetic images and a backbone that was never trained: they show that the "
    "program runs from end to end, and say nothing about the accuracy of the method."
)
UNITS = (
    "Image AUROC / pixel AUROC in percent; objects without masks have no pixel AUROC. "
    "Research software, not a medical device."
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    examples = ("", "--objects Brain Chest --shot 2 --root /tmp/demo", "--depth planted")
    parser = Parser("demo.py", "Run everything on synthetic images.", examples)
    flags = Flags(parser, "demo")
    shown = f"{DEMO_ROOT}; with a --depth {demo_root('<depth>')}"
    flags.add("root", "everything is written there", shown=shown, type=Path, metavar="DIR")
    flags.add("objects", "which ones", PAPER_ORDER, nargs="+", choices=PAPER_ORDER, metavar="OBJ")
    flags.add("shot", "normal and abnormal images to learn from", 4, type=int, choices=SHOTS)
    flags.add("seed", "of adapters and shuffling", DEFAULT_SEED, type=SEED)
    add_depth(flags)
    options = parser.parse_args(argv)
    options.root = options.root or demo_root(options.depth)
    return options


def add_depth(flags: Flags) -> None:
    """Add which cases and slices the images are of."""
    flags.add(
        "depth",
        "names of the images; none: numbers; random: <case>_<slice>; planted: also, and abnormal "
        "slices lie in the middle, so that names alone tell the label",
        PLAIN,
        choices=DEPTHS,
    )


def prepare(root: Path, depth: str = PLAIN) -> None:
    """Write the weights, and the images unless they exist: all of them or none.

    Raises UserError if some of them exist, or all with another depth.
    """
    from synthetic.anatomy import PAINTERS
    from synthetic.dino import write_demo_dino
    from synthetic.images import depth_of, write_demo
    from synthetic.network import write_demo_weights
    from utils import part_of, sweep

    sweep(root)
    write_demo_weights()  # always: it takes two seconds, and an older program's file would not fit
    write_demo_dino()
    existing = [name for name in FOLDERS if (root / name).exists()]
    if existing == list(FOLDERS):
        if depth_of(root / "data") != depth:
            raise UserError(
                f"{root} holds a demo of --depth {depth_of(root / 'data')}, not {depth}; choose "
                "another --root"
            )
        return
    if FOLDERS[-1] in existing:
        raise not_a_demo_set(root / FOLDERS[-1])
    print(f"painting the images of {len(PAINTERS)} objects into {root}", flush=True)
    with part_of(root / FOLDERS[-1]) as part:
        write_demo(part, shots=SHOTS, depth=depth)
        for name in existing:  # of a run that was killed before it moved the last
            if not equal_folders(part / name, root / name):
                raise not_a_demo_set(root / name)
        for name in FOLDERS:
            if name not in existing:
                (part / name).rename(root / name)


def not_a_demo_set(folder: Path) -> UserError:
    """Return the error for a folder that would be replaced."""
    remedy = "remove it or choose another --root"
    return UserError(f"{folder} is not a demo set of this program; {remedy}")


def equal_folders(one: Path, other: Path) -> bool:
    """Return whether two folders hold files of the same names and bytes."""
    names = [
        sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file())
        for top in (one, other)
    ]
    return names[0] == names[1] and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names[0]
    )


def scripts(setting: str) -> tuple[Callable[[list[str]], object], Callable[..., "Evaluation"]]:
    """Return the mains that train and test in a setting."""
    if setting == FEW:
        import test_few
        import train_few

        return train_few.main, test_few.main
    import test_zero
    import train_zero

    return train_zero.main, test_zero.main


def shared_flags(root: Path, setting: str, name: str, shot: int, seed: int) -> list[str]:
    """Return the flags that training, test and calibration of an object share."""
    flags = f"--obj {name} {MODEL_FLAGS} --seed {seed}".split()
    flags += [f"--data_path={root}/data", f"--save_path={checkpoints(root, setting)}"]
    flags += [f"--cache_dir={root}/cache"]
    if setting == FEW:
        flags += [f"--shot={shot}", f"--fewshot_path={root}/fewshot_seed"]
    return flags


def checkpoints(root: Path, setting: str) -> Path:
    """Return the folder of the checkpoints, and the detectors, of a setting."""
    return root / CHECKPOINTS[setting]


def evaluate(root: Path, setting: str, name: str, shot: int, seed: int) -> "Evaluation":
    """Train and test one object by the scripts' own mains; return the evaluation of the test."""
    run = f"{name}-{shot}shot" if setting == FEW else name
    shared = shared_flags(root, setting, name, shot, seed)
    train, test = scripts(setting)
    # the last adapters are taken: to choose by the test set would flatter them
    training = [*TRAINING_FLAGS[setting].split(), "--select", "last"]
    print(f"\ntrain_{setting}.py, test_{setting}.py --obj {name}", flush=True)
    train([*shared, *training, f"--out={root}/results/train_{setting}/{run}"])
    pictures = ["--pictures", "2", "--picture_order", "best"]  # an abnormal and a normal image
    return test([*shared, *pictures, f"--out={root}/results/test_{setting}/{run}"])


def make_detectors(root: Path, objects: Sequence[str], shot: int, seed: int) -> Path:
    """Make a detector of each few-shot checkpoint, without a word; return their folder."""
    import calibrate

    for name in objects:
        with redirect_stdout(io.StringIO()):
            calibrate.main(shared_flags(root, FEW, name, shot, seed))
    return checkpoints(root, FEW)


def draw(root: Path, objects: Sequence[str], shot: int) -> Path | None:
    """Draw heat maps of the few-shot tests of objects with masks; return the picture's path."""
    from dataset.catalog import object_info
    from mvfa.heatmaps import write_heatmaps

    masked = [name for name in objects if object_info(name).masks]
    if not masked:
        return None
    write_heatmaps(
        root / "heatmaps.png", [root / "results/test_few" / f"{name}-{shot}shot" for name in masked]
    )
    return root / "heatmaps.png"


def table_cell(group: list["Evaluation"]) -> str:
    """Return means in percent: image AUROC, and pixel AUROC where there are masks."""
    images = [evaluation.image_auroc for evaluation in group]
    pixels = [e.pixel_auroc for e in group if e.pixel_auroc is not None]
    return f"{100 * fmean(images):.2f}" + (f" / {100 * fmean(pixels):.2f}" if pixels else "")


def table(rows: dict[str, dict[str, "Evaluation"]]) -> str:
    """Return the paper's table in Markdown: a row a setting, a column an object, the average."""
    from mvfa.markdown import markdown_table

    names = list(next(iter(rows.values())))
    cells = []
    for title, row in rows.items():
        groups = [[row[name]] for name in names] + [list(row.values())]
        cells.append([title, *map(table_cell, groups)])
    text = markdown_table(["", *names, "average"], cells)
    return f"{LABEL}\n\n{UNITS}\n\n{text}"


def main(argv: Sequence[str] | None = None) -> str:
    """Run everything; return the table, which is printed and written to table.md."""
    options = parse(argv)
    from utils import writable, write_whole

    writable(options.root, "--root", [TABLE])
    prepare(options.root, options.depth)
    rows = {}
    for setting, title in ((FEW, f"few-shot ({options.shot}-shot)"), (ZERO, "zero-shot")):
        rows[title] = {
            name: evaluate(options.root, setting, name, options.shot, options.seed)
            for name in options.objects
        }
    text = table(rows)
    write_whole(options.root / TABLE, lambda partial: partial.write_text(text))
    picture = draw(options.root, options.objects, options.shot)
    written = filter(None, (options.root / TABLE, picture))
    print(f"\n{text}\n{' '.join(map(str, written))}", flush=True)
    folder = make_detectors(options.root, options.objects, options.shot, options.seed)
    print(f"detectors, for predict.py and app.py: {folder}")
    return text


def run() -> None:
    """Run the demo on one thread: its network is so small that threads wait for one another."""
    parse(None)  # help and mistakes come before torch is imported
    import torch

    torch.set_num_threads(1)
    main()


if __name__ == "__main__":
    command(run)
