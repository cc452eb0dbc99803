"""The exception for user errors, and helpers for its messages."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A user error or an invalid input; its message is one line on what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """

    one_process_only = False
    """True if other processes of a distributed training may not have the error."""


class TransientError(InputError):
    """An error that does not lie in the input and may not occur again, such as too little memory."""


def sanitize(text: str) -> str:
    r"""Escape control characters and characters that cannot be printed.

    >>> print(sanitize("a\nb"))
    a\nb
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def did_you_mean(name: str, known: Iterable[str], number: int = 1, prefix: str = "") -> str:
    """A suggestion of known names that are similar to a wrong one, with a leading space; empty if none is similar.

    >>> did_you_mean("simsim", ["simclr", "simsiam"])
    ' Did you mean simsiam?'
    """
    near = get_close_matches(name, list(known), n=number)
    return f" Did you mean {', '.join(prefix + each for each in near)}?" if near else ""


def refuse_unknown(kind: str, name: str, known: Collection[str], more: str = "") -> None:
    """Refuse an unknown name; ``more`` describes further choices.

    Raises:
        InputError: naming the known ones.
    """
    if name not in known:
        meant = did_you_mean(name, known)
        raise InputError(f"{kind} {name!r}: no such {kind}.{meant} Choose one of {', '.join(known)}{more}.")
