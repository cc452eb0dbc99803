"""Options that several commands have, and functions that parse their values."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewlabels._internal.errors import InputError

if TYPE_CHECKING:
    import torch  # slow to import, so only the commands that use it do
    from rich.console import Console

    from fewlabels.data.dataset import Dataset

INTERRUPTED = 130
"""Exit code of a command that was stopped with Ctrl-C."""

Data = Annotated[
    str,
    typer.Argument(
        help="Folder of images, table (.csv, .tsv, .parquet), arrays (.npz, .h5; .npy has no labels), or the name of a "
        "data set: fashion-mnist, elpv or digits.",
        metavar="DATA",
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Only for fashion-mnist: folder with its files. FEWLABELS_DATA does the same.", metavar="DIR"
    ),
]
Size = Annotated[
    int | None,
    typer.Option(help="Longer side in pixels to which image files are resized. [their own, at most 96]", metavar="N"),
]
Root = Annotated[
    list[Path] | None,
    typer.Option(
        "--root", help="Another folder that may contain the images of a table; may be repeated.", metavar="DIR"
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="article (28x28 pixels), small, resnet18, resnet50 or timm/NAME. [article for 28x28, else small]",
        metavar="NAME",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")]
Logger = Annotated[
    str, typer.Option(help="Where curves are logged: tensorboard, wandb, mlflow or none.", metavar="NAME")
]
Device = Annotated[str, typer.Option(help="auto (cuda if available, else cpu), cpu, cuda or mps.", metavar="NAME")]
Model = Annotated[Path, typer.Argument(help="The model.safetensors of a fit.", metavar="MODEL")]
Images = Annotated[
    Path,
    typer.Argument(help="Image file, folder of images, table, or arrays (.npy, .npz, .h5, IDX).", metavar="IMAGES"),
]
OutCsv = Annotated[
    Path | None, typer.Option("--out", "-o", help="CSV file to write. [standard output]", metavar="FILE")
]


def opened_data(
    data: str,
    folder: Path | None,
    console: "Console",
    test_fraction: float = 0.0,
    size: int | None = None,
    roots: list[Path] | None = None,
    decode: bool = True,
) -> "Dataset":
    """Open a data set, with a progress bar while image files are decoded; arguments as for ``open_dataset``."""
    from fewlabels.data.dataset import open_dataset
    from fewlabels.training.callbacks import progress_bar

    if size is not None:
        at_least("--size", size, 8)
    with resumable(), progress_bar(console, "decoding", "files") as on_progress:
        return open_dataset(data, folder, test_fraction, size, console.print, on_progress, roots or (), decode)


def device_of(name: str) -> "torch.device":
    """Return the device of a name; auto is a GPU if there is one."""
    from fewlabels.training.precision import available_device

    return available_device(name, "--device")


def backbone_file(run: Path | None) -> str | None:
    """Return the backbone's file in the folder of a pretraining; a path to a file is returned as it is."""
    if run is None:
        return None
    return str(run / "backbone.safetensors" if run.is_dir() else run)


def seconds_of(option: str, text: str) -> float:
    """Convert a time such as 10m to seconds."""
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        raise InputError(f"{option} {text}: not a time. Write it like 90s, 10m or 1h.") from None


def numbers_of(option: str, text: str) -> tuple[int, ...]:
    """Convert text such as 100,1000 to numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: not numbers. Write them like 1000 or 100,1000.") from None


def at_least(option: str, value: int, minimum: int = 1) -> None:
    """Refuse a value below the minimum."""
    if value < minimum:
        raise InputError(f"{option} {value}: must be {minimum} or more.")


def one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    """Return the value, or refuse it if it is not one of the known ones."""
    if value not in known:
        raise InputError(f"{option} {value}: no such choice. Choose one of {', '.join(known)}.")
    return value


def fit_command(table: Path) -> str:
    """Return a command that fits a table, with --out if the default folder already has a fit."""
    out = Path("runs/fit")
    number = 1
    while out.exists():
        number += 1
        out = Path(f"runs/fit{number}")
    return f"fewlabels fit {shlex.quote(str(table))}" + (f" --out {out}" if number > 1 else "")


def command_line() -> str:
    """Return the command as the user typed it."""
    return shlex.join(["fewlabels", *sys.argv[1:]])


@contextmanager
def resumable() -> Iterator[None]:
    """Inside the block, Ctrl-C ends the command with a line that says how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nStopped. Completed work is saved. Resume with: {command_line()}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
