"""Calibrated probabilities: temperature, class frequencies, classes without labels."""

import numpy as np
from scipy.special import softmax

from fewlabels.backbones.classifier import ABSENT_LOGIT
from fewlabels.fit.config import CalibrationConfig


def fit_temperature_to_confidence(
    logits: np.ndarray, confidence: float, config: CalibrationConfig = CalibrationConfig()
) -> float:
    """The temperature at which the mean confidence of unlabelled images is the given one.

    Args:
        logits: float [N, K].
        confidence: the accuracy that is expected, in 0..1.
        config: see there.
    """
    low, high = np.log(config.temperatures)
    for _ in range(50):
        middle = (low + high) / 2
        too_confident = softmax(logits / np.exp(middle), axis=1).max(axis=1).mean() > confidence
        low, high = (middle, high) if too_confident else (low, middle)
    return float(np.exp(low))


def class_frequency_offsets(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Minus the log frequency of each class among the labels, float64 [K]; 0 for a class without labels.

    Added to logits, it corrects a model that was trained on imbalanced labels (Menon et al. 2021, eq. 9).

    >>> np.exp(class_frequency_offsets(np.array([0, 0, 0, 2]), 3)).round(2).tolist()
    [1.33, 1.0, 4.0]
    """
    frequencies = np.bincount(labels, minlength=num_classes) / len(labels)
    return -np.log(np.where(frequencies > 0, frequencies, 1.0))


def mask_absent_classes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A copy of logits [N, K] in which a class without any of the labels is never predicted."""
    masked = logits.copy()
    masked[:, np.setdiff1d(np.arange(logits.shape[1]), labels)] = ABSENT_LOGIT
    return masked
