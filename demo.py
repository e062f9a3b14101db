"""The whole program without any download: synthetic images of all objects, a small stand-in for CLIP, the four scripts.

    python demo.py

Everything lies under --root: data, shot lists, checkpoints, results and table.md. The figures are of synthetic images
and of a backbone that has learned nothing: they show that the program works, not how well the method does.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

import test_few
import test_zero
import train_few
import train_zero
from errors import UserError
from mvfa.cli import command
from mvfa.evaluation import Evaluation
from mvfa.options import FEW, SEED, ZERO, Parser
from synthetic.anatomy import PAINTERS
from synthetic.images import write_demo
from synthetic.network import NAME, write_demo_weights
from utils import write_whole

SHOTS = (2, 4, 8, 16)  # the lists that are written
FOLDERS = ("fewshot_seed", "data")  # data is moved into place last
COLUMNS = (
    "Histopathology",
    "Chest",
    "Retina_OCT2017",
    "Brain",
    "Liver",
    "Retina_RESC",
)  # the paper's order
SCRIPTS = {FEW: (train_few, test_few), ZERO: (train_zero, test_zero)}
MODEL = f"--model_name {NAME} --img_size 120"  # 12 x 12 patches
# Short training for a CPU. The last adapters are taken: to choose by the test set would flatter them.
TRAINING = {
    FEW: "--epoch 3 --batch_size 8 --select last",
    ZERO: "--epoch 1 --batch_size 8 --learning_rate 3e-3 --select last",
}
LABEL = (
    "Demo figures, of synthetic images and a backbone that was never trained: they show that the program runs from end "
    "to end, and say nothing about the accuracy of the method."
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = Parser(
        prog="demo.py", description="Run everything on synthetic images.", allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--root",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="everything is written there (default: demo)",
    )
    add(
        "--objects",
        nargs="+",
        choices=COLUMNS,
        default=list(COLUMNS),
        metavar="OBJ",
        help="(default: all six)",
    )
    add(
        "--shot",
        type=int,
        choices=SHOTS,
        default=4,
        help="normal and abnormal images to learn from (default: 4)",
    )
    add(
        "--seed",
        type=SEED,
        default=111,
        help="of adapters and shuffling; the images stay the same (default: 111)",
    )
    return parser.parse_args(argv)


def prepare(root: Path) -> None:
    """Write the images unless they are there, whole or not at all, and the weights. UserError if half is there."""
    write_demo_weights()  # always: it takes two seconds, and an older program's file would not fit
    found = [name for name in FOLDERS if (root / name).exists()]
    if len(found) == 1:
        raise UserError(
            f"{root / found[0]} is no demo set of this program; remove it or choose another --root"
        )
    if found:
        return
    print(f"painting the images of {len(PAINTERS)} objects into {root}", flush=True)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".part-") as part:
        write_demo(Path(part), shots=SHOTS)
        for name in FOLDERS:
            (Path(part) / name).rename(root / name)


def evaluate(root: Path, setting: str, name: str, shot: int, seed: int) -> Evaluation:
    """Train and test one object by the scripts' own mains; what `test_*` found."""
    run = f"{name}-{shot}shot" if setting == FEW else name
    shared = f"--obj {name} {MODEL} --seed {seed}".split()
    shared += [
        f"--data_path={root}/data",
        f"--save_path={root}/ckpt/{setting}-shot",
        f"--cache_dir={root}/cache",
    ]
    shared += [f"--shot={shot}", f"--fewshot_path={root}/fewshot_seed"] if setting == FEW else []
    train, test = SCRIPTS[setting]
    print(f"\ntrain_{setting}.py, test_{setting}.py --obj {name}", flush=True)
    train.main([*shared, *TRAINING[setting].split(), f"--out={root}/results/train_{setting}/{run}"])
    return test.main([*shared, f"--out={root}/results/test_{setting}/{run}"])


def cell(group: list[Evaluation]) -> str:
    """Means in percent: image AUROC, and pixel AUROC where there are masks."""
    image, pixel = (
        [e.image_auroc for e in group],
        [e.pixel_auroc for e in group if e.pixel_auroc is not None],
    )
    return f"{100 * fmean(image):.2f}" + (f" / {100 * fmean(pixel):.2f}" if pixel else "")


def table(rows: dict[str, dict[str, Evaluation]]) -> str:
    """The paper's table in Markdown: a row a setting, a column an object, and the average."""
    names = list(next(iter(rows.values())))
    lines = [
        LABEL,
        "",
        "Image AUROC / pixel AUROC in percent; objects without masks have no pixel AUROC.",
        "",
    ]
    lines += ["| | " + " | ".join([*names, "average"]) + " |", "|---" * (len(names) + 2) + "|"]
    for title, row in rows.items():
        groups = [[row[name]] for name in names] + [list(row.values())]
        lines.append(f"| {title} | " + " | ".join(map(cell, groups)) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> str:
    """Run all; returns the table, which is printed and written to table.md."""
    options = parse(argv)
    prepare(options.root)
    titles = {FEW: f"few-shot ({options.shot}-shot)", ZERO: "zero-shot"}
    rows = {
        title: {
            name: evaluate(options.root, setting, name, options.shot, options.seed)
            for name in options.objects
        }
        for setting, title in titles.items()
    }
    text = table(rows)
    write_whole(options.root / "table.md", lambda partial: partial.write_text(text))
    print(f"\n{text}\n{options.root / 'table.md'}")
    return text


if __name__ == "__main__":
    torch.set_num_threads(1)  # the network is so small that threads mostly wait for one another
    command(main)
