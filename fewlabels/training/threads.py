"""Number of threads; the last digits of a sum depend on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Set the number of threads of torch, NumPy and scikit-learn inside the block, and restore it afterwards."""
    before = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
