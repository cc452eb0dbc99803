"""Options that several commands have, and how the words of a user are read."""

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
"""The exit code of a command that was stopped with Ctrl-C."""

Data = Annotated[
    str,
    typer.Argument(
        help="fashion-mnist; a folder of images; a table of them (.csv, .tsv, .parquet); arrays (.npz, .h5; without "
        "labels .npy).",
        metavar="DATA",
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with Fashion-MNIST's files; FEWLABELS_DATA does the same.", metavar="DIR"),
]
Size = Annotated[
    int | None, typer.Option(help="Pixels of the longer side that image files are brought to.", metavar="PIXELS")
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="article (28x28 pixels), small, resnet18, resnet50 or timm/NAME. [article if it suits, else small]",
        metavar="NAME",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")]
Logger = Annotated[str, typer.Option(help="tensorboard, wandb, mlflow or none.", metavar="NAME")]
Device = Annotated[str, typer.Option(help="auto (cuda if there is one, else cpu), cpu, cuda or mps.", metavar="NAME")]
Model = Annotated[Path, typer.Argument(help="A model.safetensors written by fit.", metavar="MODEL")]
Images = Annotated[
    Path,
    typer.Argument(
        help="An image, a folder of images, a table of them, or arrays (.npy, .npz, .h5, IDX).", metavar="IMAGES"
    ),
]
OutCsv = Annotated[Path | None, typer.Option("--out", "-o", help="CSV file; without it, the screen.", metavar="FILE")]


def opened_data(
    data: str, folder: Path | None, console: "Console", share: float = 0.0, size: int | None = None
) -> "Dataset":
    """What the user names, with a bar while image files are decoded."""
    from fewlabels.data.dataset import opened
    from fewlabels.training.callbacks import counting

    if size is not None:
        at_least("--size", size, 8)
    with saying_how_to_go_on(), counting(console, "decoding", "files") as told:
        return opened(data, folder, share, size, console.print, told)


def devices() -> list[str]:
    """That this machine has."""
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def device_of(name: str) -> "torch.device":
    """The device of a name; auto is a GPU where there is one."""
    import torch

    found = devices()
    if name == "auto":
        name = "cuda" if "cuda" in found else "cpu"
    if name not in found:
        raise InputError(f"--device {name}: not available here. This machine has: {', '.join(found)}.")
    return torch.device(name)


def backbone_file(run: Path | None) -> str | None:
    """Of a pretraining's folder, or the file itself."""
    if run is None:
        return None
    return str(run / "backbone.safetensors" if run.is_dir() else run)


def seconds_of(option: str, text: str) -> float:
    """Of a time such as 10m."""
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        raise InputError(f"{option} {text}: not a time. Write it like 90s, 10m or 1h.") from None


def numbers_of(option: str, text: str) -> tuple[int, ...]:
    """Of words such as 100,1000."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: not numbers. Write them like 1000 or 100,1000.") from None


def at_least(option: str, value: int, least: int = 1) -> None:
    """Refuse less."""
    if value < least:
        raise InputError(f"{option} {value}: must be {least} or more.")


def one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    """The value, if it is known."""
    if value not in known:
        raise InputError(f"{option} {value}: no such choice. Choose one of {', '.join(known)}.")
    return value


def fit_of(table: Path) -> str:
    """The command that learns from a table, into a folder that is free: each holds one fit."""
    fits = Path("runs/fit")
    number = 1
    while fits.exists():
        number += 1
        fits = Path(f"runs/fit{number}")
    return f"fewlabels fit {shlex.quote(str(table))}" + (f" --out {fits}" if number > 1 else "")


def command_line() -> str:
    """What the user has typed."""
    return shlex.join(["fewlabels", *sys.argv[1:]])


@contextmanager
def saying_how_to_go_on() -> Iterator[None]:
    """Inside the block, Ctrl-C ends the command with a line."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nStopped; what is done is saved. Go on with: {command_line()}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
