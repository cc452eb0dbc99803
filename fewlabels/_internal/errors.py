"""The one exception that users are meant to read."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A user's mistake or a refused input: one line saying what, where and what to do.

    The command line prints it and exits with code 2; no traceback is shown.
    """

    alone = False
    """Whether one of several processes has it and the others do not."""


class PassingError(InputError):
    """One that is not the file's: it may be gone at the next start."""


def printable(text: str) -> str:
    r"""Without what would move the cursor or colour the screen, or cannot be written at all.

    >>> print(printable("a\nb"))
    a\nb
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def did_you_mean(name: str, known: Iterable[str], number: int = 1, prefix: str = "") -> str:
    """A question, after a space, with the known names that are nearest to a wrong one; empty if none is near.

    >>> did_you_mean("simsim", ["simclr", "simsiam"])
    ' Did you mean simsiam?'
    """
    near = get_close_matches(name, list(known), n=number)
    return f" Did you mean {', '.join(prefix + each for each in near)}?" if near else ""


def refuse_unknown(kind: str, name: str, known: Collection[str], more: str = "") -> None:
    """Refuse a name that is not known; ``more`` is what else may be chosen.

    Raises:
        InputError: naming those that are.
    """
    if name not in known:
        meant = did_you_mean(name, known)
        raise InputError(f"{kind} {name!r}: no such {kind}.{meant} Choose one of {', '.join(known)}{more}.")
