"""Names of what a run of predict.py writes to its folder, and whose folder it is."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dataset.layout import refuse_special
from errors import UserError

PROGRAM = "predict.py"
RUN = "run.json"
TABLE = "scores.csv"
PAGE = "index.html"
FILES = (RUN, TABLE, PAGE)  # of a run's folder, beside its logs
LOGS = "rows*.jsonl"
OVERLAYS = "overlays"
MAPS = "maps"
DICOM = "dicom"
FOLDERS = (OVERLAYS, MAPS, DICOM)
OBJECTS = ("seg.dcm", "pm.dcm", "sc_*.dcm")  # below DICOM, of each source
LARGEST = 2**20  # bytes of run.json


def log_files(out: Path) -> list[Path]:
    """List the logs of a run, also those of its jobs. Raises UserError for a pipe or a device."""
    logs = sorted(path for path in out.glob(LOGS) if path.exists())
    for path in logs:
        refuse_special(path)
    return logs


def is_run_folder(folder: Path) -> bool:
    """Return whether a folder holds a run of predict.py, by its run.json."""
    path = folder / RUN
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return False
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("program") == PROGRAM


def check_folder(out: Path, inputs: Iterable[Path]) -> None:
    """Raise UserError if a run cannot write to a folder without mixing its files with others.

    It is a folder that is read, or has files with the names of a run's but is that of no run.
    """
    if any(path.is_dir() and path.resolve() == out.resolve() for path in inputs):
        raise UserError(f"-o {out} is a folder of -i; pass another, such as -o {out / 'out'}")
    if is_run_folder(out):
        return
    foreign = [name for name in (*FILES, *FOLDERS) if (out / name).exists()]
    foreign += [path.name for path in log_files(out)]
    if foreign:
        raise UserError(
            f"-o {out} holds {', '.join(foreign[:3])}, but the {RUN} of {PROGRAM} is missing or "
            "damaged; move these files, or pass another -o DIR"
        )


def output_names(name: str) -> list[Path]:
    """Return what a run may have written for a source, relative to its folder; folders have all.

    Nothing for a name that leads out of the folder: logs are files, which others may have changed.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        return []
    images = [Path(OVERLAYS, f"{name}.jpg"), Path(MAPS, f"{name}.tif")]
    return [*images, Path(MAPS, name, "map.nii.gz"), Path(DICOM, name)]


def remove_outputs(out: Path, name: str) -> None:
    """Remove what a run wrote for a source, and the folders that are empty then."""
    for relative in output_names(name):
        path = out / relative
        with suppress(OSError):  # a name that the system cannot have
            objects = [file for pattern in OBJECTS for file in path.glob(pattern)]
            for file in objects if relative.parts[0] == DICOM else [path]:
                file.unlink(missing_ok=True)
        for folder in (out / part for part in (relative, *relative.parents[:-1])):
            with suppress(OSError):  # of other files
                folder.rmdir()
