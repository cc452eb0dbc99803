"""Progress bars, loss curves and loggers of training loops."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import translate_os_error

MAX_CURVE_POINTS = 500
"""Points of a loss curve; a plot shows no more."""
REFRESH_SECONDS = 0.5
"""Seconds between two refreshes of a progress bar."""


class Logger(Protocol):
    """Records scalars by name and step."""

    def log(self, values: dict[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class _NoLogger:
    def log(self, values: dict[str, float], step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _TensorBoardLogger:
    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _silence_writer_thread()

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in settings.items()))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


@cache
def _silence_writer_thread() -> None:
    """Print no traceback of TensorBoard's writer thread, since the next call of ``log`` raises its error again."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            before(args)

    threading.excepthook = hook


class _WandbLogger:
    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        import wandb

        self._run = wandb.init(project="fewlabels", dir=str(folder), config=settings)

    def log(self, values: dict[str, float], step: int) -> None:
        # Each training counts its steps from 0, but wandb's own step may only grow.
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class _MlflowLogger:
    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        import os

        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            # mlflow 3 requires this variable to store plain files instead of a database.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
        mlflow.set_experiment("fewlabels")
        self._mlflow = mlflow
        mlflow.start_run()
        mlflow.log_params(settings)

    def log(self, values: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class _TranslatingLogger:
    """A logger whose file errors become an :class:`InputError`."""

    def __init__(self, logger: Logger, folder: Path) -> None:
        self._logger, self._folder = logger, folder

    def log(self, values: dict[str, float], step: int) -> None:
        with translate_os_error(self._folder):
            self._logger.log(values, step)

    def close(self) -> None:
        with translate_os_error(self._folder):
            self._logger.close()


_KINDS: dict[str, Callable[[Path, dict[str, Any]], Logger]] = {
    "tensorboard": _TensorBoardLogger,
    "wandb": _WandbLogger,
    "mlflow": _MlflowLogger,
}
LOGGERS = (*_KINDS, "none")


def make_logger(name: str, folder: Path, settings: dict[str, Any]) -> Logger:
    """Make a logger by name that writes to ``folder``.

    Raises:
        InputError: if the name is unknown, its package is not installed, or the disk is full.
    """
    if name not in LOGGERS:
        raise InputError(f"--logger {name}: no such logger. Choose one of {', '.join(LOGGERS)}.")
    if name == "none":
        return _NoLogger()
    try:
        with translate_os_error(folder):
            return _TranslatingLogger(_KINDS[name](folder, settings), folder)
    except ModuleNotFoundError as error:
        raise InputError(
            f"--logger {name}: {error.name} is not installed. Run: pip install 'fewlabels[{name}]'"
        ) from None


@contextmanager
def progress_bar(console: Console, description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar inside the block; yields a function of the numbers of completed items and of all items."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), _ItemsColumn(unit))
    progress = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True)

    def update(completed: int, total: int) -> None:
        if not progress.tasks:
            progress.start()
            progress.add_task(description)
        progress.update(progress.tasks[0].id, completed=completed, total=total)

    try:
        yield update
    finally:
        if progress.tasks:
            progress.stop()


class _ItemsColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0
        return Text(f"{task.completed:,.0f} {self.unit}, {speed:,.0f} a second", style="cyan")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.fields["images_per_step"] * (task.finished_speed or task.speed or 0)
        return Text(f"{rate:,.0f} img/s", style="cyan")


@dataclass
class Curve:
    """A loss curve with one point per window of steps, the mean of their losses."""

    window: int
    """Steps per point."""
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)
    """Values of the window that is not complete."""

    def add(self, step: int, value: float) -> bool:
        """Add the value of a step; True if this completed a window."""
        self.pending.append(value)
        if len(self.pending) < self.window:
            return False
        self.steps.append(step)
        self.values.append(sum(self.pending) / len(self.pending))
        self.pending.clear()
        return True


class Observer:
    """Shows and records one training: a progress bar with speed and remaining time, a loss curve, a logger.

    Args:
        name: of the training, for the bar and the logger.
        logger: receives losses and metrics; None: none does.
        console: for bar and messages; None: nothing is printed.
    """

    def __init__(self, name: str, logger: Logger | None = None, console: Console | None = None) -> None:
        self.name = name
        self.curve = Curve(window=1)
        self.seconds = 0.0
        self._started: float | None = None
        self._logger = logger or _NoLogger()
        self.console = console or Console(quiet=True)

    @contextmanager
    def watch(self, total_steps: int, images_per_step: int, first_step: int = 0) -> Iterator[None]:
        """Show the bar inside the block; ``first_step`` steps were done before this start."""
        if not first_step:
            self.curve = Curve(window=1)
        self.curve.window = max(1, math.ceil(total_steps / MAX_CURVE_POINTS))
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            auto_refresh=False,  # a refresh thread of rich would compete for the interpreter lock
        )
        self._started = self._refreshed = time.perf_counter()
        with self._progress:
            self._task = self._progress.add_task(
                self.name, total=total_steps, completed=first_step, images_per_step=images_per_step, status=""
            )
            yield
        self.seconds = self.seconds_so_far()
        self._started = None

    def expect(self, total_steps: int) -> None:
        """Change the number of steps that the bar shows."""
        self._progress.update(self._task, total=total_steps)

    def seconds_so_far(self) -> float:
        """Seconds of training so far, including those before it was resumed."""
        return self.seconds + (0 if self._started is None else time.perf_counter() - self._started)

    def state(self) -> dict[str, Any]:
        """Loss curve and seconds as JSON, for :meth:`restore`."""
        return {"seconds": self.seconds_so_far(), "curve": asdict(self.curve)}

    def restore(self, step: int, state: dict[str, Any]) -> None:
        """Continue from a result of :meth:`state`; a running clock is not changed."""
        self.curve = Curve(**state["curve"])
        if self._started is None:
            self.seconds = state["seconds"]
        else:
            self._progress.update(self._task, completed=step)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, highlight=False, soft_wrap=True)

    def log(self, values: dict[str, float], step: int) -> None:
        """Log scalars by name, with this training's name as a prefix."""
        self._logger.log({f"{self.name}/{name}": value for name, value in values.items()}, step)

    def step(self, step: int, loss: float, status: str = "") -> None:
        """Record the loss of one step, and show a status text beside the bar.

        Raises:
            InputError: if the loss is not finite.
        """
        if not math.isfinite(loss):
            raise InputError(
                f"{self.name}: the loss is {loss} at step {step}. In pretrain lower --lr; else please report it."
            )
        self._progress.update(self._task, advance=1, status=status)
        if self.console.is_terminal and time.perf_counter() - self._refreshed >= REFRESH_SECONDS:
            self._progress.refresh()
            self._refreshed = time.perf_counter()
        if self.curve.add(step, loss):
            self.log({"loss": self.curve.values[-1]}, step)
