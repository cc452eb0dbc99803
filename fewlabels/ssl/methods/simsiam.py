"""SimSiam: Chen & He, Exploring Simple Siamese Representation Learning, CVPR 2021."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.backbones.architectures import Backbone
from fewlabels.backbones.heads import mlp
from fewlabels.ssl.methods.base import Method, MethodOutput
from fewlabels.training.optimizers import OptimizerSettings


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, stopgrad(z)) of eq. 1 and 3: mean negative cosine of p and z, both [B, D]; in [-1, 1].

    No gradient flows to z.
    """
    return -F.cosine_similarity(p, z.detach(), dim=1, eps=1e-6).mean()


@dataclass(frozen=True)
class SimSiamSettings:
    """Section 3, with narrower heads for small images and CPUs. AdamW learns faster here than the paper's SGD."""

    projector: tuple[int, ...] = (512, 512, 512)
    """Widths of the projector's layers; () means no projector."""
    predictor_hidden: int = 128
    predictor_constant_lr: bool = True
    """Keep the learning rate of the predictor constant (section 4.1)."""
    batch_size: int = 256
    optimizer: OptimizerSettings = OptimizerSettings("adamw", lr=2e-3, weight_decay=1e-4)


class SimSiam(Method):
    """Predicts the projection of the other view, through which no gradient flows.

    The projector ends in a batch norm without scale and shift. The predictor, D -> hidden -> D, ends in a linear layer
    (section 3).
    """

    def __init__(self, backbone: Backbone, num_features: int, settings: SimSiamSettings | None = None) -> None:
        super().__init__()
        settings = settings or SimSiamSettings()
        self.backbone = backbone
        self.projector = (
            mlp((num_features, *settings.projector), normalised=True) if settings.projector else nn.Identity()
        )
        width = settings.projector[-1] if settings.projector else num_features
        hidden = settings.predictor_hidden
        # The tutorial has a bias here; the batch norm that follows cancels it.
        self.predictor = nn.Sequential(
            nn.Linear(width, hidden, bias=not settings.projector),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
        )
        self.predictor_constant_lr = settings.predictor_constant_lr

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Compute the symmetrised loss (eq. 2) of views x0, x1: float [B, C, H, W]."""
        z0, z1 = self.encode(x0), self.encode(x1)  # [B, D]
        p0, p1 = self.predictor(z0), self.predictor(z1)
        loss = (negative_cosine(p0, z1) + negative_cosine(p1, z0)) / 2
        return MethodOutput(loss=loss, projection=z0)

    def param_groups(self) -> list[dict[str, Any]]:
        encoder = [*self.backbone.parameters(), *self.projector.parameters()]
        predictor = {"params": list(self.predictor.parameters()), "constant_lr": self.predictor_constant_lr}
        return [{"params": encoder}, predictor]
