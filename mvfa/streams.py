"""Standard output and error that outlive their readers: a run never ends for want of one.

    with lasting_streams():
        main()

`train_few.py ... | head -1` goes on when head has ended: what is shown after that goes nowhere, and
the files of the run are written. Characters that a stream cannot show, such as the bytes of a file
name that is not UTF-8, are shown as escapes.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

NAMES = ("stdout", "stderr")


class Lasting:
    """A text stream that drops what cannot be written any more; all else is the stream's own.

    Args:
        stream: the stream.

    Attributes:
        failure: the first error that is more than a reader that has gone, None without one.

    """

    def __init__(self, stream: io.TextIOBase) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Let everything from here on go nowhere, what is still in the buffer too."""
        if not isinstance(error, BrokenPipeError) and self.failure is None:
            self.failure = error
        with suppress(OSError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def failure(stream: object) -> OSError | None:
    """Return why what was shown on a stream is lost, None if it is not or nobody read it."""
    return stream.failure if isinstance(stream, Lasting) else None


def open_closed() -> None:
    """Open standard streams that the caller has closed (`2>&-`), to nowhere.

    Else the next file that is opened would take the place of one, and get its messages.
    """
    for number, name in enumerate(NAMES, 1):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY)
            if descriptor < number:  # standard input is closed too; it takes the first
                descriptor = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8"))


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Within, print to standard streams that outlive their readers and show every character."""
    open_closed()
    before = {name: getattr(sys, name) for name in NAMES}
    for name, stream in before.items():
        if isinstance(stream, Lasting):
            continue
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Lasting(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)
