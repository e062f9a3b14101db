"""The records of a run: what is finished, scores.csv, and what a stopped run goes on from.

<out>/run.json        the detector and the settings, which a run that goes on must share
<out>/rows*.jsonl     a line for each finished source, appended as it is finished
<out>/scores.csv      a row for each image, slice and volume, written at the end
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dataset.layout import refuse_special
from errors import UserError
from mvfa.schema import Entries, Many, finite, mapping, one_of, problem, text, whole
from utils import naming, sweep, write_whole

RUN = "run.json"
TABLE = "scores.csv"
PAGE = "index.html"
FILES = (RUN, TABLE, PAGE)  # of a run's folder, beside its logs
OVERLAYS = "overlays"
MAPS = "maps"
DICOM = "dicom"
COLUMNS = (
    "file",
    "slice",
    "score",
    "p_value",
    "normals_below",
    "normals",
    "label",
    "threshold",
    "display",
    "probability",
    "boxes",
    "error",
    "notes",
)
DISCOVERY = "discovery"  # the column of --fdr

Record = dict[str, Any]


def blank_or(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a predicate for "", which a volume has in some columns, and what another takes."""
    return lambda value: value == "" or check(value)


ROW = Entries(
    {
        "score": finite,
        "label": one_of("normal", "abnormal"),
        "threshold": finite,
        "p_value": blank_or(finite),
        "normals_below": blank_or(whole),
        "normals": blank_or(whole),
        "slice": blank_or(whole),
    },
    needed=("score", "label", "threshold", "p_value", "normals_below", "normals"),
)
SCORED = Entries({"name": text, "rows": Many(ROW, least=1), "notes": Many(text)}, ("name", "rows"))
FAILED = Entries({"name": text, "error": text}, ("name", "error"))


def log_files(out: Path) -> list[Path]:
    """List the logs of a run, also those of its jobs. Raises UserError for a pipe or a device."""
    logs = sorted(path for path in out.glob("rows*.jsonl") if path.exists())
    for path in logs:
        refuse_special(path)
    return logs


def records(out: Path) -> Iterator[Record]:
    """Yield the records of a run, file by file; a line that was cut is skipped.

    Of a source that has several, as after a change of the number of jobs, the first is taken.
    """
    seen = set()
    for path in log_files(out):
        with path.open("rb") as file:
            for line in file:
                record = parsed(line)
                if record is not None and record["name"] not in seen:
                    seen.add(record["name"])
                    yield record


def parsed(line: bytes) -> Record | None:
    """Return the record of a line; None if the line was cut or is not one."""
    if not line.endswith(b"\n"):
        return None
    with suppress(ValueError, RecursionError):
        record = json.loads(line)
        os.fsencode(json.dumps(record, ensure_ascii=False))  # raises for what no file name has
        schema = FAILED if mapping(record) and "error" in record else SCORED
        return None if problem(record, schema) else record
    return None


def finished(out: Path) -> set[str]:
    """Return the names of sources that were scored; those that failed are tried again."""
    return {record["name"] for record in records(out) if "error" not in record}


def drop_failures(path: Path) -> None:
    """Rewrite a log without failures and cut lines, so that what failed is tried again."""
    if not path.is_file():
        return
    kept = []
    with path.open("rb") as file:
        for line in file:
            record = parsed(line)
            if record is not None and "error" not in record:
                kept.append(line)
    write_whole(path, lambda part: part.write_bytes(b"".join(kept)))


def begin(out: Path, settings: Mapping[str, Any]) -> bool:
    """Start a run in its folder; return whether it goes on from an earlier one.

    Raises UserError if the folder holds results of other settings.
    """
    path = out / RUN
    if path.is_file():
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            earlier = None
        if earlier != dict(settings):
            different = different_keys(earlier, settings)
            raise UserError(
                f"{out} holds results of another command ({different}); pass another -o DIR, or "
                "--overwrite to remove them"
            )
        for log in log_files(out):
            drop_failures(log)
        for name in (OVERLAYS, MAPS, DICOM):
            sweep(out / name, below=True)
        return True
    text = json.dumps(settings, indent=2) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return False


def different_keys(earlier: Any, settings: Mapping[str, Any]) -> str:
    """Return which settings differ, in words."""
    if not isinstance(earlier, dict):
        return f"{RUN} cannot be read"
    names = [k for k in {**settings, **earlier} if settings.get(k) != earlier.get(k)]
    return f"another {', '.join(names[:3])}"


def clear(out: Path) -> None:
    """Remove what earlier runs wrote, and no other file: --overwrite."""
    import shutil

    if not (out / RUN).is_file():
        return  # not a folder of this program, or an empty one
    for path in (*log_files(out), out / TABLE, out / PAGE, out / RUN):
        path.unlink(missing_ok=True)
    for name in (OVERLAYS, MAPS, DICOM):
        shutil.rmtree(out / name, ignore_errors=True)


def table_rows(record: Record) -> Iterator[dict[str, Any]]:
    """Yield the rows of scores.csv of a record."""
    if "error" in record:
        yield {"file": record["name"], "error": record["error"]}
        return
    for row in record["rows"]:
        boxes = row.get("boxes")
        notes = record.get("notes", ()) if row is main_row(record) else ()
        yield {
            **row,
            "file": record["name"],
            "boxes": json.dumps(boxes) if boxes else "",
            "notes": "; ".join(notes),
        }


def write_table(out: Path, discoveries: Mapping[str, bool] | None = None) -> Path:
    """Write scores.csv from the logs; `discoveries` fills the column of --fdr."""
    columns = [*COLUMNS, DISCOVERY] if discoveries is not None else list(COLUMNS)

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            for record in records(out):
                for row in table_rows(record):
                    if discoveries is not None and not row.get("slice"):
                        row[DISCOVERY] = {True: "yes", False: "no"}.get(
                            discoveries.get(record["name"])  # type: ignore[arg-type]
                        )
                    writer.writerow(row)

    write_whole(out / TABLE, write)
    return out / TABLE


def main_row(record: Record) -> dict[str, Any]:
    """Return the row of a whole source: the image's, or the volume's, which is the last."""
    return record["rows"][-1]


class Log:
    """Appends the records of finished sources to a run's log, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("a", encoding="utf-8")

    def add(self, new: Sequence[Record]) -> None:
        """Append records; they are on disk when this returns."""
        with naming(self.path):
            self.file.write("".join(json.dumps(record) + "\n" for record in new))
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # of what `add` could not write, and has said
            self.file.close()
