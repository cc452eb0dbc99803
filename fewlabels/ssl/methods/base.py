"""What every pretraining method is to the loop."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from fewlabels.backbones.architectures import Backbone
from fewlabels.training.optimizers import without_decay


class MethodOutput(NamedTuple):
    """One step's figures: the loss to minimise, features [B, F] and projection [B, D] of ``x0`` to observe.

    A tuple, since Lightning Fabric looks into what a network returns and refuses frozen dataclasses.
    """

    loss: Tensor
    projection: Tensor
    parts: dict[str, Tensor] = {}  # noqa: RUF012


class Method(nn.Module):
    """A network that is called with two batches of views and returns a :class:`MethodOutput`."""

    backbone: Backbone
    projector: nn.Module
    """From features to the projection that the loss compares."""

    @property
    def encoder(self) -> nn.Sequential:
        """Backbone and projector, for those methods that keep a slow copy of both."""
        return nn.Sequential(self.backbone, self.projector)

    def encode(self, x: Tensor) -> Tensor:
        """Views, float [B, C, H, W], to projections [B, D]."""
        z: Tensor = self.projector(self.backbone(x))
        return z

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """x0, x1: float [B, C, H, W], row i of one and of the other from the same image."""
        raise NotImplementedError

    def param_groups(self) -> list[dict[str, Any]]:
        """The groups that the optimizer is built from; most methods keep decay off norms and biases."""
        return without_decay(self)

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with the share of the run done, in (0, 1]; most methods do nothing."""
