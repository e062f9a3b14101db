"""Commands that are killed, and what they leave: small ones of every script that writes files."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset.layout import LABELS, image_folder, list_images
from tests.script_runs import ROOT

# of metrics.json: what no two runs share
TIMES = ("seconds", "peak_memory_bytes", "sha256")

Snapshot = Mapping[str, bytes]  # content of files by their path, without times


@dataclass(frozen=True)
class World:
    """What the commands read: demo weights, images and shot lists.

    The commands write to `work`, which is filled anew from `start` for each: adapters to test and
    a detector.
    """

    weights: Path
    data: Path
    lists: Path
    root: Path

    @property
    def work(self) -> Path:
        """Folder that the commands write to: always the same, since files hold its name."""
        return self.root / "work"

    @property
    def start(self) -> Path:
        """Folder that `work` is a copy of at first."""
        return self.root / "start"

    def fresh(self) -> None:
        """Make `work` as it is before a command."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.start, self.work)

    def flags(self, *more: object, epochs: int = 0) -> list[str]:
        """Return the flags that the scripts share, and others."""
        shared = ["--clip_path", self.weights, "--data_path", self.data, "--img_size", 60]
        shared += ["--cache_dir", self.work / "cache", "--device", "cpu"]
        if epochs:
            shared += ["--epoch", epochs]
        return [str(flag) for flag in [*shared, *more]]


@dataclass(frozen=True)
class Scenario:
    """A command: a name, the script and its flags."""

    name: str
    script: str
    flags: tuple[str, ...]

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, f"{self.script}.py", *self.flags]


def scenarios(world: World) -> dict[str, Scenario]:
    """Return the commands by name."""
    work = world.work
    out = ["--out", work / "out"]
    few = ["--obj", "Brain", "--shot", 4, "--fewshot_path", world.lists]
    zero = ["--obj", "Liver"]
    kept = ["--save_path", work / "ckpt"]
    new = ["--save_path", work / "new"]
    rates = ["--learning_rate", 3e-3, "--batch_size", 4]
    images = image_folder(world.data, "Brain", "test", "good")
    predict = ["-i", images, "-o", work / "out", "--detector", work / "Brain.detector"]
    predict += ["--clip_path", world.weights, "--device", "cpu", "--batch_size", 2]
    study = ["figure3", "--objects", "Brain", "--shots", 2, 4, "--root", work / "study"]
    study += ["--pictures", 2, "--fewshot_path", world.lists]
    made: dict[str, tuple[str, list[str]]] = {
        "train_few": ("train_few", world.flags(*few, *rates, *new, *out, epochs=5)),
        "train_few, again": ("train_few", world.flags(*few, *kept, *out, epochs=4)),
        "train_zero": ("train_zero", world.flags(*zero, *rates, *new, *out, epochs=3)),
        "test_few": ("test_few", world.flags(*few, *kept, *out, "--pictures", 6)),
        "test_zero": ("test_zero", world.flags(*zero, *kept, *out, "--pictures", 6)),
        "calibrate": ("calibrate", world.flags(*few, *kept, "--out", work / "new.detector")),
        "predict": ("predict", [str(flag) for flag in predict]),
        "reproduce": ("reproduce", world.flags(*study, epochs=1)),
        "convert": (
            "prepare_data",
            [
                *("convert", str(work / "table.csv"), "--obj", "Skull"),
                *("--data_path", str(work / "data"), "--overwrite"),
            ],
        ),
        "draw": (
            "prepare_data",
            [
                *("draw", "--obj", "Brain", "--shots", *"124", "--draws", "4000"),
                *("--data_path", str(world.data), "--fewshot_path", str(work / "lists")),
            ],
        ),
    }
    return {name: Scenario(name, script, tuple(flags)) for name, (script, flags) in made.items()}


def prepare(world: World) -> None:
    """Fill `start`: adapters of few-shot and zero-shot trainings, and a detector."""
    world.start.mkdir(parents=True)
    world.fresh()
    work = world.work
    few = ["--obj", "Brain", "--shot", 4, "--fewshot_path", world.lists]
    kept = ["--save_path", work / "ckpt"]
    commands = {
        "train_few": world.flags(*few, *kept, "--out", work / "few", epochs=1),
        "train_zero": world.flags("--obj", "Liver", *kept, "--out", work / "zero", epochs=1),
        "calibrate": world.flags(*few, *kept, "--out", work / "Brain.detector"),
    }
    for script, flags in commands.items():
        command = [sys.executable, f"{script}.py", *flags]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    write_table(world, work / "table.csv")
    shutil.rmtree(work / "cache")
    shutil.rmtree(world.start)
    shutil.copytree(work, world.start)


def write_table(world: World, path: Path) -> None:
    """Write a table of images and labels for `prepare_data.py convert`."""
    lines = ["image,label"]
    for label, state in enumerate(LABELS):
        folder = image_folder(world.data, "Brain", "test", state)
        lines += [f"{image},{label}" for image in list_images(folder)]
    path.write_text("\n".join(lines) + "\n")


def snapshot(folder: Path) -> Snapshot:
    """Return every file below a folder by its path, hidden ones too; metrics.json without times."""
    return {
        path.relative_to(folder).as_posix(): content_of(path)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def content_of(path: Path) -> bytes:
    """Return the content of a file, that of metrics.json without times."""
    content = path.read_bytes()
    if path.name != "metrics.json":
        return content
    metrics = {name: value for name, value in json.loads(content).items() if name not in TIMES}
    return json.dumps(metrics).encode()
