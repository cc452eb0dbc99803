"""Probes: simple classifiers on frozen features, every choice made by cross-validation on the given labels."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import nn

from fewlabels._internal.errors import InputError
from fewlabels.backbones.inference import outputs
from fewlabels.data.source import ArraySource, evenly_spaced
from fewlabels.data.splits import folds

FOLDS = 5
KNN_K = (1, 3, 5, 10, 20, 50)
LOGISTIC_C = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""Inverse strength of the L2 penalty on features of length 1, standardised."""
CHOSEN_BY = 2000
"""Labels that k and C are chosen by, where there are more."""
UNCHOSEN = {"knn": 5, "logistic": 1e-2}
"""What is taken, or the next below, where the labels are too few to choose by."""


@dataclass(frozen=True)
class Probe:
    """A fitted probe and how it was chosen."""

    kind: Literal["knn", "logistic"]
    estimator: Any
    """scikit-learn's: ``predict`` and ``predict_proba`` on features float [N, F]."""
    chosen: float
    """k or C."""
    cv_macro_f1: float
    """Mean over folds of the labels that chose, for what was chosen; nan where they could not be divided."""


def knn_probe(features: np.ndarray, labels: np.ndarray, seed: int = 0, groups: np.ndarray | None = None) -> Probe:
    """Nearest neighbours by cosine similarity; k by cross-validation.

    Args:
        features: float [N, F].
        labels: int64 [N], all >= 0.
        seed: of the folds.
        groups: int64 [N]; images of one group are held out together. None: each is its own.

    Raises:
        InputError: if there are fewer than two classes.
    """
    return _best("knn", features, labels, seed, groups)


def knn_curve(labelled: ArraySource, backbone: nn.Module) -> dict[str, float]:
    """A point of a curve to watch a pretraining by: macro-F1 of :func:`knn_probe` by cross-validation."""
    features = outputs(backbone, labelled)
    return {"knn_cv_macro_f1": knn_probe(features, labelled.labels, groups=labelled.groups).cv_macro_f1}


def logistic_probe(features: np.ndarray, labels: np.ndarray, seed: int = 0, groups: np.ndarray | None = None) -> Probe:
    """Logistic regression on features of length 1, standardised; C by cross-validated likelihood.

    As :func:`knn_probe`.
    """
    return _best("logistic", features, labels, seed, groups)


def _best(
    kind: Literal["knn", "logistic"], features: np.ndarray, labels: np.ndarray, seed: int, groups: np.ndarray | None
) -> Probe:
    classes = np.unique(labels)
    if len(classes) < 2:
        raise InputError(f"labels of {len(classes)} class: a probe needs two or more. Label images of another class.")
    some = _some(labels)
    splits = splits_of(labels[some], seed, None if groups is None else groups[some])
    in_fold = min((len(learned) for learned, _ in splits), default=len(some) // 2)
    grid: tuple[float, ...] = tuple(k for k in KNN_K if k <= in_fold) if kind == "knn" else LOGISTIC_C
    if not splits:  # nothing to choose by
        chosen, score = max(value for value in grid if value <= UNCHOSEN[kind]), float("nan")
    else:
        # Neighbours give no likelihood worth the name; for the rest F1 is the noisier judge.
        chosen_by = features[some], labels[some]
        judge = "f1_macro" if kind == "knn" else "neg_log_loss"
        judges = {"f1_macro": _macro_f1} | ({"neg_log_loss": _likelihood} if kind == "logistic" else {})
        scores: list[Any] = []
        for value in grid:
            scores.append(cross_validate(_estimator(kind, value), *chosen_by, cv=splits, scoring=judges))
            means = [of_value[f"test_{judge}"].mean() for of_value in scores]
            if kind == "logistic" and means[-1] < max(means):
                break  # likelihood has one peak, and what follows takes longest
        best = int(np.argmax(means))
        chosen, score = grid[best], float(scores[best]["test_f1_macro"].mean())
    return Probe(kind, _estimator(kind, chosen).fit(features, labels), chosen, score)


def _macro_f1(estimator: Any, features: np.ndarray, labels: np.ndarray) -> float:
    """Over the classes that are held out: of groups, a fold may lack some."""
    there = np.unique(labels)
    return float(f1_score(labels, estimator.predict(features), labels=there, average="macro", zero_division=0))


def _likelihood(estimator: Any, features: np.ndarray, labels: np.ndarray) -> float:
    return -float(log_loss(labels, estimator.predict_proba(features), labels=estimator.classes_))


def splits_of(labels: np.ndarray, seed: int, groups: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places to learn from and to judge by, fold by fold; none where a class cannot be divided."""
    if groups is not None:
        held = folds(labels, FOLDS, seed, groups)
        return [(np.setdiff1d(np.arange(len(labels)), part), part) for part in held]
    number = min(FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    if number < 2:
        return []
    return list(StratifiedKFold(number, shuffle=True, random_state=seed % 2**32).split(labels, labels))


def _some(labels: np.ndarray) -> np.ndarray:
    """Places to choose by, int64: each class at its share, but with one for each fold if it has them."""
    share = min(1.0, CHOSEN_BY / len(labels))
    by_class = [np.flatnonzero(labels == cls) for cls in np.unique(labels)]
    spread = [rows[evenly_spaced(rows, max(FOLDS, round(len(rows) * share)))] for rows in by_class]
    return np.sort(np.concatenate(spread))


def _estimator(kind: Literal["knn", "logistic"], value: float) -> Any:
    if kind == "knn":
        return KNeighborsClassifier(n_neighbors=int(value), metric="cosine")
    return make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(C=value, max_iter=200, tol=1e-3))
