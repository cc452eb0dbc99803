"""Kernel ridge classification, its parameters chosen by closed-form leave-one-out errors."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fewlabels.data.source import evenly_spaced


@dataclass(frozen=True)
class KernelConfig:
    """Kernel ridge regression: its grid, and what bounds its cost."""

    gammas: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)  # of exp(-gamma |x - y|^2) on unit vectors; not tuned
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0)  # not tuned
    max_labels: int = 5000  # labels that are trained on: time grows with the third power; by cost
    max_selection_labels: int = 1000  # labels that choose gamma and penalty; by cost
    min_labels_per_class: int = 4  # of those: a class with one label cannot be left out; not tuned
    batch_size: int = 4096  # images scored at a time; by memory


class KernelRidge(NamedTuple):
    """A fitted classifier."""

    train_features: np.ndarray
    """float32 [M, D], of length 1."""
    gamma: float
    weights: np.ndarray
    """float [M, K]: what each training image adds to the scores."""

    def scores(self, features: np.ndarray, batch_size: int = KernelConfig.batch_size) -> np.ndarray:
        """Scores float32 [R, K] of features [R, D] of length 1."""
        parts = [
            _kernel(features[start : start + batch_size] @ self.train_features.T, self.gamma) @ self.weights
            for start in range(0, len(features), batch_size)
        ]
        scores: np.ndarray = np.concatenate(parts).astype(np.float32)
        return scores


def fit_kernel_ridge(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    groups: np.ndarray | None = None,
    config: KernelConfig = KernelConfig(),
) -> KernelRidge:
    """Ridge regression on one-hot labels (Rifkin, Yeo & Poggio 2003); time grows with the third power of M.

    Gamma and penalty are those with the smallest squared error of each labelled image when it is left out with its
    group, which needs no second fit (Rasmussen & Williams 2006, eq. 5.12).

    Args:
        features: float32 [M, D], of length 1.
        labels: int64 [M] in 0..K-1.
        num_classes: K.
        groups: int64 [M]; None: each image is its own group.
        config: see there.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    targets = np.eye(num_classes)[labels] - 1 / num_classes
    similarity = features @ features.T
    chosen = _selection(labels, config)
    grid = [(gamma, penalty) for gamma in config.gammas for penalty in config.penalties]
    near, left_out = similarity[np.ix_(chosen, chosen)], _left_out_together(labels[chosen], groups[chosen])
    errors = [_leave_out_error(_kernel(near, gamma), targets[chosen], penalty, left_out) for gamma, penalty in grid]
    gamma, penalty = grid[int(np.argmin(errors))]
    weights = cho_solve(cho_factor(_kernel(similarity, gamma) + penalty * np.eye(len(labels))), targets)
    return KernelRidge(features, gamma, weights)


def _selection(labels: np.ndarray, config: KernelConfig) -> np.ndarray:
    """Positions that choose the parameters: evenly spaced, or all labels of evenly spaced classes if those are many."""
    classes = np.unique(labels)
    most = config.max_selection_labels
    if len(labels) <= most or config.min_labels_per_class * len(classes) <= most:
        return evenly_spaced(labels, most)
    some = classes[evenly_spaced(classes, max(2, most * len(classes) // len(labels)))]
    of_them = np.flatnonzero(np.isin(labels, some))
    chosen: np.ndarray = of_them[evenly_spaced(of_them, most)]  # there may be large classes among them
    return chosen


def _left_out_together(labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Positions of each group; one by one where leaving out the group would leave out a whole class."""
    order = np.argsort(groups, kind="stable")
    counts, found = np.bincount(labels), []
    for positions in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        gone = (np.bincount(labels[positions], minlength=len(counts)) == counts)[labels[positions]].any()
        found += list(positions[:, None]) if gone else [positions]
    return found


def _leave_out_error(kernel: np.ndarray, targets: np.ndarray, penalty: float, left_out: list[np.ndarray]) -> float:
    """Mean squared error of images that are predicted from all but those that are left out with them."""
    inverse = np.linalg.inv(kernel + penalty * np.eye(len(kernel)))
    errors = inverse @ targets
    for positions in left_out:
        errors[positions] = np.linalg.solve(inverse[np.ix_(positions, positions)], errors[positions])
    return float(np.square(errors).mean())


def _kernel(similarity: np.ndarray, gamma: float) -> np.ndarray:
    """exp(-gamma |x - y|^2) from inner products of vectors of length 1."""
    kernel: np.ndarray = np.exp(-2 * gamma * (1 - similarity.astype(np.float64)))
    return kernel
