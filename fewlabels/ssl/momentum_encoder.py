"""A slow copy of a network, which follows it as a running average."""

import copy
import math

import torch
from torch import Tensor, nn


class Momentum(nn.Module):
    """The copy: its weights are never trained, only moved towards those of the original.

    Its batch norms take their statistics from the batches that it sees itself.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.copy = copy.deepcopy(original).requires_grad_(False)

    @torch.no_grad()
    def follow(self, original: nn.Module, momentum: float) -> None:
        """``copy <- momentum * copy + (1 - momentum) * original``, weight by weight (He et al. 2020, eq. 2)."""
        slow: list[Tensor] = [*self.copy.parameters()]
        fast: list[Tensor] = [*original.parameters()]
        torch._foreach_lerp_(slow, fast, 1 - momentum)


def rising(start: float, progress: float) -> float:
    """Momentum that rises to 1 along half a cosine (Grill et al. 2020, section 3.3).

    >>> [round(rising(0.99, progress), 4) for progress in (0.0, 0.5, 1.0)]
    [0.99, 0.995, 1.0]
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
