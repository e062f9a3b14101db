"""The one exception for what a user can mend."""


class UserError(Exception):
    """A wrong setting or file. The message is one line: what was got, what is allowed, what to do (exit status 2)."""
