"""Momentum encoders: copies of a network whose weights are a running average of its weights."""

import copy
import math

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.Module):
    """A copy of a network that is not trained; :meth:`update` moves its weights towards those of the original.

    Batch norms of the copy take their statistics from the batches that the copy encodes.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.copy = copy.deepcopy(original).requires_grad_(False)

    @torch.no_grad()
    def update(self, original: nn.Module, momentum: float) -> None:
        """``copy <- momentum * copy + (1 - momentum) * original``, weight by weight (He et al. 2020, eq. 2)."""
        averaged: list[Tensor] = [*self.copy.parameters()]
        trained: list[Tensor] = [*original.parameters()]
        torch._foreach_lerp_(averaged, trained, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """Momentum that rises from ``start`` to 1 along half a cosine (Grill et al. 2020, section 3.3).

    >>> [round(cosine_momentum(0.99, progress), 4) for progress in (0.0, 0.5, 1.0)]
    [0.99, 0.995, 1.0]
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
