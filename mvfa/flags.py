"""Parsers and the kinds of flags that all scripts share. No torch."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from errors import UserError
from mvfa.commands import as_installed

RANGE = re.compile(r"-[\d.]+:")  # how a range LOW:HIGH with a negative LOW starts


class Parser(argparse.ArgumentParser):
    """A parser with examples below its help, and errors as one line.

    Abbreviations are not allowed, so a misspelt flag is never taken for another. A range such as
    -200:250 is a value although it starts with a minus sign.
    """

    def __init__(self, prog: str, description: str, examples: Sequence[str] = ()) -> None:
        lines = [f"  python {prog} {example}" for example in examples]
        super().__init__(
            prog=prog,
            description=description,
            epilog="\n".join(["examples:", *lines]) if lines else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.register("type", Path, named_path)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Join each range that starts with a minus sign to its flag, and parse."""
        joined: list[str] = []
        for text in sys.argv[1:] if args is None else args:
            if RANGE.match(text) and joined and joined[-1].startswith("--"):
                joined[-1] += f"={text}"
            else:
                joined.append(text)
        return super().parse_known_args(joined, namespace)

    def format_help(self) -> str:
        """Return the help; of a wheel with the names of its commands."""
        return as_installed(super().format_help())

    def error(self, message: str) -> Any:
        """Raise a UserError instead of printing the usage."""
        raise UserError(f"{message} (see {self.prog} --help)")


def named_path(text: str) -> Path:
    """Return a path. Refuses an empty one, as of a shell's variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError(
            "it is empty; name a file or folder (. is the current one)"
        )
    return Path(text)


def number(
    kind: type[int] | type[float], low: float, inclusive: bool = True, top: float = math.inf
) -> Callable[[str], Any]:
    """Return a converter that refuses values below `low`, above `top`, and infinite ones."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not finite")
        if value > top:
            raise argparse.ArgumentTypeError(f"{text} is not at most {top:g}")
        if not (value > low or (inclusive and value == low)):
            bound = "at least" if inclusive else "above"
            raise argparse.ArgumentTypeError(f"{text} is not {bound} {low:g}")
        return value

    convert.__name__ = kind.__name__
    return convert


def truth(text: str) -> bool:
    """Convert yes or no, a flag's value."""
    if text.lower() not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"{text} is not yes or no")
    return text.lower() == "yes"


def cluster_option(text: str) -> tuple[str, str | int]:
    """Split KEY=VALUE; digits become an integer. UserError for anything else."""
    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise UserError(f"--cluster_options {text}: allowed is KEY=VALUE, as timeout_min=600")
    return key, int(value) if value.isdigit() else value


SEED = number(int, 0, top=2**32 - 1)  # numpy takes no larger one


class Flags:
    """Adds the flags of one group; every help text ends with the flag's default."""

    def __init__(self, parser: argparse.ArgumentParser, title: str) -> None:
        self.group = parser.add_argument_group(title)

    def add(self, name: str, text: str, default: object = None, **more: Any) -> None:
        """Add a flag. `shown` says the default in words where it depends on something."""
        shown = more.pop("shown", default)
        if isinstance(shown, bool):
            shown = "yes" if shown else "no"
        if isinstance(shown, tuple):
            shown = " ".join(map(str, shown))
        text = f"{text} (default: {shown})".replace("%", "%%")
        self.group.add_argument(f"--{name}", default=default, help=text, **more)

    def yes_no(self, name: str, text: str, default: bool | None, **more: Any) -> None:
        """Add a flag whose value is yes or no."""
        self.add(name, text, default, type=truth, metavar="yes|no", **more)
