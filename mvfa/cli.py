"""How a script starts and how it ends. Needs no torch: mistakes in the flags, and help, come at once."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from CLIP.hashing import hash_ahead
from CLIP.weight_files import weight_path
from errors import LostProcessError, UserError
from mvfa.options import Options, parse

INTERRUPTED = 130  # exit status after Ctrl-C, by convention


def start(script: str, argv: Sequence[str] | None = None) -> Options:
    """The options of a script, whose weight file is hashed from now on, while the script imports what is slow to come.

    UserError for what cannot work, and if there is no such file.
    """
    options = parse(script, argv)
    hash_ahead(weight_path(options.model_name, options.clip_path))
    return options


def command(main: Callable[[], Any]) -> None:
    """Run a script's main: a user's mistake is one line and exit status 2, Ctrl-C exit status 130.

    The loss of another process of the run is told in one line, too, with exit status 1.
    """
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # torchrun ends the others so when one has failed
    try:
        main()
        from mvfa.distributed import leave  # slow to import, and by now imported

        leave()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except LostProcessError as error:
        print(
            f"error: another process was lost ({error}); files written so far are whole",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; files written so far are whole", file=sys.stderr)
        sys.exit(INTERRUPTED)
