"""Rows of the benchmark that measure predict.py: one image from start to end, and a folder."""

from pathlib import Path
from time import perf_counter

from benchmarks.measure import Row, Settings, fresh
from dataset.layout import image_folder, list_images
from synthetic.images import write_demo

ADAPTERS = "adapters.pth"  # of synthetic.standin, beside the weights
FEW_IMAGES = 4


def detector(settings: Settings, data: Path) -> Path:
    """Make a detector of full size from stand-in adapters."""
    flags: list[object] = ["--obj", "Brain", "--shot", 4, "--clip_path", settings.weights]
    flags += ["--img_size", settings.side, "--device", settings.device]
    flags += ["--data_path", data / "data", "--fewshot_path", data / "fewshot_seed"]
    flags += ["--ckpt", settings.weights.with_name(ADAPTERS)]
    made = settings.scratch / "full.detector"
    fresh("run", "calibrate", *flags, "--out", made)
    return made


def seconds(*arguments: object) -> float:
    """Return the seconds of a task in a fresh process, from its start to its end."""
    start = perf_counter()
    fresh(*arguments)
    return perf_counter() - start


def predict(settings: Settings) -> list[Row]:
    """Measure predict.py against import torch and reading the weights, and against test_few.py.

    The second row is of the images of a folder alone: whole runs with many and with few images,
    subtracted.
    """
    data = settings.scratch / "predict"
    many = 8 if settings.quick else 40
    write_demo(data, valid=6, test=many // 2, shots=(4,))
    made = detector(settings, data)
    shared = ["--detector", made, "--clip_path", settings.weights, "--device", settings.device]
    folder = image_folder(data / "data", "Brain", "test", "good")
    first = list_images(folder)[0]
    starts: tuple[list[float], list[float]] = ([], [])
    for turn in range(settings.repeats):
        out = settings.scratch / f"one{turn}"
        starts[0].append(seconds("read_weights", settings.weights))
        starts[1].append(seconds("run", "predict", "-i", first, "-o", out, *shared))
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(settings.few_repeats):
        rates[0].append(test_seconds(settings, data, many))
        rates[1].append(folder_seconds(settings, data, shared, turn))
    return [
        Row(
            "predict.py on one image, start to end; baseline: import torch, read the weights",
            "0.67x",
            *starts,
        ),
        Row(
            "predict.py on a folder, with overlays and maps; baseline: test_few.py",
            "1x",
            *rates,
            images=many - FEW_IMAGES,
        ),
    ]


def folder_seconds(settings: Settings, data: Path, shared: list[object], turn: int) -> float:
    """Return the seconds of predict.py for the images of a folder, without start and end."""
    test = image_folder(data / "data", "Brain", "test", "good").parent.parent
    images = [path for state in ("good", "Ungood") for path in list_images(test / state / "img")]
    took = []
    for name, chosen in (("many", images), ("few", images[:FEW_IMAGES])):
        out = settings.scratch / f"{name}{turn}"
        took.append(seconds("run", "predict", "-i", *chosen, "-o", out, *shared))
    return took[0] - took[1]


def test_seconds(settings: Settings, data: Path, many: int) -> float:
    """Return the seconds of test_few.py for its test images, without start and end."""
    took = []
    for count in (many, FEW_IMAGES):
        part = settings.scratch / f"test{count}"
        if not part.is_dir():
            write_demo(part, valid=6, test=count // 2, shots=(4,))
        flags: list[object] = ["--obj", "Brain", "--shot", 4, "--clip_path", settings.weights]
        flags += ["--img_size", settings.side, "--device", settings.device]
        flags += ["--data_path", part / "data", "--fewshot_path", data / "fewshot_seed"]
        flags += ["--ckpt", settings.weights.with_name(ADAPTERS), "--out", part / "out"]
        took.append(seconds("run", "test_few", *flags, "--bootstrap", 0))
    return took[0] - took[1]
