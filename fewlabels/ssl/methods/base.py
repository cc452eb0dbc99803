"""The interface of a pretraining method."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from fewlabels.backbones.architectures import Backbone
from fewlabels.training.optimizers import without_decay


class MethodOutput(NamedTuple):
    """Result of a forward pass: the loss to minimise, the projections [B, D] of ``x0``, and terms of the loss by name.

    It is a tuple, since Lightning Fabric rejects frozen dataclasses.
    """

    loss: Tensor
    projection: Tensor
    parts: dict[str, Tensor] = {}  # noqa: RUF012


class Method(nn.Module):
    """A network that is called with two batches of views and returns a :class:`MethodOutput`."""

    backbone: Backbone
    projector: nn.Module
    """Maps features [B, F] to projections [B, D], which the loss compares."""

    @property
    def encoder(self) -> nn.Sequential:
        """Backbone and projector as one module, for methods with a momentum encoder."""
        return nn.Sequential(self.backbone, self.projector)

    def encode(self, x: Tensor) -> Tensor:
        """Projections [B, D] of views, float [B, C, H, W]."""
        z: Tensor = self.projector(self.backbone(x))
        return z

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Compute the loss of views x0, x1: float [B, C, H, W]; row i of both is a view of the same image."""
        raise NotImplementedError

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer; by default, norms and biases have no weight decay."""
        return without_decay(self)

    def after_step(self, progress: float) -> None:
        """Hook after each optimizer step; ``progress`` is the completed fraction of the run, in (0, 1]."""
