"""What every pretraining method is to the loop."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class MethodOutput:
    """One step's figures: the loss to minimise, a projection [B, D] to observe, named parts to log."""

    loss: Tensor
    projection: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Method(Protocol):
    """An ``nn.Module`` that is called with two batches of views and returns a :class:`MethodOutput`."""

    backbone: nn.Module

    def __call__(self, x0: Tensor, x1: Tensor) -> MethodOutput: ...
    def param_groups(self) -> list[dict]: ...
    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with the share of the run done, in (0, 1]."""
