"""Rows of the benchmark that measure predict.py: one image from start to end, and a folder."""

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.measure import ROOT, Row, Settings, fresh
from dataset.layout import LABELS, image_folder, list_images
from synthetic.images import write_demo

ADAPTERS = "adapters.pth"  # of synthetic.standin, beside the weights
FOLDER_REPEATS = 3  # of a minute and a half each


def detector(settings: Settings, data: Path, shot: int) -> Path:
    """Make a detector of full size from stand-in adapters."""
    flags: list[object] = ["--obj", "Brain", "--shot", shot, "--clip_path", settings.weights]
    flags += ["--img_size", settings.side, "--device", "cpu"]
    flags += ["--data_path", data / "data", "--fewshot_path", data / "fewshot_seed"]
    flags += ["--ckpt", settings.weights.with_name(ADAPTERS)]
    made = settings.scratch / "full.detector"
    fresh("run", "calibrate", *flags, "--out", made)
    return made


def script_seconds(script: str, *flags: object) -> float:
    """Return the seconds of a script from start to end. Raises RuntimeError if it fails."""
    command = [sys.executable, f"{script}.py", *map(str, flags)]
    start = perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds


def one_image(settings: Settings, made: Path, image: Path) -> Row:
    """Measure predict.py on one image against import torch and reading the weights, on a CPU."""
    flags: list[object] = ["-i", image, "--detector", made, "--clip_path", settings.weights]
    flags += ["--device", "cpu", "-o"]
    script_seconds("predict", *flags, settings.scratch / "warm-up")
    theirs = []
    ours = []
    for turn in range(settings.repeats):
        theirs.append(fresh("read_weights", settings.weights).seconds)
        ours.append(script_seconds("predict", *flags, settings.scratch / f"one{turn}"))
    return Row(
        "predict.py on one image, start to end; baseline: import torch, read the weights",
        "0.67x",
        theirs,
        ours,
    )


def folder(settings: Settings, made: Path, data: Path, count: int) -> Row:
    """Measure the loop of predict.py over a folder against that of test_few.py, on a CPU."""
    inputs = [image_folder(data, "Brain", "test", label) for label in LABELS]
    theirs = []
    ours = []
    for turn in range(settings.few_repeats if settings.quick else FOLDER_REPEATS):
        out = settings.scratch / f"folder{turn}"
        test = fresh("score_as_test_few", made, settings.weights, data, count)
        mine = fresh("score_as_predict", made, settings.weights, out, count, *inputs)
        theirs.append(test.measured["seconds"])
        ours.append(mine.measured["seconds"])
    return Row(
        f"predict.py on {count} images of a folder, with overlays and maps; baseline: test_few.py",
        "1x",
        theirs,
        ours,
        images=count,
        peaks=(test.measured["peak"], mine.measured["peak"]),
    )


def predict(settings: Settings) -> list[Row]:
    """Measure predict.py on one image, and on a folder."""
    scratch = settings.scratch / "predict"
    count = 16 if settings.quick else 40
    shot = 1 if settings.quick else 4
    write_demo(scratch, valid=6, test=count // 2, shots=(shot,))
    data = scratch / "data"
    made = detector(settings, scratch, shot)
    first = list_images(image_folder(data, "Brain", "test", next(iter(LABELS))))[0]
    return [one_image(settings, made, first), folder(settings, made, data, count)]
