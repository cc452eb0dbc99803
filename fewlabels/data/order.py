"""The order in which images are seen: a function of a key, not of what ran before."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fewlabels.seeding import generator


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
