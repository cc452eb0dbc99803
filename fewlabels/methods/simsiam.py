"""SimSiam: Chen & He, Exploring Simple Siamese Representation Learning, CVPR 2021."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.methods.base import Method, MethodOutput
from fewlabels.models.backbones import Backbone
from fewlabels.optimizers import OptimizerSettings


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, stopgrad(z)) of eq. 1 and 3: mean negative cosine of p, z, both [B, D]; in [-1, 1].

    The stop-gradient is here, so that no caller can forget it.
    """
    return -F.cosine_similarity(p, z.detach(), dim=1, eps=1e-6).mean()


@dataclass(frozen=True)
class SimSiamSettings:
    """The tutorial's settings."""

    predictor_hidden: int = 64
    batch_size: int = 256
    optimizer: OptimizerSettings = OptimizerSettings("sgd", lr=1e-4, weight_decay=1e-5)


class SimSiam(Method):
    """SimSiam in the tutorial's form: no projector, predictor D -> hidden -> D with one batch norm."""

    def __init__(self, backbone: Backbone, num_features: int, settings: SimSiamSettings | None = None) -> None:
        super().__init__()
        hidden = (settings or SimSiamSettings()).predictor_hidden
        self.backbone = backbone
        self.predictor = nn.Sequential(
            nn.Linear(num_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_features),
        )

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Symmetrised loss (eq. 2). x0, x1: float [B, C, H, W]."""
        z0, z1 = self.backbone(x0), self.backbone(x1)  # [B, D]
        p0, p1 = self.predictor(z0), self.predictor(z1)
        loss = (negative_cosine(p0, z1) + negative_cosine(p1, z0)) / 2
        return MethodOutput(loss=loss, projection=z0)
