"""Cases (patients) that file names show, where a name that shows none has to be told apart."""

import re
from pathlib import Path

from dataset.draws import CASE


def read_case(name: str, pattern: str = "") -> str | None:
    """Return the case that a file name shows, None if it shows none.

    `pattern` is a regular expression with a group `case` that matches the whole name without its
    suffix; "": the rule of dataset/draws.py, all before the last `_` or `-` followed by a number.
    """
    stem = Path(name).stem
    match = re.fullmatch(pattern, stem) if pattern else CASE.fullmatch(stem)
    if match is None:
        return None
    return match["case"] if pattern else match[1]
