"""Worker processes that decode images in parallel. This module does not import torch, so that they start fast."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread

from fewlabels._internal.environment import available_cores

WORKERS_FROM = 2000
"""Number of images from which worker processes are started; for fewer, their start takes too long. Not tuned."""


@contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """Start one worker process per core; leaving the block cancels the jobs that have not begun."""
    # Spawned, as on Windows and macOS: fork would copy torch's state without its threads.
    pool = ProcessPoolExecutor(available_cores(), mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when its parent ends; if the parent is killed, the worker would wait for jobs for ever."""
    parent = parent_process()
    assert parent is not None  # this runs in a worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
