"""CSV that commands leave, for people who open it in a spreadsheet."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewlabels.files import written_whole


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula.

    >>> harmless("=1+1")
    "'=1+1"
    """
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


@contextmanager
def csv_rows(out: Path | None) -> Iterator[Any]:
    """A writer of CSV, to the screen or to a file that appears when it is whole."""
    if out is None:
        yield csv.writer(sys.stdout, lineterminator="\n")
        return
    with written_whole(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        yield csv.writer(file, lineterminator="\n")
