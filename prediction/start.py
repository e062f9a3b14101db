"""How predict.py starts. No torch: mistakes in the flags, and help, come at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from CLIP.hashing import hash_ahead
from CLIP.weight_files import weight_path
from mvfa.detector_file import hash_tensors_ahead, read_description
from prediction.options import PredictOptions, parse


def start(argv: Sequence[str] | None = None) -> tuple[PredictOptions, dict[str, Any]]:
    """Return the options and the detector's description, and start to hash both files.

    The CLIP weights and the detector are hashed in the background while torch is imported. Raises
    UserError for flags that cannot work, and if a file is missing.
    """
    options = parse(argv)
    about = read_description(options.detector)
    weights = weight_path(about["model_name"], options.clip_path)
    hash_tensors_ahead(options.detector)
    hash_ahead(weights)
    return options, about


def settings(options: PredictOptions, about: dict[str, Any]) -> dict[str, Any]:
    """Return what a run that goes on must share with the one before it."""
    return {
        "program": "predict.py",
        "detector_sha256": about["tensors_sha256"],
        "weights_sha256": about["weights"]["sha256"],
        **options.scoring(),
    }


def log_name(shard: int | None = None, shards: int = 1) -> Path:
    """Return the name of the log of this process, or of one of several jobs."""
    return Path("rows.jsonl" if shard is None else f"rows-{shard}-of-{shards}.jsonl")
