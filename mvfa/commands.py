"""The commands of an installation, mvfa-predict and others: each runs the script of its name."""

import re
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

from errors import IN_WHEEL

SCRIPTS = (
    "predict",
    "calibrate",
    "app",
    "prepare_data",
    "demo",
    "train_few",
    "train_zero",
    "test_few",
    "test_zero",
)
SHOWN = re.compile(rf"(?:\bpython )?\b({'|'.join(SCRIPTS)})\.py\b")


def run(script: str) -> None:
    """Run a script, as `python script.py` does."""
    if not IN_WHEEL:  # an editable installation: a script's folder comes first, as if it was run
        sys.path.insert(0, str(Path(__file__).parents[1]))
    module = f"mvfa.{script}" if IN_WHEEL else script
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def __getattr__(name: str) -> Any:
    """Return the function that runs a script, for its entry point (setup.py)."""
    if name in SCRIPTS:
        return partial(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def as_installed(text: str, in_wheel: bool = IN_WHEEL) -> str:
    """Return a message that names scripts, with the names of their commands in a wheel.

    `python predict.py` and predict.py become mvfa-predict. In a checkout it stays as it is.
    """
    if not in_wheel:
        return text
    return SHOWN.sub(lambda found: f"mvfa-{found[1].replace('_', '-')}", text)
