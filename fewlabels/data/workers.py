"""Processes that decode side by side; nothing here imports torch, so that they start fast."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread

from fewlabels._internal.environment import usable_cores

WORKERS_FROM = 2000
"""Images from which several processes are worth their start."""


@contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """As many processes as there are cores; what has not begun when the block ends is not done."""
    # Spawned, as on Windows and macOS: a forked process would inherit torch's threads half alive.
    pool = ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None  # this runs in a worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
