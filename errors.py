"""Expected failures: a mistake the user can fix, and the loss of another process of the run."""

# what to do about a mistake differs: a wheel has everything below `mvfa`, a checkout not (setup.py)
IN_WHEEL = __name__ != "errors"

KEPT = "files written so far are whole"  # said wherever a run ends early
MOST = 1_000  # characters of a message
END = 400  # of them of a longer message's end, which says what to do


def one_line(text: str) -> str:
    """Return text as one line of printable characters, its middle left out where it is long.

    What it quotes of a file may be anything. Other characters become escapes, as in Python.
    """
    if not text.isprintable():
        text = "".join(map(printable, text)).strip()
    return text if len(text) <= MOST else f"{text[: MOST - END - 5]} ... {text[-END:]}"


def printable(character: str) -> str:
    """Return a character, or what stands for it in a line."""
    if character.isprintable():
        return character
    if character.isspace():
        return " "
    return character.encode("unicode_escape").decode("ascii")


class UserError(Exception):
    """A wrong setting or file (exit status 2).

    The message is one line, whatever it quotes: what was given, what is allowed, what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class LostProcessError(Exception):
    """Another process of a distributed run ended early (exit status 1)."""
