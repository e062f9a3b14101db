"""Locks that keep two runs from writing to one folder or file. Needs no torch.

A lock belongs to the system and ends with its process, however that ends, so what a killed run
leaves blocks nobody. The file `.lock` says who holds it, and goes when the run ends.
"""

import errno
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from errors import UserError

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)  # by some network file systems

_held: "list[BaseFileLock]" = []  # of the main that runs, the latest last

P = ParamSpec("P")
R = TypeVar("R")


def lock_of(file: Path) -> Path:
    """Return the lock file of one file; that of a folder is LOCK within."""
    return file.with_name(f".{file.name}{LOCK}")


def holder(path: Path) -> tuple[int, str]:
    """Return process number and machine of who holds a lock, by its file; 0 and "" if unknown."""
    try:
        process, _, name = path.read_text(encoding="utf-8").strip().partition(" ")
        return int(process), name
    except (OSError, ValueError):
        return 0, ""


def filelock() -> ModuleType:
    """Return the package filelock; without locks of the system its own files must do."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return import_module("filelock")


def acquire(path: Path) -> "BaseFileLock | None":
    """Return the lock of a file, which is now held; None where the file system has no locks.

    Raises filelock.Timeout if another process holds it.
    """
    lock = filelock().FileLock(path, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise
    with suppress(OSError):  # on a full disk the message of another run does not say who holds it
        path.write_text(f"{os.getpid()} {platform.node()}\n", encoding="utf-8")
    return lock


def let_go(lock: "BaseFileLock") -> None:
    """Remove the file of a lock, which nobody else can hold yet, and release it."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def hold(path: Path, what: str, remedy: str) -> None:
    """Hold a lock until the main that runs ends, see `exclusive`.

    Raises UserError with one line, "another run writes to `what`; `remedy`", if another holds it.
    """
    try:
        lock = acquire(path)
    except filelock().Timeout as error:
        process, name = holder(path)
        who = f"another run (process {process} on {name})" if process else "another run"
        raise UserError(f"{who} writes to {what}; {remedy}") from error
    if lock is not None:
        _held.append(lock)


def exclusive(main: Callable[P, R]) -> Callable[P, R]:
    """Make a main let go of the locks that it holds when it ends."""

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with released():
            return main(*args, **kwargs)

    return run


def hold_folder(folder: Path, flag: str) -> None:
    """Hold a folder of results, which exists. Raises UserError if another run holds it."""
    hold(folder / LOCK, f"{flag} {folder}", f"wait for it, or pass another {flag} DIR")


def hold_file(file: Path, flag: str) -> None:
    """Hold a file, whose folder exists. Raises UserError if another run holds it."""
    hold(lock_of(file), str(file), f"wait for it, or pass another {flag}")


@contextmanager
def released() -> Iterator[None]:
    """At the end, let go of the locks that were taken within."""
    before = len(_held)
    try:
        yield
    finally:
        while len(_held) > before:
            let_go(_held.pop())
