"""Rows of the benchmark that are whole processes: three epochs, metrics of a test set, memory by number of images."""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks.measure import Growth, Row, Settings, fresh
from CLIP.adapter import MVFA
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.folder import LABELS, list_images
from mvfa import checkpoint
from synthetic.images import write_demo
from synthetic.network import write_demo_weights

BRAIN_IMAGES = 3_715
BYTES_PER_MAP = 5.6e6  # what the baseline was seen to need for each map of 240 x 240
SHARE = 0.6  # of the free memory that the baseline may take
SMALL_SIDE = 120


def epochs(settings: Settings) -> list[Row]:
    """Three epochs of train_few.py --shot 2 with 40 test images."""
    data = settings.scratch / "epochs"
    write_demo(
        data, valid=2, test=20, shots=(2,)
    )  # all of valid/ are shots: the baseline scores no others
    flags = [
        "--obj",
        "Brain",
        "--shot",
        2,
        "--epoch",
        1 if settings.quick else 3,
        "--img_size",
        settings.side,
    ]
    flags += [
        "--data_path",
        data / "data",
        "--fewshot_path",
        data / "fewshot_seed",
        "--clip_path",
        settings.weights,
    ]
    flags += ["--device", settings.device, "--save_path"]
    theirs, ours = [], []
    for turn in range(settings.few_repeats):
        theirs.append(fresh("run", "benchmarks.baseline", *flags, data / "baseline"))
        own = [
            "--out",
            data / "out",
            "--cache_dir",
            data / f"cache{turn}",
        ]  # nothing is found in the cache
        ours.append(fresh("run", "train_few", *flags, data / "ours", *own))
    agree = "the same" if theirs[-1].printed == ours[-1].printed else "not the same"
    return [
        Row(
            "three epochs of train_few.py --shot 2, 40 test images"
            + (" (one epoch)" if settings.quick else ""),
            "2x",
            [report.ended - report.started for report in theirs],
            [report.ended - report.started for report in ours],
            peaks=(theirs[-1].told["peak"], ours[-1].told["peak"]),
            note=f"printed AUROCs are {agree}",
        )
    ]


def available_memory() -> float:
    """Bytes that a new process may take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def metrics(settings: Settings) -> list[Row]:
    """AUROCs of a test set: ours from patch values, scikit-learn's from maps that are there already.

    Where not all maps fit into memory, the baseline measures fewer, and its time is scaled in proportion to their
    number, which favours it: sorting takes more than that.
    """
    side, count = 240, 100 if settings.quick else BRAIN_IMAGES
    subset = min(count, int(SHARE * available_memory() / BYTES_PER_MAP))
    theirs, ours = [], []
    for _ in range(settings.few_repeats):
        theirs.append(fresh("metrics_baseline", subset, side))
        ours.append(fresh("metrics_ours", count, side))
    if subset == count:
        differences = [abs(theirs[-1].told[key] - ours[-1].told[key]) for key in ("pixel", "image")]
        note = f"AUROCs differ by {differences[0]:.1e} (pixels), {differences[1]:.1e} (images)"
    else:
        note = f"baseline: {subset} maps, time scaled, memory not"
    return [
        Row(
            f"metrics of {count:,} maps of {side} x {side}",
            "10x, below 1.5 GB",
            [report.told["seconds"] * count / subset for report in theirs],
            [report.told["seconds"] for report in ours],
            images=count,
            peaks=(theirs[-1].told["peak"], ours[-1].told["peak"]),
            note=note,
        )
    ]


def link_images(source: Path, target: Path, obj: str, count: int) -> None:
    """A data folder of one object with `count` test images, which are links to a few."""
    for label in LABELS:
        for kind in ("img", "anomaly_mask"):
            images = list_images(source / f"{obj}_AD" / "test" / label / kind)
            folder = target / f"{obj}_AD" / "test" / label / kind
            folder.mkdir(parents=True)
            for i in range(count // 2 if images else 0):
                os.link(images[i % len(images)], folder / f"{i:05d}.png")
    valid = target / f"{obj}_AD" / "valid"
    valid.symlink_to(source / f"{obj}_AD" / "valid")


def small_model(folder: Path) -> list[str]:
    """Flags that name the weights of the small model and random adapters for it."""
    weights = write_demo_weights(folder)
    clip = create_model(None, weights, image_size=SMALL_SIDE)
    mvfa = MVFA(clip.visual, clip.config.embed_dim, generator=torch.Generator().manual_seed(0))
    torch.save(checkpoint.adapter_state(mvfa), folder / "adapters.pth")
    return [
        "--clip_path",
        str(weights),
        "--img_size",
        str(SMALL_SIDE),
        "--ckpt",
        str(folder / "adapters.pth"),
    ]


def peak(script: str, data: Path, flags: Sequence[object]) -> float:
    """Peak memory of a test script in bytes."""
    return fresh("run", script, "--data_path", data, "--out", data / script, *flags).told["peak"]


def memory(settings: Settings) -> list[Growth]:
    """Peak memory of the test scripts at several numbers of images, small model; the median of some runs."""
    folder = settings.scratch / "memory"
    write_demo(folder, valid=4, test=20, shots=(2,), size=SMALL_SIDE)
    model, counts = small_model(folder), (40, 200) if settings.quick else (40, 400, 4_000)
    shots = ["--shot", 2, "--fewshot_path", folder / "fewshot_seed"]
    rows = []
    for obj in ("Brain", "Chest"):
        for count in counts:
            link_images(folder / "data", folder / str(count), obj, count)
        kind, wanted = (
            ("with masks", "below 10") if object_info(obj).masks else ("without masks", "below 1")
        )
        for script, more in (("test_few", shots), ("test_zero", [])):
            flags = ["--obj", obj, "--cache_dir", folder, *model, *more]
            peak(
                script, folder / str(counts[0]), flags
            )  # leaves the text features, which the counted runs find
            peaks = {
                count: median(
                    peak(script, folder / str(count), flags)
                    for _ in range(min(3, settings.repeats))
                )
                for count in counts
            }
            rows.append(Growth(f"{script}.py, {kind}", wanted, peaks))
    return rows
