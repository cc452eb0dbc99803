"""Probabilities that mean what they say, from one network or several experts."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

TEMPERATURES = (0.05, 20.0)
PRECISIONS = range(50, 100)
"""Percent."""
NEVER_SURE = 1.01
LARGEST, LEAST = 100.0, 0.05
"""Weight of an expert, and of all of them, for logits with a standard deviation of 1."""


def pool_weights(
    experts: Sequence[np.ndarray], labels: np.ndarray, rare: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Weights w >= 0 of the experts, float [E], and t of the rare classes, 0 to 1.

    They give the labels the highest likelihood under softmax(sum of w_e * logits_e + t * rare), each class counting as
    much as any other. A logarithmic opinion pool (Genest & Zidek 1986, section 3) with the logits adjusted for long
    tails (Menon et al. 2021, eq. 9); with one expert it is temperature scaling, w = 1 / T (Guo et al. 2017, section
    4.2). One image is added whose label may be any, so that a few that are all right do not make the experts sure.

    Args:
        experts: E arrays, float [N, K], of images that the expert has not learned from.
        labels: int64 [N].
        rare: float [K], as :func:`rarity` has it; None: 0.

    >>> logits = np.array([[4.0, 0.0], [0.0, 4.0]] * 200)  # sure of itself, and right three times in four
    >>> labels = np.array([0, 1] * 150 + [1, 0] * 50)
    >>> (weight,), _ = pool_weights([logits], labels)
    >>> round(float(softmax(logits[0] * weight)[0]), 2)
    0.75
    """
    classes = experts[0].shape[1]
    scale = np.array([*(max(float(logits.std()), 1e-12) for logits in experts), 1.0])
    rare = np.zeros(classes) if rare is None else rare
    scaled = [logits / unit for logits, unit in zip(experts, scale, strict=False)]
    stacked = np.stack([*scaled, np.broadcast_to(rare, experts[0].shape)]).astype(np.float64)
    rows, counts = np.arange(len(labels)), np.bincount(labels, minlength=classes)
    counting = len(labels) / np.count_nonzero(counts) / counts[labels]

    def surprise(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(weights, stacked, 1), axis=1)
        off = np.exp(logs)
        off[rows, labels] -= 1
        anyone = np.exp(logs) - 1 / classes
        slope = np.tensordot(stacked, off * counting[:, None], 2) + np.tensordot(stacked, anyone, 2) / len(labels)
        return -float(counting @ logs[rows, labels] + logs.mean()), slope

    start = np.full(len(experts), 1 / len(experts))
    bounds = [(0, LARGEST)] * len(experts) + [(0, 1)]
    found = minimize(surprise, np.append(start, 0), jac=True, method="L-BFGS-B", bounds=bounds).x
    if found[:-1].sum() <= LEAST:  # where all are wrong more than right, they are nearly silent
        found[:-1] = start * LEAST
    weights: np.ndarray = found / scale
    return weights[:-1], float(weights[-1])


def rarity(labels: np.ndarray, classes: int) -> np.ndarray:
    """Minus the logarithm of each class's share of the labels, float [K]; of a class without any, 0.

    >>> np.exp(rarity(np.array([0, 0, 0, 2]), 3)).round(2).tolist()
    [1.33, 1.0, 4.0]
    """
    shares = np.bincount(labels, minlength=classes) / len(labels)
    return -np.log(np.where(shares > 0, shares, 1.0))


def temperature_for(logits: np.ndarray, confidence: float) -> float:
    """The T for which the mean of the highest probabilities is ``confidence``: for images without labels."""
    low, high = np.log(TEMPERATURES)
    for _ in range(50):
        middle = (low + high) / 2
        surer = softmax(logits / np.exp(middle), axis=1).max(axis=1).mean() > confidence
        low, high = (middle, high) if surer else (low, middle)
    return float(np.exp(low))


def thresholds(confidence: np.ndarray, right: np.ndarray, counting: np.ndarray | None = None) -> dict[str, float]:
    """For each precision that may be wanted, the least probability from which on so many are right.

    Args:
        confidence: float [N], of images held out.
        right: bool [N], whether their class was named.
        counting: float [N], how much each counts; None: 1.

    One is added as right and one as wrong, so that a few that are all right do not promise everything. Above 1: not to
    be had.

    >>> thresholds(np.array([0.9, 0.9, 0.9, 0.4]), np.array([True, True, True, False]))["0.80"]
    0.9
    """
    order = np.argsort(-confidence, kind="stable")
    counting = np.ones(len(order)) if counting is None else counting[order]
    precise = (np.cumsum(right[order] * counting) + 1) / (np.cumsum(counting) + 2)
    ends = np.append(np.diff(confidence[order]) != 0, True)  # of equals all or none
    found = {}
    for percent in PRECISIONS:
        enough = np.flatnonzero((precise >= percent / 100) & ends)
        found[f"{percent / 100:.2f}"] = round(float(confidence[order][enough[-1]]), 4) if len(enough) else NEVER_SURE
    return found
