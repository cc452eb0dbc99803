"""How good features are, without a label: figures of features and projections alone."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LIDAR_DELTA = 1e-4
"""Added to the within-image scatter (Thilak et al. 2024, section 4)."""


@torch.no_grad()
def encoded(method: Any, x: Tensor, at_once: int) -> tuple[Tensor, Tensor]:
    """Features [N, F] and projections [N, D] of views x, float [N, C, H, W], as when the network is used.

    Float32 on the CPU; the method is left in the mode that it was in.

    Args:
        method: has a ``backbone`` and a ``projector``.
        x: float [N, C, H, W].
        at_once: images that the backbone is given together.
    """
    training = method.training
    method.eval()
    h = torch.cat([method.backbone(part) for part in x.to(next(method.backbone.parameters())).split(at_once)])
    z = method.projector(h)
    method.train(training)
    return h.float().cpu(), z.float().cpu()


def spread(z: Tensor) -> float:
    """How far apart projections point: mean deviation of a feature of normalised z, times sqrt(D).

    0 if all of z, float [N, D], point one way; near 1 if evenly in all directions (Chen & He 2021, section 4.1).
    """
    return float(F.normalize(z, dim=1).std(dim=0).mean() * math.sqrt(z.shape[1]))


def rankme(h: Tensor) -> float:
    """Effective rank of h, float [N, D]: exp of the entropy of its singular values (Garrido et al. 2023, eq. 1).

    From 1, if all rows are multiples of one vector, to min(N, D).
    """
    h = h.double()
    gram = h @ h.T if len(h) <= h.shape[1] else h.T @ h
    return _effective_number(torch.linalg.eigvalsh(gram).clamp(min=0).sqrt())


def alignment(z0: Tensor, z1: Tensor) -> float:
    """Mean squared distance of both views' normalised features [N, D], in [0, 4] (Wang & Isola 2020, section 4.1)."""
    return float((F.normalize(z0, dim=1) - F.normalize(z1, dim=1)).square().sum(dim=1).mean())


def uniformity(z: Tensor) -> float:
    """Log of the mean of exp(-2 d^2) over pairs of normalised features [N, D] (Wang & Isola 2020, section 4.1).

    From nearly -4, spread evenly, to 0, all the same.
    """
    return float(torch.pdist(F.normalize(z, dim=1)).square().mul(-2).exp().mean().log())


def dead_share(h: Tensor) -> float:
    """Share of features of h, float [N, D], that hardly differ between images: below 1/1000 of the mean deviation."""
    deviation = h.std(dim=0)
    return float((deviation <= 1e-3 * deviation.mean()).float().mean()) if deviation.mean() > 0 else 1.0


def alpha_req(h: Tensor) -> float:
    """Exponent alpha of the power law that the covariance's eigenvalues of h, float [N, D], follow.

    Least squares on logarithms over the eigenvalues above rounding. Agrawal et al. 2022 (section 3) find the best
    features near alpha = 1; larger: few directions hold all variance.
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
    """Effective rank of the linear discriminant whose classes are the single images (Thilak et al. 2024, section 4).

    Args:
        views: features, float [N, Q, D], of Q >= 2 views of each of N images.

    Returns:
        From 1 to min(N - 1, D).
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


def retrieval(h0: Tensor, h1: Tensor) -> float:
    """Share of images whose second view is, among all second views, the nearest to their first (cosine); h [N, D]."""
    similarity = F.normalize(h0, dim=1) @ F.normalize(h1, dim=1).T
    return float((similarity.argmax(dim=1) == torch.arange(len(h0), device=h0.device)).float().mean())


def _effective_number(sizes: Tensor) -> float:
    """Exp of the entropy of sizes as shares of their sum."""
    share = sizes / sizes.sum().clamp(min=1e-300) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))
