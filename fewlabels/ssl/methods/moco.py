"""MoCo v2 (He et al. 2020; Chen, Fan, Girshick & He 2020) and MoCo v3 (Chen, Xie & He, ICCV 2021)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.backbones.architectures import Backbone
from fewlabels.backbones.heads import mlp
from fewlabels.ssl.methods.base import Method, MethodOutput
from fewlabels.ssl.momentum_encoder import MomentumEncoder, cosine_momentum
from fewlabels.training.distributed import gathered, rank
from fewlabels.training.optimizers import OptimizerSettings


def queue_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE loss with a queue of negatives (He et al. 2020, eq. 1).

    Args:
        q: queries [B, D].
        k: keys [B, D]; row i is the positive of row i of ``q``. No gradient flows to it.
        queue: normalised negatives [K, D].
        temperature: tau > 0.
    """
    q, k = F.normalize(q, dim=1), F.normalize(k.detach(), dim=1)
    positive = (q * k).sum(dim=1, keepdim=True)  # [B, 1]
    logits = torch.cat([positive, q @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(q), dtype=torch.long))


def batch_loss(q: Tensor, k: Tensor, temperature: float) -> Tensor:
    """InfoNCE loss with the keys of the global batch as negatives, times 2 tau (MoCo v3, algorithm 1).

    Args:
        q: queries [b, D] of this process.
        k: keys [b, D]; row i is the positive of row i of ``q``. No gradient flows to it.
        temperature: tau > 0.
    """
    q, k = F.normalize(q, dim=1), gathered(F.normalize(k.detach(), dim=1))
    positive = torch.arange(len(q), device=q.device) + rank() * len(q)
    return 2 * temperature * F.cross_entropy(q @ k.T / temperature, positive)


@dataclass(frozen=True)
class MoCoV2Settings:
    """The head and temperature of MoCo v2. Queue and momentum are smaller, since runs and data sets are smaller."""

    hidden: int = 512
    out: int = 128
    queue: int = 4096
    momentum: float = 0.99
    temperature: float = 0.2
    batch_size: int = 256
    optimizer: OptimizerSettings = OptimizerSettings("adamw", lr=2e-3, weight_decay=1e-4)


class MoCoV2(Method):
    """Compares queries with keys of a momentum encoder; a queue of earlier keys holds the negatives.

    The paper shuffles keys over GPUs, since batch norm over one GPU leaks which images share a batch. Here batch norm
    is over all processes, so that there is no shuffling.
    """

    queue: Tensor
    place: Tensor
    """Index of the oldest key; the name is part of saved checkpoints."""

    def __init__(self, backbone: Backbone, num_features: int, settings: MoCoV2Settings | None = None) -> None:
        super().__init__()
        settings = settings or MoCoV2Settings()
        self.momentum, self.temperature = settings.momentum, settings.temperature
        self.backbone = backbone
        self.projector = mlp((num_features, settings.hidden, settings.out))
        self.keys = MomentumEncoder(self.encoder)
        self.register_buffer("queue", F.normalize(torch.randn(settings.queue, settings.out), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Compute the loss of queries from x0 and keys from x1: float [B, C, H, W]."""
        q = self.encode(x0)  # [B, D]
        with torch.no_grad():
            k = self.keys.copy(x1)
        loss = queue_loss(q, k, self.queue.clone(), self.temperature)
        if self.training:
            self._enqueue(gathered(F.normalize(k, dim=1)))
        return MethodOutput(loss=loss, projection=q)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest keys of the queue."""
        keys = keys[-len(self.queue) :].to(self.queue.dtype)
        positions = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, positions, keys)
        self.place.copy_((self.place + len(keys)) % len(self.queue))

    def after_step(self, progress: float) -> None:
        self.keys.update(self.encoder, self.momentum)


@dataclass(frozen=True)
class MoCoV3Settings:
    """The temperature of MoCo v3; narrower heads and a lower momentum than on ImageNet."""

    hidden: int = 512
    out: int = 128
    projector_layers: int = 2
    momentum: float = 0.99
    """Initial momentum; it rises to 1 (section 3)."""
    temperature: float = 0.2
    batch_size: int = 256
    optimizer: OptimizerSettings = OptimizerSettings("adamw", lr=2e-3, weight_decay=1e-4)


class MoCoV3(Method):
    """A predictor on the queries, a momentum encoder for the keys, and negatives from the batch."""

    def __init__(self, backbone: Backbone, num_features: int, settings: MoCoV3Settings | None = None) -> None:
        super().__init__()
        settings = settings or MoCoV3Settings()
        self.momentum, self.temperature = settings.momentum, settings.temperature
        self.backbone = backbone
        # The patch projection of a ViT keeps its random initial weights (section 4.2).
        for name, parameter in backbone.named_parameters():
            if "patch_embed." in name:
                parameter.requires_grad_(False)
        widths = [settings.hidden] * (settings.projector_layers - 1)
        self.projector = mlp((num_features, *widths, settings.out), normalised=True)
        self.predictor = mlp((settings.out, settings.hidden, settings.out), normalised=True)
        self.keys = MomentumEncoder(self.encoder)

    def forward(self, x0: Tensor, x1: Tensor) -> MethodOutput:
        """Compute the symmetrised loss (algorithm 1) of views x0, x1: float [B, C, H, W]."""
        z0, z1 = self.encode(x0), self.encode(x1)  # [B, D]
        with torch.no_grad():
            k0, k1 = self.keys.copy(x0), self.keys.copy(x1)
        q0, q1 = self.predictor(z0), self.predictor(z1)
        loss = batch_loss(q0, k1, self.temperature) + batch_loss(q1, k0, self.temperature)
        return MethodOutput(loss=loss, projection=z0)

    def after_step(self, progress: float) -> None:
        self.keys.update(self.encoder, cosine_momentum(self.momentum, progress))
