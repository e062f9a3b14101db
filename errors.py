"""Expected failures: a mistake the user can fix, and the loss of another process of the run."""

# what to do about a mistake differs: a wheel has everything below `mvfa`, a checkout not (setup.py)
IN_WHEEL = __name__ != "errors"

KEPT = "files written so far are whole"  # said wherever a run ends early


class UserError(Exception):
    """A wrong setting or file (exit status 2).

    The message is one line: what was given, what is allowed, what to do.
    """


class LostProcessError(Exception):
    """Another process of a distributed run ended early (exit status 1)."""
