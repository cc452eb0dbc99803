"""A network applied to images, batch by batch, and how long that takes."""

import math
import time

import numpy as np
import torch
from torch import nn

from fewlabels._internal.errors import InputError
from fewlabels.data.source import ArraySource, ImageSource, evenly_spaced

BATCH = 256
TRIED, TRIED_PIXELS = 512, 2**20
"""Images that something is done with to see how long it takes, and what they have together, or a little more."""


@torch.no_grad()
def outputs(module: nn.Module, source: ImageSource, half: bool = False) -> np.ndarray:
    """The module's output for every image, in evaluation mode: float32 [N, D].

    Args:
        module: float [B, C, H, W] in [0, 1] to float [B, D].
        source: the images.
        half: compute in bfloat16, where three digits are enough.

    Raises:
        InputError: if the images are not of the one size that the module takes.
    """
    wanted = getattr(module, "image_size", None)
    if wanted is not None and source.shape[1:] != (wanted, wanted):
        height, width = source.shape[1:]
        raise InputError(f"images of {height}x{width} pixels: the network takes {wanted}x{wanted}. Resize them first.")
    module.eval()
    like = next(module.parameters())
    parts = []
    with torch.autocast(like.device.type, torch.bfloat16, enabled=half):
        for start in range(0, len(source), BATCH):
            images = source.read(slice(start, start + BATCH)).to(like.device).float() / 255
            parts.append(module(images.to(like.dtype)).float().cpu())
    return torch.cat(parts).numpy()


def seconds_an_image(module: nn.Module, source: ArraySource, half: bool = False) -> float:
    """That :func:`outputs` takes, by a trial of some images."""
    few = next(module.parameters()).device.type == "cpu"  # elsewhere a batch takes as long as a few of them
    some = source.subset(tried_images(source) if few else evenly_spaced(source, BATCH))
    outputs(module, some, half)
    began = time.perf_counter()
    outputs(module, some, half)
    return (time.perf_counter() - began) / len(some)


def tried_images(source: ArraySource) -> np.ndarray:
    """Rows of evenly spaced images for a trial, int64: fewer of large ones."""
    return evenly_spaced(source, min(TRIED, max(4, TRIED_PIXELS // math.prod(source.shape))))
