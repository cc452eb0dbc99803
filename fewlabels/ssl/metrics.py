"""Label-free metrics of features and projections: RankMe, LiDAR, alpha-ReQ, alignment, uniformity and others."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LIDAR_DELTA = 1e-4
"""Constant added to the diagonal of the within-image scatter (Thilak et al. 2024, section 4)."""


@torch.no_grad()
def features_and_projections(method: Any, x: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Features [N, F] and projections [N, D] of views x in evaluation mode, float32 on the CPU.

    Afterwards the method is in the same mode as before.

    Args:
        method: a module with a ``backbone`` and a ``projector``.
        x: float [N, C, H, W].
        batch_size: images per forward pass of the backbone.
    """
    training = method.training
    method.eval()
    h = torch.cat([method.backbone(part) for part in x.to(next(method.backbone.parameters())).split(batch_size)])
    z = method.projector(h)
    method.train(training)
    return h.float().cpu(), z.float().cpu()


def normalized_std(z: Tensor) -> float:
    """Mean per-dimension standard deviation of normalised projections z, float [N, D], times sqrt(D).

    It is 0 if all rows have one direction, and near 1 if directions are uniform (Chen & He 2021, section 4.1).
    """
    return float(F.normalize(z, dim=1).std(dim=0).mean() * math.sqrt(z.shape[1]))


def rankme(h: Tensor) -> float:
    """Effective rank of h, float [N, D]: exp of the entropy of its singular values (Garrido et al. 2023, eq. 1).

    The range is 1 (all rows are multiples of one vector) to min(N, D).
    """
    h = h.double()
    gram = h @ h.T if len(h) <= h.shape[1] else h.T @ h
    return _effective_number(torch.linalg.eigvalsh(gram).clamp(min=0).sqrt())


def alignment(z0: Tensor, z1: Tensor) -> float:
    """Mean squared distance between normalised features [N, D] of two views, in [0, 4] (Wang & Isola 2020, 4.1)."""
    return float((F.normalize(z0, dim=1) - F.normalize(z1, dim=1)).square().sum(dim=1).mean())


def uniformity(z: Tensor) -> float:
    """Log of the mean of exp(-2 d^2) over pairs of normalised features [N, D] (Wang & Isola 2020, section 4.1).

    The range is nearly -4 (uniform on the sphere) to 0 (all features are equal).
    """
    return float(torch.pdist(F.normalize(z, dim=1)).square().mul(-2).exp().mean().log())


def dead_fraction(h: Tensor) -> float:
    """Fraction of dead features of h, float [N, D]: their standard deviation is at most 1/1000 of the mean."""
    deviation = h.std(dim=0)
    return float((deviation <= 1e-3 * deviation.mean()).float().mean()) if deviation.mean() > 0 else 1.0


def alpha_req(h: Tensor) -> float:
    """Exponent alpha of a power law fitted to the eigenvalues of the covariance of h, float [N, D].

    The fit is least squares on logarithms, over eigenvalues above rounding error. Agrawal et al. 2022 (section 3) find
    the best features near alpha = 1. With a larger alpha, few directions hold all variance.
    """
    h = h.double() - h.double().mean(dim=0)
    gram = h @ h.T if len(h) <= h.shape[1] else h.T @ h
    values = torch.linalg.eigvalsh(gram).flip(0)
    values = values[values > values[0] * 1e-10]
    if len(values) < 2:
        return math.inf
    x = torch.arange(1, len(values) + 1, dtype=torch.float64).log()
    y = values.log()
    x = x - x.mean()
    return float(-(x * y).sum() / x.square().sum())


def lidar(views: Tensor) -> float:
    """Effective rank of a linear discriminant analysis with one class per image (Thilak et al. 2024, section 4).

    Args:
        views: float [N, Q, D], features of Q >= 2 views of each of N images.

    Returns:
        A value from 1 to min(N - 1, D).
    """
    views = views.double()
    images, q, width = views.shape
    means = views.mean(dim=1)
    centred = means - means.mean(dim=0)
    between = centred.T @ centred / (images - 1)
    within = (views - means[:, None]).flatten(0, 1)
    within = within.T @ within / (images * (q - 1)) + LIDAR_DELTA * torch.eye(width, dtype=torch.float64)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), between, upper=False)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), whitened.T, upper=False)
    return _effective_number(torch.linalg.eigvalsh((whitened + whitened.T) / 2).clamp(min=0))


def retrieval_accuracy(h0: Tensor, h1: Tensor) -> float:
    """Fraction of images whose first view has its own second view as its nearest by cosine; h0, h1 [N, D]."""
    similarity = F.normalize(h0, dim=1) @ F.normalize(h1, dim=1).T
    return float((similarity.argmax(dim=1) == torch.arange(len(h0), device=h0.device)).float().mean())


def _effective_number(sizes: Tensor) -> float:
    """Exp of the entropy of sizes divided by their sum."""
    p = sizes / sizes.sum().clamp(min=1e-300) + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))
