"""Patterns of file names that say of which case (patient) an image is: `(?P<case>...)`.

They are regular expressions of Python, and may be a stranger's, in an object.toml. The package
regex searches with them, since a search of Python's own module may never end. What that package has
beyond Python's is refused.
"""

import argparse
import re
from math import prod
from typing import TYPE_CHECKING

from dataset.wording import shortened
from errors import UserError

if TYPE_CHECKING:
    import regex

SECONDS = 1  # of a search in one name
FUZZY = re.compile(r"\{[^}]*[eids][^}]*\}")  # errors that regex would allow in a match
REPEATS = re.compile(r"\{(\d*),?(\d*)\}")
MOST_COPIES = 2**22  # characters of a pattern written out: regex copies what is repeated


def case_pattern(text: str) -> str:
    """Return a pattern of file names.

    Raises argparse.ArgumentTypeError for what is no regular expression, has no group `case`,
    matches fuzzily, or repeats so much that it would fill the memory.
    """
    import regex  # slow to import

    copies = prod(max(int(n or 1) or 1 for n in counts) for counts in REPEATS.findall(text))
    if copies * len(text) > MOST_COPIES:
        raise argparse.ArgumentTypeError(
            f"{text!r} repeats too much: {copies:,} times {len(text)} characters, of at most "
            f"{MOST_COPIES:,}; choose smaller numbers in {{}}, or + and *"
        )
    try:
        groups = re.compile(text).groupindex
        if regex.compile(text).groupindex != groups or FUZZY.search(text):
            raise re.error("fuzzy matching is not allowed")  # noqa: TRY301
    except (re.error, regex.error, OverflowError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    if "case" not in groups:
        allowed = r"allowed is a regular expression with a group (?P<case>...)"
        raise argparse.ArgumentTypeError(f"got {text!r}; {allowed}")
    return text


def fullmatch(pattern: str, name: str) -> "regex.Match[str] | None":
    """Return the match of a pattern with a whole name, None without one.

    Raises UserError for a pattern that takes longer than SECONDS.
    """
    import regex  # slow to import

    try:
        return regex.fullmatch(pattern, name, timeout=SECONDS)
    except TimeoutError as error:
        raise UserError(
            f"the pattern of cases {shortened(pattern)} takes more than {SECONDS} s for "
            f"{shortened(name)}; choose one without repetitions of repetitions"
        ) from error
