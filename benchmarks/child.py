"""Tasks of the benchmark that need a process of their own: python -m benchmarks.child TASK [ARGUMENT ...].

The last line printed tells in JSON what was measured. Imports are inside the tasks: what a task loads is measured.
"""

import importlib
import json
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPORT = "REPORT "  # starts that line


def peak_memory() -> int:
    """Peak memory of this process in bytes. Linux's getrusage would count the parent's before the start of this one."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def start_baseline(weights: str, side: str, device: str) -> dict[str, float]:
    """Load everything up to a ready model as the baseline does."""
    from benchmarks import baseline

    baseline.load(Path(weights), int(side), (6, 12, 18, 24), device)
    return {"ready": time.monotonic()}


def start_ours(weights: str, side: str, device: str) -> dict[str, float]:
    """Load everything up to a ready model as train_few.py does."""
    from mvfa.cli import start

    options = start(
        "train_few",
        ["--obj", "Brain", "--clip_path", weights, "--img_size", side, "--device", device],
    )
    from dataset.medical_few import Support  # noqa: F401  # what the script imports belongs to its start
    from mvfa.training import TrainingRun

    TrainingRun(options)
    return {"ready": time.monotonic()}


def metrics_baseline(count: str, side: str) -> dict[str, float]:
    """Metrics of maps that are there already."""
    from benchmarks.baseline import evaluate
    from benchmarks.synthetic import make, maps

    kept = maps(make(int(count), int(side)))
    start = time.perf_counter()
    result = evaluate(kept)
    return {
        "seconds": time.perf_counter() - start,
        "pixel": result.pixel_auroc or 0,
        "image": result.image_auroc,
    }


def metrics_ours(count: str, side: str) -> dict[str, float]:
    """Metrics from patch values, the making of the maps included."""
    from benchmarks.synthetic import make, predictions
    from mvfa.evaluation import evaluate
    from utils import tune_process

    tune_process()  # as every run of the program does
    found, streams = predictions(make(int(count), int(side)))
    start = time.perf_counter()
    result = evaluate(found, streams)
    return {
        "seconds": time.perf_counter() - start,
        "pixel": result.pixel_auroc or 0,
        "image": result.image_auroc,
    }


def run(module: str, *arguments: str) -> dict[str, float]:
    """A module's main."""
    importlib.import_module(module).main(list(arguments))
    return {}


TASKS: dict[str, Callable[..., dict[str, float]]] = {
    task.__name__: task
    for task in (start_baseline, start_ours, metrics_baseline, metrics_ours, run)
}


def main(argv: Sequence[str]) -> None:
    """Do a task and tell."""
    name, *arguments = argv
    told = TASKS[name](*arguments)
    print(REPORT + json.dumps(told | {"peak": peak_memory()}))


if __name__ == "__main__":
    main(sys.argv[1:])
