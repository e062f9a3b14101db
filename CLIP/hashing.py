"""SHA-256 of weight files and detectors, computed in a background thread. Needs no torch.

Importing torch takes longer than hashing a file, so both run at the same time.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock, Thread

from errors import UserError

_hashes: dict[tuple[str, Path, int, int], Future[str]] = {}
_turn = Lock()  # one file after another: torch, imported meanwhile, is to keep a core


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Map a file into memory within. Raises OSError if it cannot be read.

    Hashing then takes one call, during which other threads run.
    """
    if not path.stat().st_size:  # nothing can be mapped
        yield memoryview(b"")
        return
    with (
        path.open("rb") as file,
        mmap(file.fileno(), 0, access=ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        yield view


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError if it cannot be read."""
    with mapped(path) as content:
        return hashlib.sha256(content).hexdigest()


def in_background(work: Callable[[], str]) -> Future[str]:
    """Run `work` in a daemon thread and return its future, which also carries an OSError."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            with _turn:
                result = work()
            future.set_result(result)
        except Exception as error:  # noqa: BLE001  # raised again where the hash is needed
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def once(path: Path, kind: str, work: Callable[[], str]) -> Future[str]:
    """Start to compute a hash of a file in the background, unless that was done before.

    `kind` says which hash it is. A file is hashed again when its size or modification time has
    changed.
    """
    status = path.stat()
    key = (kind, path.resolve(), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = in_background(work)
    return _hashes[key]


def hash_ahead(path: Path) -> Future[str]:
    """Start to compute the SHA-256 of a file in the background, see `once`."""
    return once(path, "file", lambda: sha256(path))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, waiting for `hash_ahead` if necessary.

    Raises UserError if the file cannot be read.
    """
    try:
        return hash_ahead(path).result()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); fix it or pass another --clip_path"
        ) from error
