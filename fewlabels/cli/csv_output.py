"""CSV that commands leave, for people who open it in a spreadsheet."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from fewlabels._internal.errors import InputError, printable
from fewlabels._internal.files import written_whole
from fewlabels.data.tables import FORMULAS


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula.

    >>> harmless("=1+1"), harmless("-1"), harmless("'=")  # the last was harmless, but would be read as another
    ("'=1+1", '-1', "''=")
    """
    if cell.lstrip("'")[:1] not in FORMULAS:
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a number may be the name of a class


def path_cell(path: PurePosixPath) -> str:
    """One that no spreadsheet takes for a formula, and that names the same file.

    Raises:
        InputError: if no table can hold it.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        if "\\" not in text:
            return text if text[0].isalnum() else f"./{text}"
    raise InputError(f"{printable(text)}: a name that no table can hold. Rename it.")


def way_to_images(out: Path, option: str, images: Path) -> PurePosixPath:
    """From the folder of a table to come to that of its images.

    Raises:
        InputError: if no table of these images can be there.
    """
    if out.suffix.lower() != ".csv":
        raise InputError(f"{option} {out}: no table. Let its name end in .csv.")
    try:
        return PurePosixPath(images.resolve().relative_to(out.resolve().parent).as_posix())
    except ValueError:
        raise InputError(
            f"{option} {out}: does not lie in {images} or above it, as a table's paths need. Write {images / out.name}."
        ) from None


def refuse_foreign(out: Path | None, head: Sequence[str]) -> None:
    """Refuse to replace a file that is no earlier table with this head: it may be the one with the labels.

    Raises:
        InputError: naming it.
    """
    if out is None or not out.exists() or (out.is_file() and not out.stat().st_size):
        return
    try:
        with out.open(newline="", encoding="utf-8", errors="replace") as text:
            first = next(csv.reader(text), None)
    except (csv.Error, OSError):
        first = None
    if first != list(head):
        raise InputError(f"{out}: is there, and no table of this command has made it. Choose another name with --out.")


@contextmanager
def csv_rows(out: Path | None) -> Iterator[Any]:
    """A writer of CSV, to the screen or to a file that appears when it is whole.

    What is no text in UTF-8, as a file's name may be, is escaped.
    """
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        yield csv.writer(sys.stdout, lineterminator="\n")
        return
    with written_whole(out) as place, place.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        yield csv.writer(file, lineterminator="\n")
