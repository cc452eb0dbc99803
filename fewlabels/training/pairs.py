"""Two views of every batch, in an order and with random numbers that (seed, step) alone decide."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from fewlabels.data.order import batches, steps_per_epoch
from fewlabels.data.source import ImageSource
from fewlabels.training.distributed import processes, rank


class Views(Protocol):
    """A random view of each image: uint8 [B, C, H, W] to float32 [B, C, H', W'], a function of its arguments alone."""

    def __call__(self, images: Tensor, key: tuple[int | str, ...], first_row: int = 0) -> Tensor: ...


@dataclass(frozen=True)
class Pairs:
    """The batches of a run, each cut into equal parts, of which every process takes its share.

    What is in a batch, and how its images are varied, does not depend on the parts or the processes.
    """

    source: ImageSource
    views: Views
    seed: int
    batch_size: int
    drop_last: bool
    parts: int
    """Into which a process cuts its share of a batch."""
    device: torch.device

    @property
    def per_epoch(self) -> int:
        """Batches an epoch."""
        return steps_per_epoch(len(self.source), self.batch_size, self.drop_last)

    def from_step(self, first: int, total: int, layout: torch.memory_format) -> Iterator[tuple[Tensor, Tensor]]:
        """Both views of each part of this process, from one step up to ``total``; float32 [b, C, H', W']."""
        for step in range(first, total):
            epoch, in_epoch = divmod(step, self.per_epoch)
            if step == first or not in_epoch:
                order = batches(len(self.source), self.batch_size, self.seed, "order", epoch, drop_last=self.drop_last)
                order = islice(order, in_epoch, None)
            first_row = 0
            for place, part in enumerate(next(order).tensor_split(self.parts * processes())):
                if place % processes() == rank():
                    images = self.source.read(part).to(self.device)
                    x0, x1 = (self.views(images, (self.seed, "view", v, step), first_row) for v in (0, 1))
                    yield x0.contiguous(memory_format=layout), x1.contiguous(memory_format=layout)
                first_row += len(part)
