"""Kernel ridge classification, chosen by the error on each label as if it had been left out."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fewlabels.data.source import evenly_spaced

WIDTHS = (0.5, 1.0, 2.0, 4.0)
"""gamma of exp(-gamma |x - y|^2) for features of length 1."""
PENALTIES = (0.01, 0.1, 1.0)
CHOSEN_BY = 1000
"""Labels that width and penalty are chosen by."""
FELLOWS = 4
"""Of these a class has so many, or others are left out: who is alone in its class is foretold by none."""
BATCH = 4096


class KernelRidge(NamedTuple):
    """A fitted classifier."""

    seen: np.ndarray
    """float32 [M, F]: features of length 1 that it has learned from."""
    width: float
    weights: np.ndarray
    """float [M, K]: what each of them adds to the scores."""

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Float32 [A, K] of features [A, F] of length 1."""
        parts = [
            _kernel(features[start : start + BATCH] @ self.seen.T, self.width) @ self.weights
            for start in range(0, len(features), BATCH)
        ]
        scores: np.ndarray = np.concatenate(parts).astype(np.float32)
        return scores


def kernel_ridge(
    features: np.ndarray, labels: np.ndarray, classes: int, groups: np.ndarray | None = None
) -> KernelRidge:
    """Ridge regression on one-hot labels (Rifkin, Yeo & Poggio 2003); time grows with the third power of M.

    Kernel width and penalty are those with the smallest squared error of each labelled image when it is left out with
    its group, which needs no second fit (Rasmussen & Williams 2006, eq. 5.12).

    Args:
        features: float32 [M, F], of length 1.
        labels: int64 [M] in 0..K-1.
        classes: K.
        groups: int64 [M], of images that resemble each other; None: each is its own.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    wanted = np.eye(classes)[labels] - 1 / classes
    similarity = features @ features.T
    some = _chosen_by(labels)
    settings = [(width, penalty) for width in WIDTHS for penalty in PENALTIES]
    near, places = similarity[np.ix_(some, some)], _left_out(labels[some], groups[some])
    errors = [_left_out_error(_kernel(near, width), wanted[some], penalty, places) for width, penalty in settings]
    width, penalty = settings[int(np.argmin(errors))]
    weights = cho_solve(cho_factor(_kernel(similarity, width) + penalty * np.eye(len(labels))), wanted)
    return KernelRidge(features, width, weights)


def _chosen_by(labels: np.ndarray) -> np.ndarray:
    """Places evenly spaced; all of evenly spaced classes where else hardly any would have a second of its class."""
    known = np.unique(labels)
    if len(labels) <= CHOSEN_BY or FELLOWS * len(known) <= CHOSEN_BY:
        return evenly_spaced(labels, CHOSEN_BY)
    some = known[evenly_spaced(known, max(2, CHOSEN_BY * len(known) // len(labels)))]
    theirs = np.flatnonzero(np.isin(labels, some))
    chosen: np.ndarray = theirs[evenly_spaced(theirs, CHOSEN_BY)]  # there may be large ones among them
    return chosen


def _left_out(labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Places of each group; of one without which a class is gone, place by place."""
    order = np.argsort(groups, kind="stable")
    counts, found = np.bincount(labels), []
    for places in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        gone = (np.bincount(labels[places], minlength=len(counts)) == counts)[labels[places]].any()
        found += list(places[:, None]) if gone else [places]
    return found


def _left_out_error(kernel: np.ndarray, wanted: np.ndarray, penalty: float, left_out: list[np.ndarray]) -> float:
    """Mean square over images; those that are left out together are foretold from all the others."""
    inverse = np.linalg.inv(kernel + penalty * np.eye(len(kernel)))
    errors = inverse @ wanted
    for places in left_out:
        errors[places] = np.linalg.solve(inverse[np.ix_(places, places)], errors[places])
    return float(np.square(errors).mean())


def _kernel(similarity: np.ndarray, width: float) -> np.ndarray:
    """Of inner products of vectors of length 1."""
    kernel: np.ndarray = np.exp(-2 * width * (1 - similarity.astype(np.float64)))
    return kernel
