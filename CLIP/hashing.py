"""SHA-256 of weight files, computed in a background thread. Needs no torch.

Importing torch takes longer than hashing a file, so both run at the same time.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from errors import UserError

SLICE = 2**24  # bytes hashed in one call; other threads run meanwhile

_hashes: dict[tuple[Path, int, int], Future[str]] = {}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    buffer = bytearray(SLICE)
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(buffer):
            digest.update(memoryview(buffer)[:read])
    return digest.hexdigest()


def in_background(work: Callable[[], str]) -> Future[str]:
    """Run `work` in a daemon thread and return its future, which also carries an OSError."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001  # raised again where the hash is needed
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def hash_ahead(path: Path) -> Future[str]:
    """Start to compute the SHA-256 of a file in the background, unless that was done before.

    A file is hashed again when its size or modification time has changed.
    """
    status = path.stat()
    key = (path.resolve(), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = in_background(lambda: sha256(path))
    return _hashes[key]


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
