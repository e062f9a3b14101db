"""What files and libraries say, as a part of one line."""

from errors import one_line

MOST = 200  # characters


def shortened(text: object) -> str:
    """Return text as a part of a message: one line, at most MOST characters of its beginning."""
    return " ".join(one_line(str(text)[: 2 * MOST]).split())[:MOST]
