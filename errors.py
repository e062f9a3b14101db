"""What ends a run that is no bug: a mistake that a user can mend, and another process that was lost."""


class UserError(Exception):
    """A wrong setting or file. The message is one line: what was got, what is allowed, what to do (exit status 2)."""


class LostProcessError(Exception):
    """Another process of the run has ended before its time (exit status 1)."""
