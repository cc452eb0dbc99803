"""How often each class occurs among images that have no label."""

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax, softmax

ITERATIONS = 100
FEWEST = 0.1
"""No class is taken to be rarer than this share of an equal one."""


def class_prior(folds: Sequence[np.ndarray], learned_from: np.ndarray) -> np.ndarray:
    """Shares of the classes, by networks that have learned from different parts of the labels.

    Each finds them by expectation maximisation (Saerens, Latinne & Decaestecker 2002, eq. 2.9), which is far off where
    labels are few. So their logarithms are drawn towards those of ``learned_from`` by as much as the folds' differences
    explain of their distance from them (empirical Bayes, Efron & Morris 1973; the jackknife's variance, Efron 1982).
    Of a single fold, which is for many labels, what it finds is taken.

    Args:
        folds: float [N, K] each, calibrated probabilities of the same images.
        learned_from: float [K], above 0, shares of the classes in the batches that the networks learned from.

    Returns:
        float [K], summing to 1.

    >>> sure = np.array([[0.9, 0.1]] * 30 + [[0.1, 0.9]] * 70)
    >>> class_prior([sure], np.array([0.5, 0.5])).round(2)
    array([0.25, 0.75])
    """
    found = np.log([_most_likely(of, learned_from) for of in folds]) - np.log(learned_from)
    found -= found.mean(axis=1, keepdims=True)
    mean, number = found.mean(axis=0), len(found)
    by_chance = (number - 1) / number * np.square(found - mean).sum()
    in_all = np.square(mean).sum()
    believed = max(0.0, 1 - by_chance / in_all) if in_all > 0 else 0.0
    shares: np.ndarray = softmax(np.log(learned_from) + believed * mean)
    return shares


def _most_likely(probabilities: np.ndarray, learned_from: np.ndarray) -> np.ndarray:
    prior = learned_from
    for _ in range(ITERATIONS):
        weighted = probabilities * (prior / learned_from)
        prior = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
    prior = np.maximum(prior, FEWEST / len(prior))
    shares: np.ndarray = prior / prior.sum()
    return shares


def aligned(logs: np.ndarray, shares: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Log-probabilities [N, K], each class raised or lowered for all images alike until the shares are met.

    Args:
        logs: float [N, K].
        shares: float [K], that the mean of the probabilities shall have; a class of 0 is left as it is.
        rows: of ``logs``, that the mean is taken of.
    """
    some, known, shift = logs[rows], shares > 0, np.zeros(len(shares))
    for _ in range(ITERATIONS):
        mean = softmax(some + shift, axis=1).mean(axis=0)
        shift[known] += np.log(shares[known] / np.maximum(mean[known], 1e-12))
    found: np.ndarray = log_softmax(logs + shift, axis=1)
    return found
