"""Versions of what results depend on."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "torchvision", "numpy", "pillow")


@cache
def commit() -> str | None:
    """Return the commit of the working tree that this program runs from, None if unknown."""
    folder = Path(__file__).parent
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str | None]:
    """Return versions of Python and of the packages that numbers depend on, and the commit."""
    packages = {name: version(name) for name in PACKAGES} | {"torch": str(torch.__version__)}
    return {"python": platform.python_version(), **packages, "commit": commit()}
