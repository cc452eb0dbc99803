"""How often each class occurs among images that have no label."""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

ITERATIONS = 100
FEWEST = 0.1
"""No class is taken to be rarer than this share of an equal one."""
CHANCE = 3.0
"""Variances of what is said; with a larger square of their distance from equal ones, shares are not equal."""


def class_prior(folds: Sequence[np.ndarray], learned_from: np.ndarray) -> np.ndarray:
    """Shares of the classes, by networks that have learned from different parts of the labels.

    Each finds them by expectation maximisation (Saerens, Latinne & Decaestecker 2002, eq. 2.9), which is far off where
    labels are few. So their logarithms are drawn towards those of ``learned_from``, by as much of their distance as is
    explained by chance (empirical Bayes, Efron & Morris 1973): which labels the folds have (the jackknife, Efron 1982),
    and which images they are asked of. Of a single fold the first is not known.

    Args:
        folds: float [N, K] each, calibrated probabilities of the same images.
        learned_from: float [K], above 0, shares of the classes in the batches that the networks learned from.

    Returns:
        float [K], summing to 1.

    >>> sure = np.array([[0.9, 0.1]] * 300 + [[0.1, 0.9]] * 700)
    >>> class_prior([sure], np.array([0.5, 0.5])).round(2)
    array([0.25, 0.75])
    """
    found = np.log([_most_likely(of, learned_from) for of in folds])
    apart = found - np.log(learned_from)
    apart -= apart.mean(axis=1, keepdims=True)
    mean, number = apart.mean(axis=0), len(folds)
    of_labels = (number - 1) / number * np.square(apart - mean).sum()
    of_images = (np.exp(-found.mean(axis=0)) - 1).sum() / len(folds[0])
    in_all = np.square(mean).sum()
    believed = max(0.0, 1 - (of_labels + of_images) / in_all) if in_all > 0 else 0.0
    shares: np.ndarray = softmax(np.log(learned_from) + believed * mean)
    return shares


def are_uneven(said: np.ndarray, held: np.ndarray, labels: np.ndarray, effect: float = 1.0) -> bool:
    """Whether what is said of unlabelled images is much farther from equal shares than chance explains.

    Chance is that of the images, and that of the labels by which what is said was calibrated: the variance of the mean
    of what is said of them, with each class counting as much as any other (stratified sampling, Cochran 1977, section
    5.4). Classes that were held out once tell no variance, and are taken to have that of the others, or, where no class
    was held out twice, that of all together, which is no smaller.

    Args:
        said: float [N, K], calibrated probabilities of unlabelled images.
        held: float [M, K], calibrated probabilities of labelled images by who has not learned from them.
        labels: int64 [M], theirs.
        effect: how many of the labelled images tell as much as one, as :func:`~fewlabels.fit.estimate.design_effect`
            has it.

    >>> unsure = np.tile([[0.9, 0.1], [0.3, 0.7], [0.7, 0.3], [0.1, 0.9]], (2, 1))
    >>> said = [np.tile([share, 1 - share], (100, 1)) for share in (0.5, 0.6, 0.8)]
    >>> [are_uneven(of, unsure, np.array([0, 0, 1, 1] * 2)) for of in said]
    [False, False, True]
    """
    number = said.shape[1]
    of_classes = [of for cls in np.unique(labels) if len(of := held[labels == cls]) > 1]
    if not of_classes and len(held) < 2:
        return False
    chances = [of.var(axis=0, ddof=1).sum() / len(of) for of in of_classes] or [held.var(axis=0, ddof=1).sum()]
    of_labels = float(np.mean(chances)) / number * effect
    of_images = float(said.var(axis=0).sum()) / len(said)
    return bool(np.square(said.mean(axis=0) - 1 / number).sum() > CHANCE * (of_labels + of_images))


def _most_likely(probabilities: np.ndarray, learned_from: np.ndarray) -> np.ndarray:
    prior = learned_from
    for _ in range(ITERATIONS):
        weighted = probabilities * (prior / learned_from)
        prior = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
    prior = np.maximum(prior, FEWEST / len(prior))
    shares: np.ndarray = prior / prior.sum()
    return shares


def shift_to(shares: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """What is added to each class's logits so that the mean of the probabilities is as is said: [K], their dtype.

    Args:
        shares: float [K]; a class of 0 is left as it is.
        logits: float [N, K].
    """
    known, shift = shares > 0, np.zeros(len(shares), logits.dtype)
    for _ in range(ITERATIONS):
        mean = softmax(logits + shift, axis=1).mean(axis=0)
        shift[known] += np.log(shares[known] / np.maximum(mean[known], 1e-12))
    return shift
