"""How predict.py starts. No torch: mistakes in the flags, and help, come at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from CLIP.hashing import hash_ahead, sha256
from CLIP.weight_files import weight_path
from errors import UserError
from mvfa.detector_file import hash_tensors_ahead, read_description
from prediction.options import PredictOptions, parse
from prediction.run_folder import PROGRAM, check_folder


def start(argv: Sequence[str] | None = None) -> tuple[PredictOptions, dict[str, Any]]:
    """Return the options and the detector's description, and start to hash both files.

    The CLIP weights and the detector are hashed in the background while torch is imported. Raises
    UserError for flags that cannot work, for a folder of other files, and if a file is missing.
    """
    options = parse(argv)
    check_folder(options.out, options.input)
    about = read_description(options.detector)
    weights = weight_path(about["model_name"], options.clip_path)
    hash_tensors_ahead(options.detector)
    hash_ahead(weights)
    return options, about


def settings(options: PredictOptions, about: dict[str, Any]) -> dict[str, Any]:
    """Return what a run that goes on must share with the one before it."""
    mask = options.liver_mask
    content = {} if mask is None else {"liver_mask_sha256": mask_sha256(mask)}
    return {
        "program": PROGRAM,
        "detector_sha256": about["tensors_sha256"],
        "weights_sha256": about["weights"]["sha256"],
        **options.scoring(),
        **content,
    }


def mask_sha256(path: Path) -> str:
    """Return the SHA-256 of the file of --liver_mask. Raises UserError if it cannot be read."""
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(
            f"--liver_mask {path} cannot be read ({error.strerror or error}); name a NIfTI file"
        ) from error


def log_name(shard: int | None = None, shards: int = 1) -> Path:
    """Return the name of the log of this process, or of one of several jobs."""
    return Path("rows.jsonl" if shard is None else f"rows-{shard}-of-{shards}.jsonl")
