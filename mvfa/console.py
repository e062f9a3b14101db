"""What a run shows: result lines on standard output, notes and progress bars on standard error.

With several processes only the first rank shows anything.
"""

import sys

from tqdm import tqdm

from mvfa.distributed import World


def show(text: str, world: World) -> None:
    """Print a line of results."""
    if world.first:
        print(text, flush=True)


def note(text: str, world: World) -> None:
    """Print a remark, which is not a result."""
    if world.first:
        print(f"note: {text}", file=sys.stderr, flush=True)


def progress(total: int, description: str, unit: str, world: World) -> tqdm:
    """Return a progress bar that vanishes at its end.

    There is none in a log file, where every update would leave a line.
    """
    # None: disabled unless standard error is a terminal
    disable = None if world.first else True
    return tqdm(total=total, desc=description, unit=unit, leave=False, disable=disable)
