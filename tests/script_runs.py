"""Runs of the four scripts on the demo images of a test, with the tiny CLIP."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import torch

import test_few
import test_zero
import train_few
import train_zero
from mvfa.evaluation import Evaluation

ROOT = Path(__file__).parent.parent
MAINS = {
    "train_few": train_few.main,
    "test_few": test_few.main,
    "train_zero": train_zero.main,
    "test_zero": test_zero.main,
}
OTHERS = ("Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology")  # than Brain


class Runs:
    """The scripts' runs of one test: 2 shots, images of 32 x 32 pixels, 2 epochs.

    Checkpoints go to `folder`/ckpt, results to `folder`/out/<script>.
    """

    def __init__(self, weights: Path, demo_root: Path, folder: Path) -> None:
        self.weights = weights
        self.demo_root = demo_root
        self.folder = folder
        self.checkpoints = folder / "ckpt"

    def flags(self, script: str, obj: str, *more: object, data: Path | None = None) -> list[str]:
        """Return the arguments of a script."""
        arguments = ["--obj", obj, "--clip_path", self.weights, "--img_size", 32]
        arguments += ["--features_list", 1, 2, 3, 4]
        arguments += ["--data_path", data or self.demo_root / "data"]
        arguments += ["--save_path", self.checkpoints, "--out", self.out(script)]
        if script.endswith("few"):
            arguments += ["--shot", 2, "--fewshot_path", self.demo_root / "fewshot_seed"]
        if script.startswith("train"):
            arguments += ["--epoch", 2]
        return [str(argument) for argument in [*arguments, *more]]

    def __call__(
        self, script: str, obj: str, *more: object, data: Path | None = None
    ) -> Evaluation:
        """Run a script's main in this process."""
        return MAINS[script](self.flags(script, obj, *more, data=data))

    def out(self, script: str) -> Path:
        """Return the folder of a script's results."""
        return self.folder / "out" / script

    def metrics(self, script: str) -> dict:
        """Read metrics.json of a script."""
        return json.loads((self.out(script) / "metrics.json").read_text())

    def scores(self, script: str) -> list[dict]:
        """Read scores.csv of a script."""
        with (self.out(script) / "scores.csv").open() as file:
            return list(csv.DictReader(file))

    def authors_file(self, name: str, source: str = "Brain-2shot.pth") -> Path:
        """Write a checkpoint as the authors do: adapters without a description."""
        content = torch.load(self.checkpoints / source, weights_only=True)
        adapters = {key: content[key] for key in ("seg_adapters", "det_adapters")}
        torch.save(adapters, self.checkpoints / name)
        return self.checkpoints / name


def start(*arguments: object) -> subprocess.CompletedProcess:
    """Run a script in a process of its own, to its end."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
