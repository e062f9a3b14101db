"""The records of a run: what is finished, scores.csv, and what a stopped run goes on from.

<out>/run.json        the detector and the settings, which a run that goes on must share
<out>/rows*.jsonl     a line for each finished source, appended as it is finished
<out>/scores.csv      a row for each image, slice and volume, written at the end
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from CLIP.hashing import sha256
from dataset.layout import refuse_special
from errors import UserError
from mvfa.run_files import digest
from mvfa.schema import Entries, Many, finite, mapping, one_of, problem, text, whole
from prediction.run_folder import (
    FOLDERS,
    PAGE,
    RUN,
    TABLE,
    is_run_folder,
    log_files,
    remove_outputs,
)
from utils import naming, sweep, write_whole

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
DIGEST = "sha256"  # of the other entries of a record
SOURCE = "source_sha256"  # of the files that were scored

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
SCORED = Entries(
    {"name": text, "rows": Many(ROW, least=1), "notes": Many(text), SOURCE: text}, ("name", "rows")
)
FAILED = Entries({"name": text, "error": text}, ("name", "error"))


def line_of(record: Record) -> bytes:
    """Return the line of a log for a record, with a digest of everything else in it."""
    return json.dumps({**record, DIGEST: digest(record)}).encode() + b"\n"


def records(out: Path) -> Iterator[Record]:
    """Yield the records of a run, file by file; a line that was cut or changed is skipped.

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
    """Return the record of a line; None if the line is not one that `line_of` made."""
    if not line.endswith(b"\n"):
        return None
    with suppress(ValueError, RecursionError):
        record = json.loads(line)
        if not mapping(record) or record.pop(DIGEST, None) != digest(record):
            return None
        os.fsencode(json.dumps(record, ensure_ascii=False))  # raises for what no file name has
        schema = FAILED if "error" in record else SCORED
        return None if problem(record, schema) else record
    return None


def finished(out: Path) -> dict[str, str | None]:
    """Return the sources that were scored, by name, with their fingerprints (`fingerprint`).

    None for a source whose files could not be read again. Those that failed are tried again.
    """
    return {r["name"]: r.get(SOURCE) for r in records(out) if "error" not in r}


def fingerprint(paths: Iterable[Path]) -> str | None:
    """Return the SHA-256 of the SHA-256 of files, in their order; None if one cannot be read."""
    whole = hashlib.sha256()
    try:
        for path in paths:
            refuse_special(path)  # a pipe would be waited for
            whole.update(bytes.fromhex(sha256(path)))
    except (OSError, UserError):
        return None
    return whole.hexdigest()


def drop_changed(out: Path, sources: Iterable[tuple[str, Iterable[Path]]]) -> int:
    """Drop the records of sources, names and files, that are not the ones scored; return how many.

    Files of the same name may be others, or have been replaced. What is dropped is scored again.
    """
    done = finished(out)
    changed = {
        name
        for name, paths in sources
        if name in done and (done[name] is None or done[name] != fingerprint(paths))
    }
    if changed:
        for log in log_files(out):
            keep(log, lambda record: record["name"] not in changed)
    return len(changed)


def keep(path: Path, wanted: Callable[[Record], bool]) -> None:
    """Rewrite a log with the whole records that are wanted."""
    if not path.is_file():
        return
    kept = []
    with path.open("rb") as file:
        for line in file:
            record = parsed(line)
            if record is not None and wanted(record):
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
            keep(log, lambda record: "error" not in record)  # what failed is tried again
        for name in FOLDERS:
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
    if not is_run_folder(out):
        return  # not a folder of this program, or an empty one
    for name in {record["name"] for record in records(out)}:
        remove_outputs(out, name)
    for name in FOLDERS:
        sweep(out / name, below=True)
    for path in (*log_files(out), out / TABLE, out / PAGE, out / RUN):
        path.unlink(missing_ok=True)


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
        self.file = path.open("ab")

    def add(self, new: Sequence[Record]) -> None:
        """Append records; they are on disk when this returns."""
        with naming(self.path):
            self.file.write(b"".join(map(line_of, new)))
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # of what `add` could not write, and has said
            self.file.close()
