"""The start and the end of a script's process, without work that nobody needs (docs/speed.md).

before_imports()
after_imports()
end(0)  # when everything is written
"""

import gc
import os
import sys
from typing import NoReturn

BLAS_THREADS = "OPENBLAS_NUM_THREADS"  # of numpy's matrix products, not of torch's


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


def end(status: int) -> NoReturn:
    """End the process at once, with an exit status: Python takes no object apart.

    Files must be closed, and threads have ended.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
