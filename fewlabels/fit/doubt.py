"""Labels that may be wrong."""

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from fewlabels.fit.probe import LOGISTIC_C

FOLDS = 5
COMPONENTS = 256
"""Principal components of the features: as good as all in trials, in a quarter of the time."""


class Doubt(NamedTuple):
    """A label that may be wrong."""

    place: int
    suggested: int
    """The class that it may be instead."""
    confidence: float


def doubtful(features: np.ndarray, labels: np.ndarray, seed: int = 0) -> list[Doubt]:
    """Labels that a probe on folds without them contradicts, the least likely first.

    They are ranked by self-confidence (Kuan and Mueller 2022, section 3). As many are given as another class of at
    least its usual likelihood contradicts: an estimate of how many are wrong (Northcutt et al. 2021, section 3.1).

    Args:
        features: float [N, F] that no label has made.
        labels: int64 [N].
        seed: of the folds.
    """
    classes, given, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        return []
    likely = _left_out(features, given, min(FOLDS, int(counts.min())), seed)
    of_given, best = likely[np.arange(len(given)), given], likely.argmax(axis=1)
    usual = np.array([of_given[given == cls].mean() for cls in range(len(classes))])
    sure = np.where(likely >= usual, likely, 0)
    number = int(((sure.max(axis=1) > 0) & (sure.argmax(axis=1) != given)).sum())
    found = np.flatnonzero(best != given)
    by_doubt = found[np.argsort(of_given[found], kind="stable")][:number]
    return [Doubt(int(row), int(classes[best[row]]), float(likely[row, best[row]])) for row in by_doubt]


def _left_out(features: np.ndarray, given: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Probabilities [N, K], each by a probe that has not seen the label; its penalty is the likeliest."""
    standardised = make_pipeline(Normalizer(), StandardScaler()).fit_transform(features)
    shortened = PCA(min(COMPONENTS, *features.shape), random_state=seed).fit_transform(standardised)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    best, least = np.empty(0), np.inf
    for strength in LOGISTIC_C:
        probe = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        likely = cross_val_predict(probe, shortened, given, cv=splits, method="predict_proba")
        loss = log_loss(given, likely, labels=np.arange(likely.shape[1]))
        if loss > least:  # it has one minimum, and weaker penalties take longer
            break
        best, least = likely, loss
    return best
