"""Find labels that are likely wrong."""

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from fewlabels.features.probes import LOGISTIC_C, cv_splits

PCA_COMPONENTS = 256
"""Principal components of the features. In trials they did as well as all features, in a quarter of the time
(docs/your-images.md)."""


class LabelIssue(NamedTuple):
    """A label that is likely wrong."""

    row: int
    """Row of the features and labels."""
    suggested: int
    """The most probable class."""
    confidence: float
    """Probability of the suggested class, in 0..1."""


def find_label_issues(
    features: np.ndarray, labels: np.ndarray, seed: int = 0, groups: np.ndarray | None = None
) -> list[LabelIssue]:
    """Return labels that disagree with a cross-validated logistic regression, the least probable labels first.

    The ranking is self-confidence: the predicted probability of the given label (Kuan and Mueller 2022, section 3).
    The list has as many entries as labels are estimated to be wrong. A label counts if another class reaches the mean
    self-confidence of that class (Northcutt et al. 2021, section 3.1).

    Args:
        features: float [N, F], computed without these labels.
        labels: int64 [N].
        seed: seed of the folds.
        groups: int64 [N]; images of a group are in the same fold. None: every image is a group of its own.

    Returns:
        An empty list if there are fewer than two classes, a class has one label, or no fold can be made.
    """
    classes, given, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        return []
    splits = cv_splits(given, seed, groups)
    if not splits:
        return []
    held_out = np.sort(np.concatenate([test for _, test in splits]))
    probabilities = _held_out_probabilities(features, given, splits, seed)[held_out]
    given = given[held_out]
    self_confidence, best = probabilities[np.arange(len(given)), given], probabilities.argmax(axis=1)
    thresholds = np.full(len(classes), np.inf)
    for cls in np.unique(given):
        thresholds[cls] = self_confidence[given == cls].mean()
    confident = np.where(probabilities >= thresholds, probabilities, 0)
    number = int(((confident.max(axis=1) > 0) & (confident.argmax(axis=1) != given)).sum())
    contradicted = np.flatnonzero(best != given)
    ranked = contradicted[np.argsort(self_confidence[contradicted], kind="stable")][:number]
    return [LabelIssue(int(held_out[i]), int(classes[best[i]]), float(probabilities[i, best[i]])) for i in ranked]


def _held_out_probabilities(
    features: np.ndarray, given: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]], seed: int
) -> np.ndarray:
    """Return class probabilities [N, K] from models that were not trained on the row; NaN for rows in no test fold.

    The regularisation strength is the one with the smallest log loss on the held-out rows.
    """
    standardised = make_pipeline(Normalizer(), StandardScaler()).fit_transform(features)
    reduced = PCA(min(PCA_COMPONENTS, *features.shape), random_state=seed).fit_transform(standardised)
    best, lowest_loss = np.empty(0), np.inf
    for strength in LOGISTIC_C:
        classifier = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        probabilities, loss = np.full((len(given), given.max() + 1), np.nan), 0.0
        for train, test in splits:
            probabilities[test] = classifier.fit(reduced[train], given[train]).predict_proba(reduced[test])
            loss -= float(np.log(np.maximum(probabilities[test, given[test]], 1e-15)).sum())
        if loss > lowest_loss:  # the loss has one minimum, and weaker penalties take longer
            break
        best, lowest_loss = probabilities, loss
    return best
