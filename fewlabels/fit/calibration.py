"""Probabilities that mean what they say."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

TEMPERATURES = (0.05, 20.0)


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T for which softmax(logits / T) gives the labels the highest likelihood (Guo et al. 2017, section 4.2).

    One image is added whose label may be any, so that a few that are all right do not make the network sure.

    Args:
        logits: float [N, K], of images that the network has not learned from.
        labels: int64 [N].

    >>> logits = np.array([[4.0, 0.0]] * 300 + [[0.0, 4.0]] * 100)  # sure of itself, and right three times in four
    >>> round(float(softmax(logits[0] / temperature(logits, np.zeros(400, int)))[0]), 2)
    0.75
    """

    def surprise(log_t: float) -> float:
        logs = log_softmax(logits / np.exp(log_t), axis=1)
        return -float(logs[np.arange(len(labels)), labels].sum() + logs.mean())

    return float(np.exp(minimize_scalar(surprise, bounds=np.log(TEMPERATURES), method="bounded").x))


def temperature_for(logits: np.ndarray, confidence: float) -> float:
    """The T for which the mean of the highest probabilities is ``confidence``: for images without labels."""
    low, high = np.log(TEMPERATURES)
    for _ in range(50):
        middle = (low + high) / 2
        surer = softmax(logits / np.exp(middle), axis=1).max(axis=1).mean() > confidence
        low, high = (middle, high) if surer else (low, middle)
    return float(np.exp(low))
