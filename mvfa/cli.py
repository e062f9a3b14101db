"""How a script starts and ends. No torch: mistakes in the flags, and help, come at once.

What this imports is little, so that Ctrl-C ends a script with one line from its first moments on.
"""

import sys
from collections.abc import Callable, Sequence

from mvfa.process import ending, guard_imports, shown, stoppable
from mvfa.streams import lasting_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mvfa.options import Options


def start(script: str, argv: Sequence[str] | None = None) -> "Options":
    """Return the options of a script, and start hashing its weight file in the background.

    The script meanwhile imports what is slow. Raises UserError for flags that cannot work, and if
    there is no such file.
    """
    from CLIP.weight_files import examine_ahead, weight_path

    if script == "calibrate":
        from mvfa.calibrate_options import parse as parse_calibrate

        options = parse_calibrate(argv)
    else:
        from mvfa.options import parse

        options = parse(script, argv)
    examine_ahead(weight_path(options.model_name, options.clip_path))
    return options


def check_flags(script: str) -> None:
    """End the process at once for help or a mistake in the flags of a script that was started.

    A script calls this before its slow imports. The weight file is hashed meanwhile.
    """
    guard_imports()
    command(lambda: start(script))


def command(main: Callable[[], object]) -> None:
    """Run a script's main; on an expected failure print one line and exit.

    A user's mistake and a trouble of the system (mvfa.system_errors) are one line and exit status
    2, the loss of another process of the run one line and exit status 1, a signal exit status 128
    and its number. A bug keeps its traceback.
    """
    with lasting_streams(), stoppable():
        status = 0
        try:
            main()
            if "torch" in sys.modules:
                from mvfa.distributed import leave

                leave()
        except SystemExit as error:
            sys.exit(shown(int(error.code or 0)))
        except (Exception, KeyboardInterrupt) as error:  # a bug is raised again
            found = ending(error)
            if found is None:
                raise
            line, status = found
            print(line, file=sys.stderr)
        status = shown(status)
        if status:
            sys.exit(status)
