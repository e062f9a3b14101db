"""Rows of the benchmark that measure whole processes: epochs, metrics, memory."""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks.measure import Growth, Row, Settings, fresh
from CLIP.adapter import HEADS, MVFA
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.layout import IMAGES, LABELS, MASKS, image_folder, list_images, object_folder
from mvfa.forms import adapter_form
from mvfa.memory import available_memory
from mvfa.recipe import LEVELS, RECIPES
from synthetic.images import write_demo
from synthetic.network import write_demo_weights

BRAIN_IMAGES = 3_715
BYTES_PER_MAP = 5.6e6  # measured memory of the baseline per map of 240 x 240
FREE_FRACTION = 0.6  # of the free memory that the baseline may take
SMALL_SIDE = 120


def epochs(settings: Settings) -> list[Row]:
    """Measure three epochs of train_few.py --shot 2 with 40 test images."""
    data = settings.scratch / "epochs"
    write_demo(data, valid=2, test=20, shots=(2,))  # all of valid/ are shots
    count = 1 if settings.quick else 3
    flags: list[object] = ["--obj", "Brain", "--shot", 2, "--epoch", count]
    flags += ["--img_size", settings.side, "--clip_path", settings.weights]
    flags += ["--data_path", data / "data", "--fewshot_path", data / "fewshot_seed"]
    flags += ["--device", settings.device, "--save_path"]
    theirs = []
    ours = []
    for turn in range(settings.few_repeats):
        theirs.append(fresh("run", "benchmarks.baseline", *flags, data / "baseline"))
        own = ["--out", data / "out", "--cache_dir", data / f"cache{turn}"]  # an empty cache
        ours.append(fresh("run", "train_few", *flags, data / "ours", *own))
    agree = "the same" if theirs[-1].printed == ours[-1].printed else "not the same"
    return [
        Row(
            "three epochs of train_few.py --shot 2, 40 test images"
            + (" (one epoch)" if settings.quick else ""),
            "2x",
            [report.seconds for report in theirs],
            [report.seconds for report in ours],
            peaks=(theirs[-1].measured["peak"], ours[-1].measured["peak"]),
            note=f"printed AUROCs are {agree}",
        )
    ]


def metrics(settings: Settings) -> list[Row]:
    """Measure AUROCs of a test set: ours from patch values, scikit-learn's from existing maps.

    If not all maps fit into memory, the baseline gets fewer, and its time is scaled in proportion
    to their number, which favours it: sorting grows faster than that.
    """
    side = 240
    count = 100 if settings.quick else BRAIN_IMAGES
    subset = min(count, int(FREE_FRACTION * available_memory() / BYTES_PER_MAP))
    theirs = []
    ours = []
    for _ in range(settings.few_repeats):
        theirs.append(fresh("metrics_baseline", subset, side))
        ours.append(fresh("metrics_ours", count, side))
    if subset == count:
        pixel, image = (
            abs(theirs[-1].measured[key] - ours[-1].measured[key]) for key in ("pixel", "image")
        )
        note = f"AUROCs differ by {pixel:.1e} (pixels), {image:.1e} (images)"
    else:
        note = f"baseline: {subset} maps, time scaled, memory not"
    return [
        Row(
            f"metrics of {count:,} maps of {side} x {side}",
            "10x, below 1.5 GB",
            [report.measured["seconds"] * count / subset for report in theirs],
            [report.measured["seconds"] for report in ours],
            images=count,
            peaks=(theirs[-1].measured["peak"], ours[-1].measured["peak"]),
            note=note,
        )
    ]


def link_images(source: Path, target: Path, obj: str, count: int) -> None:
    """Make a data folder of one object with `count` test images, hard links to `source`."""
    for state in LABELS:
        for kind in (IMAGES, MASKS):
            images = list_images(image_folder(source, obj, "test", state).with_name(kind))
            folder = image_folder(target, obj, "test", state).with_name(kind)
            folder.mkdir(parents=True)
            for i in range(count // 2 if images else 0):
                os.link(images[i % len(images)], folder / f"{i:05d}.png")
    valid = object_folder(target, obj) / "valid"
    valid.symlink_to(object_folder(source, obj) / "valid")


def small_model(folder: Path) -> list[str]:
    """Write the weights of the small model and random adapters; return the flags that name them."""
    weights = write_demo_weights(folder)
    clip = create_model(None, weights, image_size=SMALL_SIDE)
    form = adapter_form(RECIPES["released"])
    generator = torch.Generator().manual_seed(0)
    mvfa = MVFA(clip.visual, clip.config.embed_dim, LEVELS, form, generator)
    adapters = {f"{head}_adapters": mvfa.adapters(head).state_dict() for head in HEADS}
    torch.save(adapters, folder / "adapters.pth")
    model = ["--clip_path", str(weights), "--img_size", str(SMALL_SIDE)]
    return [*model, "--ckpt", str(folder / "adapters.pth")]


def peak(script: str, data: Path, flags: Sequence[object]) -> float:
    """Run a test script and return its peak memory in bytes."""
    report = fresh("run", script, "--data_path", data, "--out", data / script, *flags)
    return report.measured["peak"]


def memory(settings: Settings) -> list[Growth]:
    """Measure peak memory of the test scripts by number of images: small model, median of runs."""
    folder = settings.scratch / "memory"
    write_demo(folder, valid=4, test=20, shots=(2,), size=SMALL_SIDE)
    model = small_model(folder)
    counts = (40, 200) if settings.quick else (40, 400, 4_000)
    shots = ["--shot", 2, "--fewshot_path", folder / "fewshot_seed"]
    rows = []
    for obj in ("Brain", "Chest"):
        for count in counts:
            link_images(folder / "data", folder / str(count), obj, count)
        masks = object_info(obj).masks
        kind = "with masks" if masks else "without masks"
        wanted = "below 10" if masks else "below 1"
        for script, more in (("test_few", shots), ("test_zero", [])):
            flags = ["--obj", obj, "--cache_dir", folder, *model, *more]
            peak(script, folder / str(counts[0]), flags)  # not counted: caches the text features
            peaks = {
                count: median(
                    peak(script, folder / str(count), flags)
                    for _ in range(min(3, settings.repeats))
                )
                for count in counts
            }
            rows.append(Growth(f"{script}.py, {kind}", wanted, peaks))
    return rows
