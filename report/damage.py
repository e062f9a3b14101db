"""Whether the files of a run are whole. Each is read once, and again when it has changed."""

from contextlib import suppress
from functools import cache
from pathlib import Path

from CLIP.hashing import hash_ahead
from errors import UserError
from mvfa.methods.catalog import METHODS
from mvfa.run_files import CURVES, METRICS, SCORES, load_metrics, read_scores

State = tuple[int, int] | None  # size and modification time of a file, None if there is none


def results_damage(out: Path) -> str:
    """Return in one line why the results of a run in a folder are not whole, "" if they are."""
    return read_damage(out, tuple(state_of(out / name) for name in (METRICS, CURVES, SCORES)))


def adapters_damage(out: Path, folder: Path) -> str:
    """Return why the checkpoint of a training, in a folder, is not that of its results; "": it is.

    Without whole results nothing is compared.
    """
    metrics = {} if results_damage(out) else load_metrics(out) or {}
    if "adapters" not in metrics:
        return ""
    written = metrics["adapters"]
    if written is None:
        return f"the training of {out} could not write its checkpoint"
    path = folder / Path(written["file"]).name
    with suppress(OSError):
        if hash_ahead(path).result() == written["sha256"]:
            return ""
    return f"{path} is missing, or not what the training has written"


def other_adapters(train: Path, test: Path) -> bool:
    """Return whether a test scored other adapters than those that its training has written now.

    False where the results of one of them are not whole.
    """
    if results_damage(train) or results_damage(test):
        return False
    named = [(load_metrics(out) or {}).get("adapters") or {} for out in (train, test)]
    hashes = [adapters.get("sha256") for adapters in named]
    return None not in hashes and hashes[0] != hashes[1]


def set_aside(folder: Path) -> None:
    """Rename checkpoints that cannot be read to <name>.damaged: no training would replace them."""
    from mvfa.checkpoint import readable  # imports torch

    for path in folder.glob("*.pth"):
        if not any(readable(path, info.keys) for info in METHODS.values() if info.keys):
            path.replace(path.with_name(f"{path.name}.damaged"))


def state_of(path: Path) -> State:
    """Return what changes when a file is written."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@cache
def read_damage(out: Path, _states: tuple[State, ...]) -> str:
    """Return why metrics.json, curves.json or scores.csv is not whole, "" if they are."""
    try:
        load_metrics(out)
        read_scores(out)
    except UserError as error:
        return str(error)
    return ""
