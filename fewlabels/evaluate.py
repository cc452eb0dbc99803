"""Figures from a trained network: predictions, features and the classification report."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import classification_report
from torch import nn

from fewlabels.data.source import ArraySource, ImageSource, evenly_spaced
from fewlabels.errors import InputError, printable

BATCH = 256
BINS = 15
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


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over classes: [N, K] to float32 [N, K], rows summing to 1."""
    return torch.from_numpy(logits).softmax(dim=1).numpy()


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, eq. 3).

    Args:
        probabilities: float [N, K].
        labels: int64 [N].

    >>> calibration_error(np.array([[0.8, 0.2]] * 5), np.array([0, 0, 0, 0, 1]))
    0.0
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs((right[place == b]).sum() - confidence[place == b].sum()) for b in range(BINS)]
    return round(float(sum(gaps) / len(labels)), 12)


@dataclass(frozen=True)
class Evaluation:
    """What one reading of the test labels gives."""

    macro_f1: float
    accuracy: float
    per_class: dict[str, Any]
    """scikit-learn's classification report as a dictionary."""
    text: str
    """scikit-learn's classification report as text."""
    predictions: np.ndarray
    """int64 [N]."""
    calibration_error: float
    """As :func:`calibration_error`."""


def evaluate(model: nn.Module, test: ImageSource) -> Evaluation:
    """Compare a classifier with the test labels. To be called once for a finished model."""
    logits = outputs(model, test)
    predictions = logits.argmax(axis=1)
    names = list(test.class_names)
    options: dict[str, Any] = {"labels": range(len(names)), "target_names": names, "digits": 4, "zero_division": 0}
    per_class = classification_report(test.labels, predictions, output_dict=True, **options)
    return Evaluation(
        macro_f1=per_class["macro avg"]["f1-score"],
        accuracy=float((test.labels == predictions).mean()),
        per_class=per_class,
        text=classification_report(
            test.labels, predictions, **{**options, "target_names": list(map(printable, names))}
        ),
        predictions=predictions,
        calibration_error=calibration_error(probabilities(logits), test.labels),
    )
