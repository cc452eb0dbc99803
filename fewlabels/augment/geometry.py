"""Geometric operations as matrices, which are composed per image and applied by one interpolation.

Matrices are float64 [B, 3, 3]. They map coordinates in the *result* to coordinates in the *input*. Coordinates are in
pixels from the image's centre, x to the right, y down.
"""

from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float64]


def _matrix(xx: Floats, xy: Floats, yx: Floats, yy: Floats, x: Floats | float = 0, y: Floats | float = 0) -> Floats:
    matrix = np.zeros((len(xx), 3, 3))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2] = xx, xy, x
    matrix[:, 1, 0], matrix[:, 1, 1], matrix[:, 1, 2] = yx, yy, y
    matrix[:, 2, 2] = 1
    return matrix


def rotation(degrees: Floats) -> Floats:
    """Matrices of clockwise rotations about the centre, by degrees [B]."""
    angle = np.deg2rad(degrees)
    return _matrix(np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle))


def shear(x_degrees: Floats, y_degrees: Floats) -> Floats:
    """Matrices of shears along x, then along y, about the centre, by degrees [B] in (-90, 90)."""
    x, y = np.tan(np.deg2rad(x_degrees)), np.tan(np.deg2rad(y_degrees))
    return _matrix(1 + x * y, x, y, np.ones_like(x))


def translation(right: Floats, down: Floats) -> Floats:
    """Matrices of translations, in pixels [B]."""
    one, zero = np.ones_like(right), np.zeros_like(right)
    return _matrix(one, zero, zero, one, -right, -down)


def scaling(factor: Floats) -> Floats:
    """Matrices of scalings about the centre, by factors [B] > 0; a factor above 1 enlarges."""
    zero = np.zeros_like(factor)
    return _matrix(1 / factor, zero, zero, 1 / factor)


def flip(which: NDArray[np.bool_]) -> Floats:
    """Matrices of left-right flips where ``which`` [B] is true."""
    one, zero = np.ones(len(which)), np.zeros(len(which))
    return _matrix(np.where(which, -1.0, 1.0), zero, zero, one)


def crop(
    top: Floats, left: Floats, height: Floats, width: Floats, image: tuple[int, int], result: tuple[int, int]
) -> Floats:
    """Matrices that crop boxes [B] from images of size (H, W) and resize them to the result's (H, W).

    Box coordinates are in pixels and need not be integers.
    """
    zero = np.zeros_like(top)
    x, y = left + width / 2 - image[1] / 2, top + height / 2 - image[0] / 2
    return _matrix(width / result[1], zero, zero, height / result[0], x, y)


def pixel_box(
    height: int, width: int, area: Floats, ratio: Floats | float, top: Floats, left: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Top, left, height and width of boxes [B] inside of an image, in whole pixels.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        area: fraction of the image's area.
        ratio: height over width, relative to the image's.
        top: in [0, 1), from the topmost to the lowest possible position.
        left: in [0, 1), from the leftmost to the rightmost possible position.
    """
    box_height = np.minimum(height, np.round(height * np.sqrt(area * ratio)))
    box_width = np.minimum(width, np.round(width * np.sqrt(area / ratio)))
    return np.floor(top * (height - box_height + 1)), np.floor(left * (width - box_width + 1)), box_height, box_width


def compose(*matrices: Floats) -> Floats:
    """One matrix per image for several operations, which are applied in this order."""
    return reduce(np.matmul, matrices)


def warp(images: Tensor, matrix: Floats, size: tuple[int, int] | None = None) -> Tensor:
    """Apply matrices by one bilinear interpolation; pixels outside of the image are 0.

    Args:
        images: float [B, C, H, W].
        matrix: [B, 3, 3].
        size: (H', W') of the result; None: the images' size.

    Returns:
        float [B, C, H', W'].
    """
    height, width = images.shape[2:]
    out_height, out_width = size or (height, width)
    # grid_sample takes coordinates in [-1, 1] from edge to edge.
    unit = matrix[:, :2] * np.array([[2 / width], [2 / height]])
    rows = torch.from_numpy(unit.astype(np.float32)).to(images.device)[..., None, None]  # [B, 2, 3, 1, 1]
    x = torch.arange(out_width, device=images.device) + (0.5 - out_width / 2)
    y = torch.arange(out_height, device=images.device)[:, None] + (0.5 - out_height / 2)
    # Several times faster than torch's affine_grid, which multiplies matrices with three columns.
    planes = rows[:, :, 0] * x + (rows[:, :, 1] * y + rows[:, :, 2])  # [B, 2, H', W']
    return F.grid_sample(images, planes.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)
