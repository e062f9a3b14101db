"""What files and libraries say, as a part of one line."""

MOST = 200  # characters


def one_line(text: object) -> str:
    """Return text on one line of printable characters, at most MOST of them."""
    printable = "".join(c if c.isprintable() else " " for c in str(text)[: 10 * MOST])
    return " ".join(printable.split())[:MOST]
