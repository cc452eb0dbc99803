"""SimCLR: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.backbones.architectures import Backbone
from fewlabels.backbones.heads import mlp
from fewlabels.ssl.methods.base import Method, MethodOutput
from fewlabels.training.distributed import gathered, rank
from fewlabels.training.optimizers import OptimizerSettings


def nt_xent(z0: Tensor, z1: Tensor, temperature: float = 0.5) -> Tensor:
    """Normalised temperature-scaled cross-entropy (eq. 1), averaged over the 2b rows of this process.

    Args:
        z0: projections [b, D] of one view of each image.
        z1: projections [b, D] of the other view; row i is the positive of row i of ``z0``. The other 2B - 2 rows are
            its negatives, where B is the batch size over all processes.
        temperature: tau > 0.
    """
    z0, z1 = F.normalize(z0, dim=1), F.normalize(z1, dim=1)
    all_rows = torch.cat([gathered(z0), gathered(z1)])  # [2B, D]
    similarity = torch.cat([z0, z1]) @ all_rows.T / temperature  # [2b, 2B]
    first = torch.arange(len(z0), device=z0.device) + rank() * len(z0)
    second = first + len(all_rows) // 2
    own = torch.cat([first, second])[:, None]
    similarity = similarity.scatter(1, own, -torch.inf)
    return F.cross_entropy(similarity, torch.cat([second, first]))


@dataclass(frozen=True)
class SimCLRSettings:
    """The tau of section 4.2 and appendix B.9 (small images). AdamW is more stable here than the paper's LARS."""

    projector_hidden: int = 512
    projector_out: int = 128
    temperature: float = 0.5
    batch_size: int = 256
    optimizer: OptimizerSettings = OptimizerSettings("adamw", lr=2e-3, weight_decay=1e-4)


class SimCLR(Method):
    """SimCLR with a projector of two layers, g(h) = W2 relu(W1 h), with batch norm after the first (section 2.1)."""

    def __init__(self, backbone: Backbone, num_features: int, settings: SimCLRSettings | None = None) -> None:
        super().__init__()
        settings = settings or SimCLRSettings()
        self.temperature = settings.temperature
        self.backbone = backbone
        self.projector = mlp((num_features, settings.projector_hidden, settings.projector_out))

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Compute the loss of views x0, x1: float [B, C, H, W]."""
        z0, z1 = self.encode(x0), self.encode(x1)  # [B, D]
        return MethodOutput(loss=nt_xent(z0, z1, self.temperature), projection=z0)
