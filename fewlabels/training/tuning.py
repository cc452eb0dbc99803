"""How this machine runs the steps fastest: threads, memory format, prefetching, compilation, by a short trial."""

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

SHARE = 0.05
"""The trial takes at most this share of the run."""
GAIN = 1.01
"""A change is kept if it is faster by this factor."""
STEPS = 5
WARM_UP = 2
"""Steps that are run before those that are timed."""
ROUNDS = (2, 16)
"""Of a change against the best so far, fewest and most; machines that others use need many."""
FIRST_STEPS = 1 + WARM_UP
STEPS_OF_A_ROUND = 2 * (STEPS + WARM_UP)
COMPILE_SECONDS = 15.0
"""Compilation is not begun with less time than this left for the trial."""


@dataclass(frozen=True)
class Choice:
    """How the steps are run."""

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
    """Not an Exception, which torch.compile would wrap or swallow."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Break the block off after so many seconds, where the system has timers."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def can_compile() -> bool:
    """Whether torch.compile has the compiler that it needs on a CPU."""
    return sys.platform != "win32" and any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def fastest(
    run_steps: Callable[[Choice, int], float],
    start: Choice,
    total_steps: int,
    changes: list[dict[str, object]],
    say: Callable[[str], None],
) -> tuple[Choice, float]:
    """Try one change after another from ``start``, keep those that are faster, and stop in time.

    Args:
        run_steps: runs ``WARM_UP`` and then so many training steps a certain way; seconds a step.
        start: how it is run without a trial.
        total_steps: of the whole run, from which the trial's limit is taken.
        changes: fields of :class:`Choice` to try, cheapest first.
        say: is told of a change that does not work here.

    Returns:
        The choice, and the seconds that choosing took.
    """
    began = time.perf_counter()
    fewest = FIRST_STEPS + ROUNDS[0] * STEPS_OF_A_ROUND
    if total_steps * SHARE < STEPS + WARM_UP + fewest:
        return start, 0.0
    best = start
    pace = run_steps(best, STEPS)
    limit = SHARE * pace * total_steps
    for tried, change in enumerate(changes):
        candidate = replace(best, **change)  # type: ignore[arg-type]
        left = limit - (time.perf_counter() - began)
        if left < (COMPILE_SECONDS if candidate.compile != best.compile else 0) + fewest * pace:
            continue
        affordable = left / (len(changes) - tried) / pace // STEPS_OF_A_ROUND
        rounds = int(min(max(affordable, ROUNDS[0]), ROUNDS[1]))
        try:
            with _at_most(left):
                run_steps(candidate, 1)
                seconds = [(run_steps(best, STEPS), run_steps(candidate, STEPS)) for _ in range(rounds)]
        except _TimeUp:
            break
        except Exception as error:  # such as a compiler that is not whole, or too little memory
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            say(f"{candidate}: does not work here ({reason[:100]}); left out")
            continue
        if median(before / after for before, after in seconds) > GAIN:
            best = candidate
            pace = median(after for _, after in seconds)
    return best, time.perf_counter() - began
