"""Labels that may be wrong."""

from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from fewlabels.fit.probe import logistic_probe

FOLDS = 5


class Doubt(NamedTuple):
    """A label that may be wrong."""

    place: int
    suggested: int
    """The class that it may be instead."""
    confidence: float


def doubtful(features: np.ndarray, labels: np.ndarray, seed: int = 0) -> list[Doubt]:
    """Labels that a probe on folds without them contradicts, the least likely first.

    They are ranked by self-confidence (Kuan and Mueller 2022, section 3).

    Args:
        features: float [N, F] that no label has made.
        labels: int64 [N].
        seed: of the folds.
    """
    classes, given, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        return []
    folds = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=seed)
    estimator = logistic_probe(features, labels, seed).estimator
    likely = cross_val_predict(estimator, features, labels, cv=folds, method="predict_proba")
    best = likely.argmax(axis=1)
    found = np.flatnonzero(best != given)
    by_doubt = found[np.argsort(likely[found, given[found]], kind="stable")]
    return [Doubt(int(row), int(classes[best[row]]), float(likely[row, best[row]])) for row in by_doubt]
