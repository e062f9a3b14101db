"""Whether the files of a run are whole. Each is read once, and again when it has changed."""

from contextlib import suppress
from functools import cache
from pathlib import Path

from CLIP.hashing import hash_ahead
from errors import UserError
from mvfa.run_files import CURVES, METRICS, SCORES, load_metrics, read_scores

State = tuple[int, int] | None  # size and modification time of a file, None if there is none


def damage_of(out: Path, adapters: Path | None = None) -> str:
    """Return in one line why the results of a run in a folder are not whole, "" if they are.

    `adapters` is the folder of its checkpoint if it is a training that wrote one: the checkpoint
    belongs to its results.
    """
    files = [out / name for name in (METRICS, CURVES, SCORES)]
    found = results_damage(out, tuple(map(state_of, files)))
    if found or adapters is None:
        return found
    path = changed_adapters(out, adapters)
    return f"{path} is missing, or not what the training has written" if path else ""


def changed_adapters(out: Path, adapters: Path) -> Path | None:
    """Return the checkpoint of a training, in a folder, if it is not what its results name."""
    written = (load_metrics(out) or {}).get("adapters")
    if not written:
        return None
    path = adapters / Path(written["file"]).name
    with suppress(OSError):
        if hash_ahead(path).result() == written["sha256"]:
            return None
    return path


def set_aside(out: Path, adapters: Path) -> None:
    """Rename a damaged checkpoint, which a training would not replace, to <name>.damaged."""
    with suppress(UserError):
        path = changed_adapters(out, adapters)
        if path is not None and path.is_file():
            path.replace(path.with_name(f"{path.name}.damaged"))


def state_of(path: Path) -> State:
    """Return what changes when a file is written."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@cache
def results_damage(out: Path, _states: tuple[State, ...]) -> str:
    """Return why metrics.json, curves.json or scores.csv is not whole, "" if they are."""
    try:
        load_metrics(out)
        read_scores(out)
    except UserError as error:
        return str(error)
    return ""
