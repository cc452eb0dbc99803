"""Barlow Twins: Zbontar et al., Self-Supervised Learning via Redundancy Reduction, ICML 2021."""

from dataclasses import dataclass

from torch import Tensor

from fewlabels.backbones.architectures import Backbone
from fewlabels.backbones.heads import mlp
from fewlabels.ssl.methods.base import Method, MethodOutput
from fewlabels.training.distributed import gathered
from fewlabels.training.optimizers import OptimizerSettings


def cross_correlation(z0: Tensor, z1: Tensor) -> Tensor:
    """C of eq. 2, [D, D] in [-1, 1]: correlations over the batch between the dimensions of z0 and z1, both [B, D]."""
    normal0, normal1 = ((z - z.mean(dim=0)) * (z.var(dim=0, correction=0) + 1e-5).rsqrt() for z in (z0, z1))
    return normal0.T @ normal1 / len(z0)


def redundancy_loss(z0: Tensor, z1: Tensor, off_diagonal: float) -> Tensor:
    """L of eq. 1: the sum of (1 - C_ii)^2 plus lambda (``off_diagonal``) times the sum of C_ij^2; z0, z1 [B, D]."""
    c = cross_correlation(z0, z1)
    diagonal = c.diagonal()
    return (1 - diagonal).square().sum() + off_diagonal * (c.square().sum() - diagonal.square().sum())


@dataclass(frozen=True)
class BarlowTwinsSettings:
    """The lambda of section 2.2; a projector narrower than the paper's on ImageNet."""

    hidden: int = 512
    out: int = 512
    off_diagonal: float = 5e-3
    batch_size: int = 256
    optimizer: OptimizerSettings = OptimizerSettings("adamw", lr=2e-3, weight_decay=1e-4)


class BarlowTwins(Method):
    """Minimises the distance of the cross-correlation matrix of two views to the identity matrix."""

    def __init__(self, backbone: Backbone, num_features: int, settings: BarlowTwinsSettings | None = None) -> None:
        super().__init__()
        settings = settings or BarlowTwinsSettings()
        self.off_diagonal = settings.off_diagonal
        self.backbone = backbone
        self.projector = mlp((num_features, settings.hidden, settings.hidden, settings.out))

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Compute the loss of views x0, x1: float [B, C, H, W]."""
        z0, z1 = self.encode(x0), self.encode(x1)  # [B, D]
        loss = redundancy_loss(gathered(z0), gathered(z1), self.off_diagonal)
        return MethodOutput(loss=loss, projection=z0)
