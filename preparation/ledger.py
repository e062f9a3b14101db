"""The record of downloads: size, SHA-256 and date of every file that arrived.

`<data>/downloads.lock.json` tells a later download of the same name whether it has the same
content. It belongs to the user, beside the images.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dataset.layout import refuse_special
from dataset.texts import MOST_BYTES
from errors import UserError

RECORD = "downloads.lock.json"
IN_USE = ".downloads.lock"


@dataclass(frozen=True)
class Entry:
    """One file that arrived.

    Args:
        url: its address, or the path of a file that was fetched by hand.
        size: bytes.
        sha256: in hexadecimal.
        date: UTC, ISO 8601.
        files: SHA-256 of the files that were taken out of an archive, by name; empty for images.

    """

    url: str
    size: int
    sha256: str
    date: str
    files: dict[str, str] = field(default_factory=dict)


def checked(entry: Entry) -> Entry:
    """Return an entry. Raises TypeError if a value is not of its type."""
    texts = [entry.url, entry.sha256, entry.date, *entry.files, *entry.files.values()]
    if type(entry.size) is not int or not all(isinstance(text, str) for text in texts):
        raise TypeError("an entry has a value of another type")
    return entry


class Ledger:
    """The entries of a record by name, written at every change."""

    def __init__(self, data_path: Path) -> None:
        """Read the record of a data folder. Raises UserError if it is damaged."""
        self.path = data_path / RECORD
        self.entries: dict[str, Entry] = {}
        if self.path.exists():
            refuse_special(self.path, MOST_BYTES)
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                self.entries = {name: checked(Entry(**entry)) for name, entry in content.items()}
            except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(
                    f"{self.path} cannot be read as a record of downloads ({error}); fix it, or "
                    "remove it if no earlier download matters"
                ) from error

    def check(self, name: str, sha256: str, accept_new: bool) -> None:
        """Raise UserError if a file of this name had another content, unless that is accepted."""
        entry = self.entries.get(name)
        if entry is not None and entry.sha256 != sha256 and not accept_new:
            raise UserError(
                f"{name} is not what it was: SHA-256 {sha256[:12]}... now, "
                f"{entry.sha256[:12]}... on {entry.date[:10]} ({self.path}); if the new one is "
                "right, pass --accept_new"
            )

    def add(
        self, name: str, url: str, size: int, sha256: str, files: dict[str, str] | None = None
    ) -> None:
        """Record a file, and write the record. Raises UserError if it cannot be written."""
        from utils import write_whole  # imports torch, which a refused download need not wait for

        date = datetime.now(UTC).isoformat(timespec="seconds")
        self.entries[name] = Entry(url, size, sha256, date, files or {})
        content = {key: asdict(entry) for key, entry in sorted(self.entries.items())}
        text = json.dumps(content, indent=2) + "\n"
        try:
            write_whole(self.path, lambda part: part.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}); make room or change --data_path"
            ) from error


@contextmanager
def sole_download(data_path: Path) -> Iterator[None]:
    """Keep other downloads out of a data folder, which is made. Raises UserError."""
    from filelock import FileLock, Timeout

    try:
        data_path.mkdir(parents=True, exist_ok=True)
        with FileLock(data_path / IN_USE, timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"another download into {data_path} is running; wait for it, or pass another "
            "--data_path DIR"
        ) from error
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise UserError(
            f"--data_path {data_path} cannot be written to ({error.strerror}); choose another"
        ) from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
