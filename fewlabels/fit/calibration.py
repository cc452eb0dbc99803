"""Probabilities that mean what they say, from one network or several experts."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

TEMPERATURES = (0.05, 20.0)
LARGEST, LEAST = 100.0, 0.05
"""Weight of an expert, and of all of them, for logits with a standard deviation of 1."""


def pool_weights(experts: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """The weights w >= 0 for which softmax(sum of w_e * logits_e) gives the labels the highest likelihood; float [E].

    A logarithmic opinion pool (Genest & Zidek 1986, section 3); with one expert it is temperature scaling, w = 1 / T
    (Guo et al. 2017, section 4.2). One image is added whose label may be any, so that a few that are all right do not
    make the experts sure.

    Args:
        experts: E arrays, float [N, K], of images that the expert has not learned from.
        labels: int64 [N].

    >>> logits = np.array([[4.0, 0.0]] * 300 + [[0.0, 4.0]] * 100)  # sure of itself, and right three times in four
    >>> round(float(softmax(logits[0] * pool_weights([logits], np.zeros(400, int)))[0]), 2)
    0.75
    """
    scale = np.array([max(float(logits.std()), 1e-12) for logits in experts])
    stacked = np.stack([logits / unit for logits, unit in zip(experts, scale, strict=True)]).astype(np.float64)
    rows = np.arange(len(labels))

    def surprise(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(weights, stacked, 1), axis=1)
        off = np.exp(logs)
        off[rows, labels] -= 1
        anyone = np.exp(logs) - 1 / logs.shape[1]
        slope = np.tensordot(stacked, off, 2) + np.tensordot(stacked, anyone, 2) / len(labels)
        return -float(logs[rows, labels].sum() + logs.mean()), slope

    start = np.full(len(experts), 1 / len(experts))
    found = minimize(surprise, start, jac=True, method="L-BFGS-B", bounds=[(0, LARGEST)] * len(experts))
    # Where all are wrong more than right, they are nearly silent.
    weights: np.ndarray = (found.x if found.x.sum() > LEAST else start * LEAST) / scale
    return weights


def temperature_for(logits: np.ndarray, confidence: float) -> float:
    """The T for which the mean of the highest probabilities is ``confidence``: for images without labels."""
    low, high = np.log(TEMPERATURES)
    for _ in range(50):
        middle = (low + high) / 2
        surer = softmax(logits / np.exp(middle), axis=1).max(axis=1).mean() > confidence
        low, high = (middle, high) if surer else (low, middle)
    return float(np.exp(low))
