"""Labels divided into folds: stratified by class, groups kept whole."""

import warnings

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from fewlabels._internal.seeding import generator


def folds(labels: np.ndarray, number: int, seed: int, groups: np.ndarray | None = None) -> list[np.ndarray]:
    """Places to hold out, fold by fold, int64: every class is spread evenly over the folds.

    A class that a fold would take whole is not held out by it, since without it the class could not
    be learned: so it is with the only image of a class.

    Args:
        labels: int64 [N].
        number: of folds.
        seed: of the draw.
        groups: int64 [N]; places of one group are held out together. None: each place is its own.

    >>> [sorted(np.array([0, 0, 1, 1, 2])[fold].tolist()) for fold in folds(np.array([0, 0, 1, 1, 2]), 2, seed=0)]
    [[0, 1], [0, 1]]
    """
    if groups is not None:
        return _of_groups(labels, number, seed, groups)
    order = torch.randperm(len(labels), generator=generator(seed, "folds")).numpy()
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    held = by_class[counts[labels[by_class]] > 1]
    return [np.sort(held[fold::number]) for fold in range(min(number, len(held)))]


def _of_groups(labels: np.ndarray, number: int, seed: int, groups: np.ndarray) -> list[np.ndarray]:
    number = min(number, len(np.unique(groups)), np.bincount(labels).max())
    if number < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds is spread as far as it goes
        parts = StratifiedGroupKFold(number, shuffle=True, random_state=seed % 2**32).split(labels, labels, groups)
        found = [_whole_groups(labels, groups, *part) for part in parts]
    return [held for held in found if len(held)]


def _whole_groups(labels: np.ndarray, groups: np.ndarray, learned: np.ndarray, held: np.ndarray) -> np.ndarray:
    """What is held out, less the groups without which a class could not be learned."""
    needed = groups[held[~np.isin(labels[held], labels[learned])]]
    whole: np.ndarray = held[~np.isin(groups[held], needed)]
    return whole
