"""Pairs of random views of every batch; order and views are functions of (seed, step)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from fewlabels.data.order import batches, steps_per_epoch
from fewlabels.data.source import ImageSource
from fewlabels.training.distributed import rank, world_size


class Views(Protocol):
    """A deterministic function of images, key and row: uint8 [B, C, H, W] to a view of each, float32 [B, C, H', W']."""

    def __call__(self, images: Tensor, key: tuple[int | str, ...], first_row: int = 0) -> Tensor: ...


@dataclass(frozen=True)
class ViewPairs:
    """The batches of a run as pairs of views, in equal parts for gradient accumulation and processes.

    The images of a batch and their views do not depend on the number of parts or processes.

    Args:
        source: the images.
        views: makes a random view of each image.
        seed: of order and views.
        batch_size: images per optimizer step, over all processes.
        drop_last: leave out the incomplete batch at the end of an epoch.
        parts: parts of a batch per process, for gradient accumulation.
        device: of the views.
    """

    source: ImageSource
    views: Views
    seed: int
    batch_size: int
    drop_last: bool
    parts: int
    device: torch.device

    @property
    def per_epoch(self) -> int:
        """Batches per epoch."""
        return steps_per_epoch(len(self.source), self.batch_size, self.drop_last)

    def from_step(self, first: int, total: int, layout: torch.memory_format) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield two views, float32 [b, C, H', W'], of each part of this process, steps ``first`` to ``total - 1``."""
        for step in range(first, total):
            epoch, in_epoch = divmod(step, self.per_epoch)
            if step == first or not in_epoch:
                order = batches(len(self.source), self.batch_size, self.seed, "order", epoch, drop_last=self.drop_last)
                order = islice(order, in_epoch, None)
            first_row = 0
            for number, part in enumerate(next(order).tensor_split(self.parts * world_size())):
                if number % world_size() == rank():
                    images = self.source.read(part).to(self.device)
                    x0, x1 = (self.views(images, (self.seed, "view", v, step), first_row) for v in (0, 1))
                    yield x0.contiguous(memory_format=layout), x1.contiguous(memory_format=layout)
                first_row += len(part)
