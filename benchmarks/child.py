"""Tasks of the benchmark that run in a process of their own.

    python -m benchmarks.child TASK [ARGUMENT ...]

The last line printed is JSON with what was measured. Imports are inside the tasks, since importing
is measured too.
"""

import importlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPORT = "REPORT "  # start of the last line
TEST_BATCH = 8  # images, of test_few.py on a CPU
WARM_UP = 2  # images


def peak_memory() -> int:
    """Return the peak memory of this process in bytes.

    Linux's getrusage is not used where /proc exists: it counts the parent's memory before the fork.
    """
    try:
        line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        line = None
    if line:
        return int(line[1]) * 1024
    from mvfa.memory import peak_host_memory

    return peak_host_memory()


def start_baseline(weights: str, side: str, device: str) -> dict[str, float]:
    """Load everything up to a ready model, as the baseline does."""
    from benchmarks import baseline
    from mvfa.defaults import DEFAULT_SEED
    from mvfa.recipe import LEVELS

    baseline.load(Path(weights), int(side), LEVELS, device, DEFAULT_SEED)
    return {"ready": time.monotonic()}


def start_ours(weights: str, side: str, device: str) -> dict[str, float]:
    """Load everything up to a ready model, as train_few.py does."""
    from mvfa.cli import start

    with tempfile.TemporaryDirectory() as out:
        flags = ["--obj", "Brain", "--clip_path", weights, "--img_size", side, "--device", device]
        options = start("train_few", [*flags, "--out", out])
        script = importlib.import_module("train_few")  # the script's imports are part of its start
        env = script.set_up(options)
        generator = script.set_seed(options.seed)
        clip = script.create_model(**script.clip_arguments(options, env))
        form = script.adapter_form(options.recipe)
        script.MVFA(clip.visual, clip.config.embed_dim, options.features_list, form, generator)
        return {"ready": time.monotonic()}


def metrics_baseline(count: str, side: str) -> dict[str, float]:
    """Compute metrics of maps that exist already."""
    from benchmarks.baseline import evaluate
    from benchmarks.synthetic import make, maps

    test_set = maps(make(int(count), int(side)))
    start = time.perf_counter()
    result = evaluate(test_set)
    return {
        "seconds": time.perf_counter() - start,
        "pixel": result.pixel_auroc or 0,
        "image": result.image_auroc,
    }


def metrics_ours(count: str, side: str) -> dict[str, float]:
    """Compute metrics from patch values, including the maps."""
    from benchmarks.synthetic import make, predictions
    from mvfa.evaluation import evaluate
    from mvfa.memory import tune_process

    tune_process()  # as every run of the program does
    test_set = predictions(make(int(count), int(side)))
    start = time.perf_counter()
    result = evaluate(test_set)
    return {
        "seconds": time.perf_counter() - start,
        "pixel": result.pixel_auroc or 0,
        "image": result.image_auroc,
    }


def read_weights(weights: str) -> dict[str, float]:
    """Import torch and read a weight file: what no program with this network can do without."""
    import torch

    torch.load(weights, map_location="cpu", weights_only=True)
    return {}


def score_as_test_few(detector: str, weights: str, data: str, count: str) -> dict[str, float]:
    """Score `count` test images as test_few.py does, with the model and the bank of a detector.

    Some images, which are not counted, come first. What precedes and follows the loop, as the
    memory bank and the metrics, is left out.
    """
    from dataset.catalog import object_info
    from dataset.folder import ImageSet
    from dataset.medical_few import evaluation_set
    from mvfa.detector import Detector
    from mvfa.engine import predict
    from mvfa.features import FeatureLoader

    known = Detector.load(detector, clip_path=weights)
    side = known.settings.img_size
    records = evaluation_set(Path(data), object_info("Brain"), side).records
    seconds = []
    for number in (WARM_UP, int(count)):
        start = time.perf_counter()
        images = ImageSet(records[:number], side)
        loader = FeatureLoader(images, known.method, device=known.device, batch_size=TEST_BATCH)
        predict(known.method, loader, known.bank)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[-1]}


def score_as_predict(
    detector: str, weights: str, out: str, count: str, *inputs: str
) -> dict[str, float]:
    """Score `count` images as predict.py does, and write their overlays, maps and records.

    Some images, which are not counted, come first. Flags, loading and the page are left out.
    """
    from prediction.discovery import find
    from prediction.loading import load_detector
    from prediction.options import parse
    from prediction.run import Run

    options = parse(["-i", *inputs, "-o", out, "--detector", detector, "--clip_path", weights])
    options.out.mkdir()
    sources = find(options.input, options.out).sources[: int(count)]
    score = Run(load_detector(options, sources), options, options.out / "rows.jsonl")
    seconds = []
    for chosen in (sources[:WARM_UP], sources):
        start = time.perf_counter()
        score(chosen)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[-1]}


def run(module: str, *arguments: str) -> dict[str, float]:
    """Run a module's main."""
    importlib.import_module(module).main(list(arguments))
    return {}


TASKS: dict[str, Callable[..., dict[str, float]]] = {
    task.__name__: task
    for task in (
        start_baseline,
        start_ours,
        metrics_baseline,
        metrics_ours,
        read_weights,
        score_as_test_few,
        score_as_predict,
        run,
    )
}


def main(argv: Sequence[str]) -> None:
    """Run a task and print what it measured."""
    name, *arguments = argv
    measured = TASKS[name](*arguments)
    print(REPORT + json.dumps(measured | {"peak": peak_memory()}))


if __name__ == "__main__":
    main(sys.argv[1:])
