"""Random order of training images: a function of a key and the step, so that a resumed run has the same order."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fewlabels._internal.seeding import generator


def batches(num_images: int, batch_size: int, *key: int | str, drop_last: bool = False) -> Iterator[Tensor]:
    """Yield the rows of one epoch in random order, batch by batch, int64 [B].

    The last batch may be smaller, unless ``drop_last``. A last batch of a single image is always dropped.

    >>> [len(b) for b in batches(10, 4, 0, "order")]
    [4, 4, 2]
    """
    steps = steps_per_epoch(num_images, batch_size, drop_last)
    # Batch norm cannot train on a single image: it has no variance.
    yield from torch.randperm(num_images, generator=generator(*key)).split(batch_size)[:steps]


def steps_per_epoch(num_images: int, batch_size: int, drop_last: bool = False) -> int:
    """Return the number of batches that :func:`batches` yields."""
    full, rest = divmod(num_images, batch_size)
    return full + (rest > 1 and not drop_last)


class Stream:
    """Infinite sequence of batches; each batch depends on the key and its step alone.

    Groups take turns, so all of them are equally frequent. Within a group the order is random, and every row comes
    once before any row comes again.

    Args:
        groups: int64 rows of each group, none empty: one group per class, or one group of all rows.
        batch_size: rows per batch.
        key: seeds the order.

    >>> stream = Stream([np.array([1, 2, 3]), np.array([7])], 4, 0, "labelled")
    >>> sorted(stream.at(0).tolist())[2:], sorted(np.concatenate([stream.at(0), stream.at(1)]).tolist()).count(7)
    ([7, 7], 4)
    """

    def __init__(self, groups: Sequence[np.ndarray], batch_size: int, *key: int | str) -> None:
        self._groups, self._batch_size, self._key = groups, batch_size, key
        self._order = lru_cache(maxsize=4 * len(groups))(self._shuffled)

    def at(self, step: int) -> np.ndarray:
        """Return the rows of the batch of this step, int64 [batch_size]."""
        rounds, group = np.divmod(np.arange(step * self._batch_size, (step + 1) * self._batch_size), len(self._groups))
        return np.array([self._nth(int(g), int(nth)) for g, nth in zip(group, rounds, strict=True)])

    def _nth(self, group: int, nth: int) -> int:
        epoch, index = divmod(nth, len(self._groups[group]))
        return int(self._order(group, epoch)[index])

    def _shuffled(self, group: int, epoch: int) -> np.ndarray:
        rows = self._groups[group]
        order = torch.randperm(len(rows), generator=generator(*self._key, group, epoch)).numpy()
        shuffled: np.ndarray = rows[order]
        return shuffled
