"""BYOL: Grill et al., Bootstrap Your Own Latent, NeurIPS 2020."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewlabels.backbones.architectures import Backbone
from fewlabels.backbones.heads import mlp
from fewlabels.ssl.methods.base import Method, MethodOutput
from fewlabels.ssl.methods.simsiam import negative_cosine
from fewlabels.ssl.momentum_encoder import MomentumEncoder, cosine_momentum
from fewlabels.training.optimizers import OptimizerSettings


def bootstrap_loss(q: Tensor, z: Tensor) -> Tensor:
    """Mean squared distance between normalised q and z, both [B, D] (eq. 2): 2 - 2 cos, in [0, 4].

    No gradient flows to z.
    """
    return 2 + 2 * negative_cosine(q, z)


@dataclass(frozen=True)
class BYOLSettings:
    """As in section 3.3, with a lower initial momentum than on ImageNet, since runs are shorter."""

    hidden: int = 512
    out: int = 128
    momentum: float = 0.99
    """Initial momentum of the target network; it rises to 1."""
    batch_size: int = 256
    optimizer: OptimizerSettings = OptimizerSettings("adamw", lr=2e-3, weight_decay=1e-4)


class BYOL(Method):
    """The online network predicts the projection that a momentum encoder, the target, computes of the other view."""

    def __init__(self, backbone: Backbone, num_features: int, settings: BYOLSettings | None = None) -> None:
        super().__init__()
        settings = settings or BYOLSettings()
        self.momentum = settings.momentum
        self.backbone = backbone
        self.projector = mlp((num_features, settings.hidden, settings.out))
        self.predictor = mlp((settings.out, settings.hidden, settings.out))
        self.target = MomentumEncoder(self.encoder)

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Compute the symmetrised loss (section 3.1) of views x0, x1: float [B, C, H, W]."""
        y0, y1 = self.encode(x0), self.encode(x1)  # [B, D]
        with torch.no_grad():
            z0, z1 = self.target.copy(x0), self.target.copy(x1)
        loss = bootstrap_loss(self.predictor(y0), z1) + bootstrap_loss(self.predictor(y1), z0)
        return MethodOutput(loss=loss, projection=y0)

    def after_step(self, progress: float) -> None:
        self.target.update(self.encoder, cosine_momentum(self.momentum, progress))
