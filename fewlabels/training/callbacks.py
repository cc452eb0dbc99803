"""What the training loops tell the world: progress bars, loss curves and loggers."""

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
from fewlabels._internal.files import explained

MAX_CURVE_POINTS = 500
SECONDS_A_DRAWING = 0.5


class Logger(Protocol):
    """Receives scalars by name and step."""

    def log(self, values: dict[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class _NoLogger:
    def log(self, values: dict[str, float], step: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


class _TensorBoardLogger:
    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _quieten_its_thread()

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in settings.items()))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


@cache
def _quieten_its_thread() -> None:
    """An error in TensorBoard's thread is raised again where the next value is logged; printing it is too much."""
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
        # Arms run one after the other, each from step 0; wandb's own step may only grow.
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class _MlflowLogger:
    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        import os

        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            # mlflow 3 asks this word of those who keep plain files instead of a database.
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


class _Explaining:
    """A logger whose full disk is the user's to read of."""

    def __init__(self, logger: Logger, folder: Path) -> None:
        self._logger, self._folder = logger, folder

    def log(self, values: dict[str, float], step: int) -> None:
        with explained(self._folder):
            self._logger.log(values, step)

    def close(self) -> None:
        with explained(self._folder):
            self._logger.close()


_KINDS: dict[str, Callable[[Path, dict[str, Any]], Logger]] = {
    "tensorboard": _TensorBoardLogger,
    "wandb": _WandbLogger,
    "mlflow": _MlflowLogger,
}
LOGGERS = (*_KINDS, "none")


def make_logger(name: str, folder: Path, settings: dict[str, Any]) -> Logger:
    """A logger by name, writing under ``folder``.

    Raises:
        InputError: if the name is unknown, its package is not installed, or there is no room.
    """
    if name not in LOGGERS:
        raise InputError(f"--logger {name}: no such logger. Choose one of {', '.join(LOGGERS)}.")
    if name == "none":
        return _NoLogger()
    try:
        with explained(folder):
            return _Explaining(_KINDS[name](folder, settings), folder)
    except ModuleNotFoundError as error:
        raise InputError(
            f"--logger {name}: {error.name} is not installed. Run: pip install 'fewlabels[{name}]'"
        ) from None


@contextmanager
def counting(console: Console, doing: str, things: str) -> Iterator[Callable[[int, int], None]]:
    """Inside the block, a bar over what was given last: how many are done, of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), _EachColumn(things))
    progress = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True)

    def told(done: int, of: int) -> None:
        if not progress.tasks:
            progress.start()
            progress.add_task(doing)
        progress.update(progress.tasks[0].id, completed=done, total=of)

    try:
        yield told
    finally:
        if progress.tasks:
            progress.stop()


class _EachColumn(ProgressColumn):
    def __init__(self, things: str) -> None:
        super().__init__()
        self.things = things

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0
        return Text(f"{task.completed:,.0f} {self.things}, {speed:,.0f} a second", style="cyan")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.fields["images_per_step"] * (task.finished_speed or task.speed or 0)
        return Text(f"{rate:,.0f} img/s", style="cyan")


@dataclass
class Curve:
    """A loss curve thinned to at most 500 points: each the mean over a window of steps."""

    window: int
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)
    """Of the window that is still open."""

    def add(self, step: int, value: float) -> bool:
        """Take one value; true if this closed a window."""
        self.pending.append(value)
        if len(self.pending) < self.window:
            return False
        self.steps.append(step)
        self.values.append(sum(self.pending) / len(self.pending))
        self.pending.clear()
        return True


class Observer:
    """Watches one training: a progress bar with rate and time left, a loss curve, a logger."""

    def __init__(self, name: str, logger: Logger | None = None, console: Console | None = None) -> None:
        self.name = name
        self.curve = Curve(window=1)
        self.seconds = 0.0
        self._started: float | None = None
        self._logger = logger or _NoLogger()
        self.console = console or Console(quiet=True)

    @contextmanager
    def watch(self, total_steps: int, images_per_step: int, first_step: int = 0) -> Iterator[None]:
        """Show the bar while the block trains; steps before ``first_step`` were done earlier."""
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
            TextColumn("{task.fields[told]}"),
            console=self.console,
            auto_refresh=False,  # rich's own thread would hold the interpreter's lock again and again
        )
        self._started = self._drawn = time.perf_counter()
        with self._progress:
            self._task = self._progress.add_task(
                self.name, total=total_steps, completed=first_step, images_per_step=images_per_step, told=""
            )
            yield
        self.seconds = self.seconds_so_far()
        self._started = None

    def expect(self, total_steps: int) -> None:
        """There will be more steps, or fewer, than was thought."""
        self._progress.update(self._task, total=total_steps)

    def seconds_so_far(self) -> float:
        """Seconds of training, those before a resumed start included."""
        return self.seconds + (0 if self._started is None else time.perf_counter() - self._started)

    def state(self) -> dict[str, Any]:
        """The curve and the clock as JSON, for :meth:`restore`."""
        return {"seconds": self.seconds_so_far(), "curve": asdict(self.curve)}

    def restore(self, step: int, state: dict[str, Any]) -> None:
        """Take up the curve of an earlier step, and the clock if it does not run."""
        self.curve = Curve(**state["curve"])
        if self._started is None:
            self.seconds = state["seconds"]
        else:
            self._progress.update(self._task, completed=step)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, highlight=False, soft_wrap=True)

    def log(self, values: dict[str, float], step: int) -> None:
        """Pass scalars on to the logger, under this training's name."""
        self._logger.log({f"{self.name}/{name}": value for name, value in values.items()}, step)

    def step(self, step: int, loss: float, told: str = "") -> None:
        """Take the loss of one step, and what the bar is to show beside it.

        Raises:
            InputError: if the loss is not finite.
        """
        if not math.isfinite(loss):
            raise InputError(
                f"{self.name}: the loss is {loss} at step {step}. In pretrain lower --lr; else please report it."
            )
        self._progress.update(self._task, advance=1, told=told)
        if self.console.is_terminal and time.perf_counter() - self._drawn >= SECONDS_A_DRAWING:
            self._progress.refresh()
            self._drawn = time.perf_counter()
        if self.curve.add(step, loss):
            self.log({"loss": self.curve.values[-1]}, step)
