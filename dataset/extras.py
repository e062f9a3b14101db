"""Packages that only some tasks need: imported when they are used (requirements-<extra>.txt)."""

from importlib import import_module
from types import ModuleType

from errors import IN_WHEEL, UserError


def install_command(extra: str, in_wheel: bool = IN_WHEEL) -> str:
    """Return the command that installs an extra: a wheel knows it by name, a checkout by file."""
    if in_wheel:
        return f'pip install "mvfa[{extra}]"'
    return f"pip install -r requirements-{extra}.txt"


def need(module: str, extra: str) -> ModuleType:
    """Import a module that requirements.txt does not install.

    Args:
        module: dotted name, such as "pydicom".
        extra: the part of `requirements-<extra>.txt` that names the file it is installed by.

    Raises:
        UserError: it cannot be imported; the message names the command that installs it.

    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"this needs the package {module}, which cannot be imported ({error}); "
            f"run {install_command(extra)}"
        ) from error
