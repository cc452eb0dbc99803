"""The command ``check``."""

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fewlabels._internal.errors import InputError, sanitize
from fewlabels.cli.csv_output import csv_rows, escape_formula, path_cell, path_to_images
from fewlabels.cli.options import (
    Data,
    DataFolder,
    Out,
    Root,
    Size,
    at_least,
    command_line,
    fit_command,
    resumable,
)
from fewlabels.data.tables import TABLE_SUFFIXES

if TYPE_CHECKING:
    from fewlabels.audit.scan import Finding, Scan

HEADER = ("path", "label", "split", "group", "note")
"""Columns of the clean table."""


def check(
    dataset: Data,
    fix: Annotated[
        Path | None,
        typer.Option(help="Write a clean table, in the folder of the images or a parent folder.", metavar="FILE"),
    ] = None,
    size: Size = None,
    root: Root = None,
    out: Out = Path("runs/check"),
    data: DataFolder = None,
) -> None:
    """Find unreadable files, duplicates, leaks, label issues and outliers in a data set.

    A leak is a test image that is also a training image. No file is changed. With --fix a table without unusable
    images, duplicates and leaks is written, which every command takes as DATA.

    Example: `fewlabels check photos --fix clean.csv`
    """
    from fewlabels._internal.environment import provenance
    from fewlabels._internal.files import writable_folder, write_json
    from fewlabels.audit.scan import as_json, clean_rows, findings, scan
    from fewlabels.report.check import write_check_report
    from fewlabels.training.callbacks import progress_bar

    if size is not None:
        at_least("--size", size, 8)
    prefix = None if fix is None else _prefix(fix, Path(dataset))
    console = Console(markup=False)
    writable_folder(out)
    with resumable(), progress_bar(console, "reading", "files") as on_progress:
        scanned = scan(dataset, data, size, console.print, on_progress, root or ())
    if fix is not None and scanned.listing.contents is not None:
        raise InputError(
            f"--fix {fix}: {dataset} contains the images itself, so a table cannot list them. Leave out --fix."
        )
    with console.status("Searching for duplicates, leaks and label issues"):
        found = findings(scanned)
    result = as_json(scanned, found)
    write_json(out / "check.json", {"name": "check", **provenance(command_line()), "data": dataset, **result})
    report = write_check_report(out)
    _print_summary(console, result, found)
    if fix is not None and prefix is not None:
        rows = [[path_cell(prefix / name), *map(escape_formula, cells)] for name, *cells in clean_rows(scanned, found)]
        _refuse_edited_labels(fix, prefix, scanned)
        with csv_rows(fix) as writer:
            writer.writerow(HEADER)
            writer.writerows(rows)
        line = f"{len(rows):,} of {len(scanned.listing.names):,} images are in {fix}. Next: {fit_command(fix)}"
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"Report: {report}", soft_wrap=True)


def _prefix(fix: Path, data: Path) -> PurePosixPath:
    """Return the relative path from the clean table's folder to the folder of the images.

    Raises:
        InputError: if the table cannot be written there, or would replace a file that is not a clean table.
    """
    from fewlabels.data.dataset import existing_path
    from fewlabels.data.named import NAMED

    if str(data) not in NAMED:
        existing_path(str(data))
    folder = data if data.is_dir() else data.parent
    if not data.is_dir() and data.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"--fix {fix}: {data} has no image files to list in a table. Leave out --fix.")
    prefix = path_to_images(fix, "--fix", folder)
    if fix.exists() and not fix.read_bytes().startswith(",".join(HEADER).encode()):
        raise InputError(f"--fix {fix}: exists and is not a clean table. Choose another name.")
    return prefix


def _refuse_edited_labels(fix: Path, prefix: PurePosixPath, scanned: "Scan") -> None:
    """Refuse to replace a clean table whose labels were edited."""
    if not fix.exists():
        return
    rows = {str(prefix / name): row for row, name in enumerate(scanned.listing.names)}
    with fix.open(newline="", encoding="utf-8", errors="replace") as file:
        for cells in csv.DictReader(file):
            path, label = cells["path"].removeprefix("./"), cells["label"]
            if label and path in rows and label != escape_formula(scanned.label(rows[path])):
                raise InputError(
                    f"--fix {fix}: has the label {label!r} for {path}, unlike these data. Move the file away to "
                    "discard its labels, or choose another name."
                )


def _print_summary(console: Console, result: dict[str, Any], found: Sequence["Finding"]) -> None:
    counts = result["counts"]
    line = f"{counts['images']:,} images, {counts['labelled']:,} labels of {len(result['classes']):,} classes."
    console.print(line, highlight=False)
    for key, unit in (("sizes", "pixels"), ("channels", "channels"), ("formats", ""), ("bits", "bits per channel")):
        console.print(f"{_most_frequent(result[key])} {unit}".rstrip(), highlight=False)
    if not found:
        console.print("No faults were found.")
        return
    table = Table("finding", "number", "example", title="Findings")
    table.columns[1].justify = "right"
    table.columns[2].overflow = "fold"
    for kind, number in result["found"].items():
        first = next(finding for finding in found if finding.kind == kind)
        names = [name for name in (first.image, first.other) if name] or [first.label]
        table.add_row(kind, f"{number:,}", Text(sanitize(f"{' and '.join(names)}: {first.why}")))
    console.print(table)


def _most_frequent(counts: dict[str, int], number: int = 4) -> str:
    """Return the first values with their counts.

    >>> _most_frequent({"28x28": 1200, "40x28": 3})
    '28x28 (1,200), 40x28 (3)'
    """
    first = [f"{name} ({count:,})" for name, count in list(counts.items())[:number]]
    return ", ".join(first) + (f" and {len(counts) - number:,} others" if len(counts) > number else "")
