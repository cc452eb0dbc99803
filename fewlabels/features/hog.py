"""Features that no training made: histograms of oriented gradients, and the pixels themselves."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.source import ImageSource

ORIENTATIONS = 9
GRIDS = (7, 4)
"""Cells along each side."""
GRID_WEIGHTS = (1.0, 0.5)
PIXELS = 14
"""The image is also taken as it is, at this size."""
PIXELS_WEIGHT = 0.7
CLIP = 0.2
SMALL = 0.1
"""Length of a block's gradients below which it counts as plain."""
PIXELS_AT_ONCE = 4096 * 28 * 28
"""Of images that are looked at together."""


def num_features(channels: int) -> int:
    """F of :func:`gradient_features`."""
    return 4 * ORIENTATIONS * sum((grid - 1) ** 2 for grid in GRIDS) + channels * PIXELS**2


def gradient_features(source: ImageSource) -> np.ndarray:
    """Float32 [N, F] of length 1: a function of each image alone.

    Histograms of oriented gradients (Dalal & Triggs 2005, section 6): square-rooted pixels, centred differences of the
    channel that differs most, votes shared between neighbouring orientations, blocks of 2x2 cells brought to length 1
    and clipped. Here at two sizes of cells, beside the blurred pixels.
    """
    batch = max(1, PIXELS_AT_ONCE // math.prod(source.shape[1:]))
    features = np.empty((len(source), num_features(source.shape[0])), np.float32)
    for start in range(0, len(source), batch):
        features[start : start + batch] = _features(source.read(slice(start, start + batch)).float() / 255).numpy()
    return features


def _features(images: Tensor) -> Tensor:
    votes = orientation_votes(images.sqrt())
    blocks = [
        weight * F.normalize(_blocks(F.adaptive_avg_pool2d(votes, grid)), dim=1)
        for grid, weight in zip(GRIDS, GRID_WEIGHTS, strict=True)
    ]
    pixels = F.normalize(F.adaptive_avg_pool2d(images, PIXELS).flatten(1), dim=1)
    return F.normalize(torch.cat([*blocks, PIXELS_WEIGHT * pixels], dim=1), dim=1)


def orientation_votes(images: Tensor) -> Tensor:
    """How strongly the image changes at each pixel, by direction.

    Args:
        images: float [B, C, H, W].

    Returns:
        Float [B, ORIENTATIONS, H, W]; the first is of changes along a row, and the turn goes on by 180 degrees.
    """
    right, down = torch.zeros_like(images), torch.zeros_like(images)
    right[..., 1:-1] = images[..., 2:] - images[..., :-2]
    down[..., 1:-1, :] = images[..., 2:, :] - images[..., :-2, :]
    strength, channel = torch.hypot(right, down).max(dim=1, keepdim=True)
    right, down = right.gather(1, channel), down.gather(1, channel)
    place = torch.atan2(down, right).remainder(torch.pi) / torch.pi * ORIENTATIONS
    bins = torch.arange(ORIENTATIONS, device=images.device)[:, None, None]
    apart = (place - bins).abs()
    return strength * (1 - torch.minimum(apart, ORIENTATIONS - apart)).clamp(min=0)


def _blocks(cells: Tensor) -> Tensor:
    """Overlapping blocks of 2x2 cells, each of length 1 at most: [B, O, G, G] to [B, 4 * O * (G - 1)^2]."""
    grid = cells.shape[2] - 1
    corners = [cells[:, :, top : top + grid, left : left + grid] for top in (0, 1) for left in (0, 1)]
    blocks = torch.cat(corners, dim=1)
    length = (blocks.square().sum(dim=1, keepdim=True) + SMALL**2 / 16).sqrt()
    return (blocks / length).clamp(max=CLIP).flatten(1)
