"""Features without training: histograms of oriented gradients (HOG), and downscaled pixels."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.source import ImageSource

ORIENTATIONS = 9
"""Orientation bins over 180 degrees (Dalal & Triggs 2005)."""
CELL_GRIDS = (7, 4)
"""Cells along each side, for two histograms. Not tuned."""
CELL_GRID_WEIGHTS = (1.0, 0.5)
"""Weights of the two histograms in the feature vector. Not tuned."""
PIXEL_GRID = 14
"""Height and width of the downscaled image. Not tuned."""
PIXEL_WEIGHT = 0.7
"""Weight of the downscaled image in the feature vector. Not tuned."""
MAX_BLOCK_VALUE = 0.2
"""Clipping value of normalised blocks (Dalal & Triggs 2005; Lowe 2004)."""
MIN_BLOCK_NORM = 0.1
"""Norm of a block's gradients below which the block stays small after normalisation. Not tuned."""
PIXELS_PER_BATCH = 4096 * 28 * 28
"""Pixels of a batch; limits memory."""


def num_features(channels: int) -> int:
    """Length F of the vectors of :func:`gradient_features`."""
    return 4 * ORIENTATIONS * sum((grid - 1) ** 2 for grid in CELL_GRIDS) + channels * PIXEL_GRID**2


def gradient_features(source: ImageSource) -> np.ndarray:
    """Compute HOG features and downscaled pixels of each image: float32 [N, F] of length 1.

    Histograms follow Dalal & Triggs 2005 (section 6). Pixels are square-rooted, and gradients are centred differences
    of the channel with the largest one. A gradient is divided between the two nearest orientations. Blocks of 2x2
    cells are normalised to length 1 and clipped. Histograms with two cell sizes and downscaled pixels are concatenated.
    """
    batch = max(1, PIXELS_PER_BATCH // math.prod(source.shape[1:]))
    features = np.empty((len(source), num_features(source.shape[0])), np.float32)
    for start in range(0, len(source), batch):
        features[start : start + batch] = _features(source.read(slice(start, start + batch)).float() / 255).numpy()
    return features


def _features(images: Tensor) -> Tensor:
    votes = orientation_votes(images.sqrt())
    blocks = [
        weight * F.normalize(_blocks(F.adaptive_avg_pool2d(votes, grid)), dim=1)
        for grid, weight in zip(CELL_GRIDS, CELL_GRID_WEIGHTS, strict=True)
    ]
    pixels = F.normalize(F.adaptive_avg_pool2d(images, PIXEL_GRID).flatten(1), dim=1)
    return F.normalize(torch.cat([*blocks, PIXEL_WEIGHT * pixels], dim=1), dim=1)


def orientation_votes(images: Tensor) -> Tensor:
    """Compute the gradient magnitude of each pixel, by orientation bin.

    Args:
        images: float [B, C, H, W].

    Returns:
        Float [B, ORIENTATIONS, H, W]. The first bin is of gradients along a row; bins cover 180 degrees.
    """
    right, down = torch.zeros_like(images), torch.zeros_like(images)
    right[..., 1:-1] = images[..., 2:] - images[..., :-2]
    down[..., 1:-1, :] = images[..., 2:, :] - images[..., :-2, :]
    strength, channel = torch.hypot(right, down).max(dim=1, keepdim=True)
    right, down = right.gather(1, channel), down.gather(1, channel)
    position = torch.atan2(down, right).remainder(torch.pi) / torch.pi * ORIENTATIONS
    bins = torch.arange(ORIENTATIONS, device=images.device)[:, None, None]
    distance = (position - bins).abs()
    return strength * (1 - torch.minimum(distance, ORIENTATIONS - distance)).clamp(min=0)


def _blocks(cells: Tensor) -> Tensor:
    """Normalised, clipped, overlapping blocks of 2x2 cells: [B, O, G, G] to [B, 4 * O * (G - 1)^2]."""
    grid = cells.shape[2] - 1
    corners = [cells[:, :, top : top + grid, left : left + grid] for top in (0, 1) for left in (0, 1)]
    blocks = torch.cat(corners, dim=1)
    length = (blocks.square().sum(dim=1, keepdim=True) + MIN_BLOCK_NORM**2 / 16).sqrt()
    return (blocks / length).clamp(max=MAX_BLOCK_VALUE).flatten(1)
