"""What a run leaves behind: the two printed lines, metrics.json and scores.csv."""

import json
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvfa.checkpoint import commit
from mvfa.evaluation import Evaluation
from utils import write_whole

ROWS = 500  # of a table that are made text at once
PACKAGES = ("torch", "torchvision", "numpy", "pillow")


def lines(obj: str, evaluation: Evaluation, *, zero: bool = False) -> str:
    """Format the AUROCs as the released code does: pixels (where there are masks) first; zero-shot: images first."""
    found = [f"{obj} AUC : {evaluation.image_auroc:.4f}"]
    if evaluation.pixel_auroc is not None:
        found.insert(len(found) if zero else 0, f"{obj} pAUC : {evaluation.pixel_auroc:.4f}")
    return "\n".join(found)


def versions() -> dict[str, str | None]:
    """Versions of Python, of the packages that figures depend on, and the commit."""
    packages = {name: version(name) for name in PACKAGES} | {"torch": str(torch.__version__)}
    return {"python": platform.python_version(), **packages, "commit": commit()}


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peak memory of this process, and of its device if that is CUDA, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["cuda"] = torch.cuda.max_memory_allocated(device)
    return peak


def write_metrics(out: Path, content: Mapping[str, Any]) -> None:
    """Write metrics.json, whole or not at all."""
    text = json.dumps(content, indent=2) + "\n"
    write_whole(out / "metrics.json", lambda partial: partial.write_text(text))


def write_scores(out: Path, files: Sequence[str], labels: Tensor, evaluation: Evaluation) -> None:
    """Write scores.csv: a row an image, scores in [0, 1] after min-max over the test set; no memory score: empty."""
    import pandas as pd  # slow to import, and the last thing that a run needs

    memory = evaluation.memory_scores
    table = pd.DataFrame(
        {
            "file": files,
            "label": labels.int().numpy(),
            "score": evaluation.scores.double().numpy(),
            "text_score": evaluation.text_scores.double().numpy(),
            "memory_score": None if memory is None else memory.double().numpy(),
        }
    )
    write_whole(
        out / "scores.csv", lambda partial: table.to_csv(partial, index=False, chunksize=ROWS)
    )
