"""Versions of what results depend on."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from errors import IN_WHEEL
from mvfa import __version__

COMMIT = Path(__file__).with_name("commit.txt")  # of a wheel (setup.py)
PACKAGES = ("torch", "torchvision", "numpy", "pillow")


@cache
def commit() -> str | None:
    """Return the commit of the working tree that this program runs from, None if unknown.

    Of a wheel, the one it was built of: git would find the repository that it is installed in.
    """
    if IN_WHEEL:
        return COMMIT.read_text().strip() if COMMIT.is_file() else None
    folder = Path(__file__).parent
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def installed(package: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Return versions of this program, its commit, and versions of what numbers depend on."""
    packages = {name: installed(name) for name in PACKAGES} | {"torch": str(torch.__version__)}
    own = {"mvfa": __version__, "python": platform.python_version()}
    return {**own, **packages, "commit": commit()}
