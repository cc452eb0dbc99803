"""How often each class occurs among images that have no label."""

import numpy as np

ITERATIONS = 100
FEWEST = 0.1
"""No class is taken to be rarer than this share of an equal one."""


def class_prior(probabilities: np.ndarray, learned_from: np.ndarray) -> np.ndarray:
    """Shares of the classes by expectation maximisation (Saerens, Latinne & Decaestecker 2002, eq. 2.9).

    Args:
        probabilities: float [N, K], calibrated, of the images.
        learned_from: float [K], shares of the classes in the batches that the network learned from.

    Returns:
        float [K], summing to 1.

    >>> sure = np.array([[0.9, 0.1]] * 30 + [[0.1, 0.9]] * 70)
    >>> class_prior(sure, np.array([0.5, 0.5])).round(2)
    array([0.25, 0.75])
    """
    prior = learned_from
    for _ in range(ITERATIONS):
        weighted = probabilities * (prior / np.maximum(learned_from, 1e-12))
        prior = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
    prior = np.maximum(prior, FEWEST / len(prior))
    shares: np.ndarray = prior / prior.sum()
    return shares
