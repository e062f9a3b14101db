"""The start and the end of a script's process: what stops it, and no work that nobody needs.

guard_imports()
before_imports()
after_imports()
end(0)  # when everything is written

docs/trouble.md says how a script ends, docs/speed.md what the imports need.
"""

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

from errors import KEPT, LostProcessError, UserError
from mvfa.streams import NAMES, failure

TYPE_CHECKING = False  # that of typing, which takes milliseconds that a signal may come in
if TYPE_CHECKING:
    from typing import NoReturn

BLAS_THREADS = "OPENBLAS_NUM_THREADS"  # of numpy's matrix products, not of torch's
USER_ERROR = 2  # exit status
LOST_PROCESS = 1
SIGNALLED = 128  # and the number of the signal, by convention
INTERRUPTED = SIGNALLED + signal.SIGINT
GRACE = 1.0  # seconds within which further signals belong to the first
STOPPED = f"stopped; {KEPT}"
# those that stop a run; Windows has no SIGHUP
STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stopped(KeyboardInterrupt):
    """A signal that stops a run, raised where the run is, so that it cleans up.

    Args:
        number: of the signal.

    """

    def __init__(self, number: int) -> None:
        self.number = number


def status_of(stop: KeyboardInterrupt) -> int:
    """Return the exit status of a run that was stopped: 130 after Ctrl-C, 143 after SIGTERM."""
    return SIGNALLED + getattr(stop, "number", signal.SIGINT)


def ending(error: BaseException) -> tuple[str, int] | None:
    """Return the line and the exit status that an error ends a script with, None for a bug."""
    if isinstance(error, UserError):
        from mvfa.commands import as_installed

        return as_installed(f"error: {error}"), USER_ERROR
    if isinstance(error, LostProcessError):
        return f"error: another process was lost ({error}); {KEPT}", LOST_PROCESS
    if isinstance(error, KeyboardInterrupt):
        return f"\n{STOPPED}", status_of(error)
    from mvfa.system_errors import describe

    line = describe(error)
    return None if line is None else (f"error: {line}", USER_ERROR)


def leave_at_once(number: int, frame: FrameType | None) -> "NoReturn":  # noqa: ARG001
    """End the process by a signal while nothing is written: during imports, or at the end."""
    if sys.__stderr__ is not None:
        with suppress(OSError):
            os.write(sys.__stderr__.fileno(), f"\n{STOPPED}\n".encode())
    os._exit(SIGNALLED + number)


def stop(number: int, frame: FrameType | None) -> "NoReturn":  # noqa: ARG001
    """Raise Stopped for a signal; a later one ends the process at once.

    Others that come with it are ignored while it cleans up: `timeout` sends two.
    """
    first = time.monotonic()

    def again(number: int, frame: FrameType | None) -> None:
        if time.monotonic() - first > GRACE:
            leave_at_once(number, frame)

    on_signals(again)
    raise Stopped(number)


def on_signals(handler: signal.Handlers | object) -> dict[int, object]:
    """Set what a signal that stops a run does; return what each did before.

    What the caller ignores, as nohup does SIGHUP, stays ignored.
    """
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, earlier in before.items():
        if earlier is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]
    return dict(before)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, a signal that stops a run raises Stopped, a KeyboardInterrupt."""
    before = on_signals(stop)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)  # type: ignore[arg-type]


def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End a script whose imports failed with one line where that is no bug: too little memory."""
    found = ending(error)
    if found is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(found[0], file=sys.stderr, flush=True)
    os._exit(found[1])


def guard_imports() -> None:
    """Let a script end with one line, and its status, from here on, while it is imported."""
    on_signals(leave_at_once)
    sys.excepthook = uncaught


def before_imports() -> None:
    """Prepare for imports: no search for unreachable objects, and one thread for numpy's products.

    While torch is imported Python searches again and again, and finds next to nothing. numpy's
    other threads would take turns with the file that is hashed meanwhile.
    """
    gc.disable()
    os.environ.setdefault(BLAS_THREADS, "1")


def after_imports() -> None:
    """Search for unreachable objects again, among those that are made from here on."""
    gc.freeze()
    gc.enable()


def shown(status: int) -> int:
    """Flush what was printed; return the status, or say what is lost and return USER_ERROR.

    What nobody reads any more (`| head`) is not lost.
    """
    for name in NAMES:
        stream = getattr(sys, name)
        stream.flush()
        if error := failure(stream):
            line = f"error: what was printed is lost ({error.strerror}); {KEPT}"
            print(line, file=sys.stderr, flush=True)
            return status or USER_ERROR
    return status


def end(status: int) -> "NoReturn":
    """End the process at once, with an exit status: Python takes no object apart.

    Files must be closed, and threads have ended.
    """
    os._exit(shown(status))
