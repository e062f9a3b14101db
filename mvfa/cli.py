"""How a script starts and ends. No torch: mistakes in the flags, and help, come at once."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from CLIP.weight_files import examine_ahead, weight_path
from errors import LostProcessError, UserError
from mvfa.commands import as_installed
from mvfa.options import Options, parse

USER_ERROR = 2  # exit status
LOST_PROCESS = 1
INTERRUPTED = 130  # after Ctrl-C, by convention


def start(script: str, argv: Sequence[str] | None = None) -> Options:
    """Return the options of a script, and start hashing its weight file in the background.

    The script meanwhile imports what is slow. Raises UserError for flags that cannot work, and if
    there is no such file.
    """
    if script == "calibrate":
        from mvfa.calibrate_options import parse as parse_calibrate

        options = parse_calibrate(argv)
    else:
        options = parse(script, argv)
    examine_ahead(weight_path(options.model_name, options.clip_path))
    return options


def check_flags(script: str) -> None:
    """End the process at once for help or a mistake in the flags of a script that was started.

    A script calls this before its slow imports. The weight file is hashed meanwhile.
    """
    command(lambda: start(script))


def command(main: Callable[[], Any]) -> None:
    """Run a script's main; on an expected failure print one line and exit.

    A user's mistake is one line and exit status 2, the loss of another process of the run one line
    and exit status 1, Ctrl-C exit status 130.
    """
    # torchrun ends the other processes like this when one has failed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
        if "torch" in sys.modules:
            from mvfa.distributed import leave

            leave()
    except UserError as error:
        print(as_installed(f"error: {error}"), file=sys.stderr)
        sys.exit(USER_ERROR)
    except LostProcessError as error:
        remark = "files written so far are whole"
        print(f"error: another process was lost ({error}); {remark}", file=sys.stderr)
        sys.exit(LOST_PROCESS)
    except KeyboardInterrupt:
        print("\nstopped; files written so far are whole", file=sys.stderr)
        sys.exit(INTERRUPTED)
