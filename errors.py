"""Expected failures: a mistake the user can fix, and the loss of another process of the run."""


class UserError(Exception):
    """A wrong setting or file (exit status 2).

    The message is one line: what was given, what is allowed, what to do.
    """


class LostProcessError(Exception):
    """Another process of a distributed run ended early (exit status 1)."""
