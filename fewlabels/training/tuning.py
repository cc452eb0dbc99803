"""A short trial that finds the fastest threads, memory format, prefetching and compilation of training steps."""

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from types import FrameType

MAX_TUNING_FRACTION = 0.05
"""Time of the trial, as a fraction of the run, at most. Not tuned."""
MIN_SPEEDUP = 1.01
"""A change is accepted if steps are faster by more than this factor. Not tuned."""
TIMED_STEPS = 5
"""Steps of one timing. Not tuned."""
WARMUP_STEPS = 2
"""Steps before the timed ones."""
MIN_ROUNDS, MAX_ROUNDS = 2, 16
"""Timings of a change, in turn with the best execution so far; a machine with other load needs many. Not tuned."""
FIRST_RUN_STEPS = 1 + WARMUP_STEPS
"""Steps that show whether a change works."""
ROUND_STEPS = 2 * (TIMED_STEPS + WARMUP_STEPS)
"""Steps of one round: a timing of the best execution and one of the change."""
MIN_COMPILE_SECONDS = 15.0
"""Compilation is not tried if the trial has less time left. Not tuned."""


@dataclass(frozen=True)
class StepExecution:
    """How training steps are computed; this changes no more than rounding. Field names are keys of saved JSON."""

    threads: int
    channels_last: bool = False
    prefetch: bool = False
    compile: bool = False
    processes: int = 1

    def __str__(self) -> str:
        parts = [f"{self.threads} thread{'s' if self.threads > 1 else ''}"]
        parts += ["channels last"] if self.channels_last else []
        parts += ["prefetching"] if self.prefetch else []
        parts += ["compiled"] if self.compile else ["not compiled"]
        return ", ".join(parts)


class _TimeUp(BaseException):
    """Raised when the time is up; torch.compile would catch or wrap an Exception."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Interrupt the block after a time, if the system has timers."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def time_up(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, time_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def can_compile() -> bool:
    """True if this machine has the C++ compiler that torch.compile needs on a CPU."""
    return sys.platform != "win32" and any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def fastest_execution(
    run_steps: Callable[[StepExecution, int], float],
    start: StepExecution,
    total_steps: int,
    changes: list[dict[str, object]],
    say: Callable[[str], None],
) -> tuple[StepExecution, float]:
    """Find the fastest execution of training steps: try changes of ``start`` in turn and accept those that are faster.

    Args:
        run_steps: does ``WARMUP_STEPS`` and then a number of timed training steps; returns seconds per step.
        start: the execution without a trial.
        total_steps: of the run; the trial's time limit is a fraction of their time.
        changes: fields of :class:`StepExecution` to try, cheapest first.
        say: receives a message about a change that does not work here.

    Returns:
        The fastest execution, and the seconds that the trial took; ``start`` and 0 if the run is too short.
    """
    began = time.perf_counter()
    min_steps = FIRST_RUN_STEPS + MIN_ROUNDS * ROUND_STEPS
    if total_steps * MAX_TUNING_FRACTION < TIMED_STEPS + WARMUP_STEPS + min_steps:
        return start, 0.0
    best = start
    seconds_per_step = run_steps(best, TIMED_STEPS)
    limit = MAX_TUNING_FRACTION * seconds_per_step * total_steps
    for tried, change in enumerate(changes):
        candidate = replace(best, **change)  # type: ignore[arg-type]
        left = limit - (time.perf_counter() - began)
        compile_seconds = MIN_COMPILE_SECONDS if candidate.compile != best.compile else 0
        if left < compile_seconds + min_steps * seconds_per_step:
            continue
        affordable = left / (len(changes) - tried) / seconds_per_step // ROUND_STEPS
        rounds = int(min(max(affordable, MIN_ROUNDS), MAX_ROUNDS))
        try:
            with _at_most(left):
                run_steps(candidate, 1)
                seconds = [(run_steps(best, TIMED_STEPS), run_steps(candidate, TIMED_STEPS)) for _ in range(rounds)]
        except _TimeUp:
            break
        except Exception as error:  # such as an incomplete compiler or too little memory
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            say(f"{candidate}: does not work here ({reason[:100]}); skipped")
            continue
        if median(before / after for before, after in seconds) > MIN_SPEEDUP:
            best = candidate
            seconds_per_step = median(after for _, after in seconds)
    return best, time.perf_counter() - began
