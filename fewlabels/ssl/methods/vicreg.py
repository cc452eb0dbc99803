"""VICReg: Bardes, Ponce & LeCun, Variance-Invariance-Covariance Regularization, ICLR 2022."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from fewlabels.backbones.architectures import Backbone
from fewlabels.backbones.heads import mlp
from fewlabels.ssl.methods.base import Method, MethodOutput
from fewlabels.training.distributed import gathered
from fewlabels.training.optimizers import OptimizerSettings


def variance(z: Tensor) -> Tensor:
    """v(Z) of eq. 1 and 2: mean hinge loss of the standard deviation of each dimension below 1; z [B, D]."""
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """c(Z) of eq. 3 and 4: sum of squared covariances of different dimensions, divided by D; z [B, D]."""
    centred = z - z.mean(dim=0)
    c = centred.T @ centred / (len(z) - 1)
    return (c.square().sum() - c.diagonal().square().sum()) / z.shape[1]


@dataclass(frozen=True)
class VICRegSettings:
    """The weights 25, 25 and 1 of section 4.2; an expander narrower than on ImageNet."""

    hidden: int = 512
    out: int = 512
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    batch_size: int = 256
    optimizer: OptimizerSettings = OptimizerSettings("adamw", lr=2e-3, weight_decay=1e-4)


class VICReg(Method):
    """Weighted sum of invariance, variance and covariance terms (eq. 6).

    The variance term is the mean over both views, as in the authors' code; their eq. 6 has the sum.
    """

    def __init__(self, backbone: Backbone, num_features: int, settings: VICRegSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or VICRegSettings()
        self.backbone = backbone
        self.projector = mlp((num_features, settings.hidden, settings.hidden, settings.out))

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Compute the loss of views x0, x1: float [B, C, H, W]."""
        z0, z1 = self.encode(x0), self.encode(x1)  # [B, D]
        parts = {"invariance": F.mse_loss(z0, z1)}  # over this process; gradients are averaged over processes
        all0, all1 = gathered(z0), gathered(z1)
        parts["variance"] = (variance(all0) + variance(all1)) / 2
        parts["covariance"] = covariance(all0) + covariance(all1)
        loss = sum((getattr(self.settings, name) * part for name, part in parts.items()), z0.new_zeros(()))
        return MethodOutput(loss=loss, projection=z0, parts=parts)
