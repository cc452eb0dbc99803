"""What is wrong with these images, and a clean table of them."""

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fewlabels._internal.errors import InputError, printable
from fewlabels.cli.csv_output import csv_rows, harmless, path_cell, way_to_images
from fewlabels.cli.options import (
    Data,
    DataFolder,
    Out,
    Size,
    at_least,
    command_line,
    fit_of,
    saying_how_to_go_on,
)
from fewlabels.data.tables import TABLES

if TYPE_CHECKING:
    from fewlabels.audit.scan import Finding, Looked

HEAD = ("path", "label", "split", "group", "note")


def check(
    dataset: Data,
    fix: Annotated[
        Path | None,
        typer.Option(help="Write a clean table, in the folder of the images or above it.", metavar="FILE.csv"),
    ] = None,
    size: Size = None,
    out: Out = Path("runs/check"),
    data: DataFolder = None,
) -> None:
    """Find what is wrong with images and labels, before anything learns from them. Nothing is changed.

    Files that cannot be read, images that are there more than once, test images among those for training, labels that
    are probably wrong, images of no class. With --fix, a table that goes without the worst of it: DATA of any command.

    Example: `fewlabels check photos --fix clean.csv`
    """
    from fewlabels._internal.environment import provenance
    from fewlabels._internal.files import writable_folder, write_json
    from fewlabels.audit.scan import as_json, clean_rows, findings, looked_at
    from fewlabels.report.check import write_check_report
    from fewlabels.training.callbacks import counting

    if size is not None:
        at_least("--size", size, 8)
    prefix = None if fix is None else _prefix(fix, Path(dataset))
    console = Console(markup=False)
    writable_folder(out)
    with saying_how_to_go_on(), counting(console, "reading", "files") as told:
        looked = looked_at(dataset, data, size, console.print, told)
    if fix is not None and looked.listing.contents is not None:
        raise InputError(f"--fix {fix}: {dataset} holds the images itself, which no table can list. Leave out --fix.")
    with console.status("Looking for copies, leaks and doubtful labels"):
        found = findings(looked)
    result = as_json(looked, found)
    write_json(out / "check.json", {"name": "check", **provenance(command_line()), "data": dataset, **result})
    report = write_check_report(out)
    _say(console, result, found)
    if fix is not None and prefix is not None:
        rows = [[path_cell(prefix / name), *map(harmless, of)] for name, *of in clean_rows(looked, found)]
        _refuse_new_labels(fix, prefix, looked)
        with csv_rows(fix) as writer:
            writer.writerow(HEAD)
            writer.writerows(rows)
        said = f"{len(rows):,} of {len(looked.listing.names):,} images are in {fix}. Go on with: {fit_of(fix)}"
        console.print(said, soft_wrap=True, highlight=False)
    console.print(f"Report: {report}", soft_wrap=True)


def _prefix(fix: Path, data: Path) -> PurePosixPath:
    """What leads from the clean table's folder to that of the images.

    Raises:
        InputError: if there is no such way, or something else stands there.
    """
    from fewlabels.data.dataset import FASHION_MNIST, existing

    if str(data) != FASHION_MNIST:
        existing(str(data))
    folder = data if data.is_dir() else data.parent
    if not data.is_dir() and data.suffix.lower() not in TABLES:
        raise InputError(f"--fix {fix}: {data} holds no image files that a table could list. Leave out --fix.")
    way = way_to_images(fix, "--fix", folder)
    if fix.exists() and not fix.read_bytes().startswith(",".join(HEAD).encode()):
        raise InputError(f"--fix {fix}: is there and no clean table. Choose another name.")
    return way


def _refuse_new_labels(fix: Path, prefix: PurePosixPath, looked: "Looked") -> None:
    """Refuse to replace a clean table whose labels someone has changed."""
    if not fix.exists():
        return
    rows = {str(prefix / name): row for row, name in enumerate(looked.listing.names)}
    with fix.open(newline="", encoding="utf-8", errors="replace") as file:
        for cells in csv.DictReader(file):
            path, label = cells["path"].removeprefix("./"), cells["label"]
            if label and path in rows and label != harmless(looked.label(rows[path])):
                raise InputError(
                    f"--fix {fix}: calls {path} {label!r}, as these data do not. Move it away if that is to be "
                    "forgotten, or choose another name."
                )


def _say(console: Console, result: dict[str, Any], found: Sequence["Finding"]) -> None:
    counts = result["counts"]
    head = f"{counts['images']:,} images, {counts['labelled']:,} labels of {len(result['classes']):,} classes"
    console.print(f"{head}.", highlight=False)
    for key, words in (("sizes", "pixels"), ("channels", "channels"), ("formats", ""), ("bits", "bits a channel")):
        console.print(f"{_most(result[key])} {words}".rstrip(), highlight=False)
    if not found:
        console.print("Nothing is wrong with them, as far as can be seen.")
        return
    table = Table("finding", "number", "such as", title="What was found")
    table.columns[1].justify = "right"
    table.columns[2].overflow = "fold"
    for kind, number in result["found"].items():
        first = next(finding for finding in found if finding.kind == kind)
        names = [name for name in (first.image, first.other) if name] or [first.label]
        table.add_row(kind, f"{number:,}", Text(printable(f"{' and '.join(names)}: {first.why}")))
    console.print(table)


def _most(counted: dict[str, int], number: int = 4) -> str:
    """The commonest, with their number.

    >>> _most({"28x28": 1200, "40x28": 3})
    '28x28 (1,200), 40x28 (3)'
    """
    some = [f"{name} ({count:,})" for name, count in list(counted.items())[:number]]
    return ", ".join(some) + (f" and {len(counted) - number:,} others" if len(counted) > number else "")
