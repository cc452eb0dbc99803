"""Labels that may be wrong."""

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from fewlabels.features.probes import LOGISTIC_C, splits_of

COMPONENTS = 256
"""Principal components of the features: as good as all in trials, in a quarter of the time."""


class Doubt(NamedTuple):
    """A label that may be wrong."""

    place: int
    suggested: int
    """The class that it may be instead."""
    confidence: float


def doubtful(features: np.ndarray, labels: np.ndarray, seed: int = 0, groups: np.ndarray | None = None) -> list[Doubt]:
    """Labels that a probe on folds without them contradicts, the least likely first.

    They are ranked by self-confidence (Kuan and Mueller 2022, section 3). As many are given as another class of at
    least its usual likelihood contradicts: an estimate of how many are wrong (Northcutt et al. 2021, section 3.1).

    Args:
        features: float [N, F] that no label has made.
        labels: int64 [N].
        seed: of the folds.
        groups: int64 [N]; labels of one group do not vouch for each other. None: each is its own.
    """
    classes, given, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        return []
    splits = splits_of(given, seed, groups)
    if not splits:
        return []
    judged = np.sort(np.concatenate([held for _, held in splits]))
    likely = _left_out(features, given, splits, seed)[judged]
    given = given[judged]
    of_given, best = likely[np.arange(len(given)), given], likely.argmax(axis=1)
    usual = np.full(len(classes), np.inf)
    for cls in np.unique(given):
        usual[cls] = of_given[given == cls].mean()
    sure = np.where(likely >= usual, likely, 0)
    number = int(((sure.max(axis=1) > 0) & (sure.argmax(axis=1) != given)).sum())
    found = np.flatnonzero(best != given)
    by_doubt = found[np.argsort(of_given[found], kind="stable")][:number]
    return [Doubt(int(judged[row]), int(classes[best[row]]), float(likely[row, best[row]])) for row in by_doubt]


def _left_out(
    features: np.ndarray, given: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]], seed: int
) -> np.ndarray:
    """Probabilities [N, K], each by a probe that has not seen the label; its penalty is the likeliest.

    They are nan of labels that are never held out.
    """
    standardised = make_pipeline(Normalizer(), StandardScaler()).fit_transform(features)
    shortened = PCA(min(COMPONENTS, *features.shape), random_state=seed).fit_transform(standardised)
    best, least = np.empty(0), np.inf
    for strength in LOGISTIC_C:
        probe = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        likely, loss = np.full((len(given), given.max() + 1), np.nan), 0.0
        for learned, held in splits:
            likely[held] = probe.fit(shortened[learned], given[learned]).predict_proba(shortened[held])
            loss -= float(np.log(np.maximum(likely[held, given[held]], 1e-15)).sum())
        if loss > least:  # it has one minimum, and weaker penalties take longer
            break
        best, least = likely, loss
    return best
