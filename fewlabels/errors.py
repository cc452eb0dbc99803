"""The one exception that users are meant to read."""


class InputError(ValueError):
    """A user's mistake or a refused input: one line saying what, where and what to do.

    The command line prints it and exits with code 2; no traceback is shown.
    """

    alone = False
    """Whether one of several processes has it and the others do not."""
