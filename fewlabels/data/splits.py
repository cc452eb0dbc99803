"""Divide labels into folds, stratified by class; a group is never divided."""

import warnings

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from fewlabels._internal.seeding import generator


def folds(labels: np.ndarray, number: int, seed: int, groups: np.ndarray | None = None) -> list[np.ndarray]:
    """Return the held-out indices of each fold, int64; every class is spread evenly over the folds.

    A fold never holds out all images of a class, since the class could not be learned without them. A class with a
    single image is therefore never held out.

    Args:
        labels: int64 [N], without -1.
        number: of folds; there are fewer if labels or groups are too few.
        seed: of the draw.
        groups: int64 [N]; images of one group are held out together. None: each image is a group of its own.

    >>> [sorted(np.array([0, 0, 1, 1, 2])[fold].tolist()) for fold in folds(np.array([0, 0, 1, 1, 2]), 2, seed=0)]
    [[0, 1], [0, 1]]
    """
    if groups is not None:
        return _group_folds(labels, number, seed, groups)
    order = torch.randperm(len(labels), generator=generator(seed, "folds")).numpy()
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    held_out = by_class[counts[labels[by_class]] > 1]
    return [np.sort(held_out[fold::number]) for fold in range(min(number, len(held_out)))]


def _group_folds(labels: np.ndarray, number: int, seed: int, groups: np.ndarray) -> list[np.ndarray]:
    number = min(number, len(np.unique(groups)), np.bincount(labels).max())
    if number < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # raised for a class with fewer images than folds
        parts = StratifiedGroupKFold(number, shuffle=True, random_state=seed % 2**32).split(labels, labels, groups)
        found = [_drop_needed_groups(labels, groups, *part) for part in parts]
    return [held_out for held_out in found if len(held_out)]


def _drop_needed_groups(labels: np.ndarray, groups: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return the held-out indices without the groups that training needs, because a class has no other images."""
    needed = groups[held_out[~np.isin(labels[held_out], labels[train])]]
    remaining: np.ndarray = held_out[~np.isin(groups[held_out], needed)]
    return remaining
