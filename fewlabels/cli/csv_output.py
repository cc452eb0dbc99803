"""Write CSV files that are safe to open in a spreadsheet."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from fewlabels._internal.errors import InputError, sanitize
from fewlabels._internal.files import atomic_write
from fewlabels.data.tables import FORMULA_PREFIXES


def escape_formula(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, by prefixing an apostrophe if needed.

    Text that is an apostrophe and then a formula gets a second apostrophe, so that reading restores the text.

    >>> escape_formula("=1+1"), escape_formula("-1"), escape_formula("'=")
    ("'=1+1", '-1', "''=")
    """
    if cell.lstrip("'")[:1] not in FORMULA_PREFIXES:
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a class name may be a number


def path_cell(path: PurePosixPath) -> str:
    """Return the path as a cell that no spreadsheet takes for a formula, with ``./`` before it if needed.

    Raises:
        InputError: if the path has a backslash or is not valid UTF-8.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        if "\\" not in text:
            return text if text[0].isalnum() else f"./{text}"
    raise InputError(f"{sanitize(text)}: this name cannot be written to a table. Rename the file.")


def path_to_images(out: Path, option: str, images: Path) -> PurePosixPath:
    """Return the relative path from the folder of a table to the folder of its images.

    Raises:
        InputError: if the table is not a .csv file in the folder of the images or in a parent folder.
    """
    if out.suffix.lower() != ".csv":
        raise InputError(f"{option} {out}: not a table. Give it the suffix .csv.")
    try:
        return PurePosixPath(images.resolve().relative_to(out.resolve().parent).as_posix())
    except ValueError:
        raise InputError(
            f"{option} {out}: must be in the folder of the images or a parent folder. Write {images / out.name}."
        ) from None


def refuse_other_file(out: Path | None, header: Sequence[str]) -> None:
    """Refuse to replace a file that has another header than this table: it may be the user's table of labels.

    Raises:
        InputError: naming the file.
    """
    if out is None or not out.exists() or (out.is_file() and not out.stat().st_size):
        return
    try:
        with out.open(newline="", encoding="utf-8", errors="replace") as text:
            first = next(csv.reader(text), None)
    except (csv.Error, OSError):
        first = None
    if first != list(header):
        raise InputError(f"{out}: exists and was not written by this command. Choose another name with --out.")


@contextmanager
def csv_rows(out: Path | None) -> Iterator[Any]:
    """Yield a CSV writer to standard output, or to a file that appears only when it is complete.

    Characters that are not valid in UTF-8, which a file name may have, are escaped.
    """
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        yield csv.writer(sys.stdout, lineterminator="\n")
        return
    with (
        atomic_write(out) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield csv.writer(file, lineterminator="\n")
