"""Inference of a network on images in batches, and timing of inference and training."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fewlabels._internal.errors import InputError
from fewlabels.data.source import ArraySource, ImageSource, evenly_spaced

INFERENCE_BATCH_SIZE = 256
"""Images per batch; limits memory."""
MAX_TIMED_IMAGES, MAX_TIMED_PIXELS = 512, 2**20
"""Images of a timing, and pixel values that they have together, at most; at least four images are timed."""


@torch.no_grad()
def outputs(module: nn.Module, source: ImageSource, half: bool = False) -> np.ndarray:
    """Compute the module's output for every image in evaluation mode: float32 [N, D].

    Args:
        module: float [B, C, H, W] in [0, 1] to float [B, D].
        source: the images.
        half: compute in bfloat16, which has about three digits.

    Raises:
        InputError: if the module takes only images of another size.
    """
    size = getattr(module, "image_size", None)
    if size is not None and source.shape[1:] != (size, size):
        height, width = source.shape[1:]
        raise InputError(f"images of {height}x{width} pixels: the network takes {size}x{size}. Resize them first.")
    module.eval()
    like = next(module.parameters())
    parts = []
    with torch.autocast(like.device.type, torch.bfloat16, enabled=half):
        for start in range(0, len(source), INFERENCE_BATCH_SIZE):
            images = source.read(slice(start, start + INFERENCE_BATCH_SIZE)).to(like.device).float() / 255
            parts.append(module(images.to(like.dtype)).float().cpu())
    return torch.cat(parts).numpy()


def seconds_per_image(module: nn.Module, source: ArraySource, half: bool = False) -> float:
    """Measure the seconds of :func:`outputs` per image on a sample."""
    # On an accelerator a full batch is timed, since a few images take as long as a batch.
    on_cpu = next(module.parameters()).device.type == "cpu"
    some = source.subset(timing_rows(source) if on_cpu else evenly_spaced(source, INFERENCE_BATCH_SIZE))
    outputs(module, some, half)
    began = time.perf_counter()
    outputs(module, some, half)
    return (time.perf_counter() - began) / len(some)


def timing_rows(source: ArraySource) -> np.ndarray:
    """Rows of evenly spaced images for a timing, int64; fewer if images are large."""
    return evenly_spaced(source, min(MAX_TIMED_IMAGES, max(4, MAX_TIMED_PIXELS // math.prod(source.shape))))


def seconds_per_training_image(
    network: nn.Module, images: torch.Tensor, view: Callable[[torch.Tensor], torch.Tensor], half: bool = False
) -> float:
    """Measure the seconds per image of making a view, a forward pass and a backward pass; weights do not change.

    Args:
        network: float [B, C, H, W] to logits float [B, K].
        images: uint8 [B, C, H, W], on the network's device.
        view: makes a random view of each image, float [B, C, H, W].
        half: compute in bfloat16.
    """
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    for _ in range(2):  # the first pass takes longer
        began = time.perf_counter()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            logits = network.train()(view(images).contiguous(memory_format=torch.channels_last))
        F.cross_entropy(logits.float(), labels).backward()
        next(network.parameters()).grad.sum().item()  # type: ignore[union-attr]
        seconds = time.perf_counter() - began
    network.zero_grad()
    return seconds / len(images)
