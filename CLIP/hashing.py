"""SHA-256 of weight files, computed in the background. Needs no torch.

Importing torch takes longer than hashing a file, so `hash_ahead` lets one run beside the other.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from errors import UserError

SLICE = 2**24  # bytes hashed in one call, during which other threads run

_hashes: dict[tuple[Path, int, int], Future[str]] = {}


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    digest, buffer = hashlib.sha256(), bytearray(SLICE)
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(buffer):
            digest.update(memoryview(buffer)[:read])
    return digest.hexdigest()


def in_background(work: Callable[[], str]) -> Future[str]:
    """The result to come of `work`, in a thread that does not keep the process from ending."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except OSError as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def hash_ahead(path: Path) -> Future[str]:
    """The SHA-256 to come of a file, begun in the background and worked out once while the file does not change."""
    status = path.stat()
    key = path.resolve(), status.st_size, status.st_mtime_ns
    if key not in _hashes:
        _hashes[key] = in_background(lambda: sha256(path))
    return _hashes[key]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, worked out once while the file does not change. UserError if it cannot be read."""
    try:
        return hash_ahead(path).result()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); mend it or pass another --clip_path"
        ) from error
