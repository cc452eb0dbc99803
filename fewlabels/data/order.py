"""The order in which images are seen: a function of a key, not of what ran before."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fewlabels._internal.seeding import generator


def batches(num_images: int, batch_size: int, *key: int | str, drop_last: bool = False) -> Iterator[Tensor]:
    """Positions of one epoch in random order, int64.

    The last batch may be smaller, unless ``drop_last``, but is never a single image.

    >>> [len(b) for b in batches(10, 4, 0, "order")]
    [4, 4, 2]
    """
    steps = steps_per_epoch(num_images, batch_size, drop_last)
    # Batch norm has no variance over one image.
    yield from torch.randperm(num_images, generator=generator(*key)).split(batch_size)[:steps]


def steps_per_epoch(num_images: int, batch_size: int, drop_last: bool = False) -> int:
    """How many batches :func:`batches` gives."""
    full, rest = divmod(num_images, batch_size)
    return full + (rest > 1 and not drop_last)


class Stream:
    """Batches without end, each a function of (key, step) alone; groups take turns, so that each has an equal share.

    A group's positions come in random order, all of them before any comes again.

    Args:
        groups: int64 positions of each group, none empty: classes, or one group of all.
        batch_size: positions a batch.
        key: what the order depends on.

    >>> stream = Stream([np.array([1, 2, 3]), np.array([7])], 4, 0, "labelled")
    >>> sorted(stream.at(0).tolist())[2:], sorted(np.concatenate([stream.at(0), stream.at(1)]).tolist()).count(7)
    ([7, 7], 4)
    """

    def __init__(self, groups: Sequence[np.ndarray], batch_size: int, *key: int | str) -> None:
        self._groups, self._batch_size, self._key = groups, batch_size, key
        self._order = lru_cache(maxsize=4 * len(groups))(self._shuffled)

    def at(self, step: int) -> np.ndarray:
        """The positions of one batch, int64."""
        rounds, group = np.divmod(np.arange(step * self._batch_size, (step + 1) * self._batch_size), len(self._groups))
        return np.array([self._nth(int(g), int(nth)) for g, nth in zip(group, rounds, strict=True)])

    def _nth(self, group: int, nth: int) -> int:
        epoch, place = divmod(nth, len(self._groups[group]))
        return int(self._order(group, epoch)[place])

    def _shuffled(self, group: int, epoch: int) -> np.ndarray:
        positions = self._groups[group]
        order = torch.randperm(len(positions), generator=generator(*self._key, group, epoch)).numpy()
        shuffled: np.ndarray = positions[order]
        return shuffled
