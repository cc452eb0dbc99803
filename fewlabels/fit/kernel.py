"""Kernel ridge classification, chosen by the error on each label as if it had been left out."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fewlabels.data.source import evenly_spaced

WIDTHS = (0.5, 1.0, 2.0, 4.0)
"""gamma of exp(-gamma |x - y|^2) for features of length 1."""
PENALTIES = (0.01, 0.1, 1.0)
MOST_LABELS = 5000
"""More of them are not used: time grows with the third power."""
CHOSEN_BY = 1000
"""Labels that width and penalty are chosen by."""
BATCH = 4096


def kernel_ridge(
    features: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    classes: int,
    asked: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Scores of images, float32 [A, K]: ridge regression on one-hot labels (Rifkin, Yeo & Poggio 2003).

    Kernel width and penalty are those with the smallest squared error of each labelled image when it is left out with
    its group, which needs no second fit (Rasmussen & Williams 2006, eq. 5.12).

    Args:
        features: float32 [N, F], of length 1.
        rows: int64 [M], the labelled ones; of more than ``MOST_LABELS`` evenly spaced ones are taken.
        labels: int64 [M] in 0..K-1.
        classes: K.
        asked: int64 [A], whose scores; None: of all N.
        groups: int64 [M], of images that resemble each other; None: each is its own.
    """
    groups = np.arange(len(rows)) if groups is None else groups
    if len(rows) > MOST_LABELS:
        spread = evenly_spaced(rows, MOST_LABELS)
        rows, labels, groups = rows[spread], labels[spread], groups[spread]
    seen, wanted = features[rows], np.eye(classes)[labels] - 1 / classes
    similarity = seen @ seen.T
    some = evenly_spaced(rows, CHOSEN_BY)
    settings = [(width, penalty) for width in WIDTHS for penalty in PENALTIES]
    near, places = similarity[np.ix_(some, some)], _left_out(labels[some], groups[some])
    errors = [_left_out_error(_kernel(near, width), wanted[some], penalty, places) for width, penalty in settings]
    width, penalty = settings[int(np.argmin(errors))]
    weights = cho_solve(cho_factor(_kernel(similarity, width) + penalty * np.eye(len(rows))), wanted)
    return kernel_scores(features if asked is None else features[asked], seen, width, weights)


def kernel_scores(features: np.ndarray, seen: np.ndarray, width: float, weights: np.ndarray) -> np.ndarray:
    """Float32 [A, K] of features [A, F], by those seen [M, F] and what each adds to the scores [M, K]."""
    parts = [
        _kernel(features[start : start + BATCH] @ seen.T, width) @ weights for start in range(0, len(features), BATCH)
    ]
    scores: np.ndarray = np.concatenate(parts).astype(np.float32)
    return scores


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
