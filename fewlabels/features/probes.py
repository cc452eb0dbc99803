"""Probes: simple classifiers on frozen features, whose parameters are selected by cross-validation."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler, normalize
from torch import nn

from fewlabels._internal.errors import InputError
from fewlabels.backbones.inference import outputs
from fewlabels.data.source import ArraySource, evenly_spaced
from fewlabels.data.splits import folds

PROBE_FOLDS = 5
"""Folds of the cross-validation, if each class has as many labels. Not tuned."""
KNN_K = (1, 3, 5, 10, 20, 50)
"""Grid of k, the number of nearest neighbours. Not tuned."""
LOGISTIC_C = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""Grid of C, the inverse strength of the L2 penalty; features are standardised after scaling to length 1. Not tuned."""
MAX_SELECTION_LABELS = 2000
"""Labels that k and C are selected with, at most; limits the time."""
PROTOTYPES_UP_TO = 5
"""Labels per class up to which a head is made of class means. Not tuned."""
PROTOTYPE_SHARPNESS = 5.0
"""Factor of squared distances between unit vectors, as logits. Not tuned: held-out labels set the temperature."""
DEFAULT_PARAMETERS = {"knn": 5, "logistic": 1e-2}
"""k and C if there are too few labels for a selection; the largest value of the grid up to it is taken. Not tuned."""


@dataclass(frozen=True)
class Probe:
    """A fitted probe and the result of its cross-validation."""

    kind: Literal["knn", "logistic"]
    estimator: Any
    """A scikit-learn estimator with ``predict`` and ``predict_proba``, for features float [N, F]."""
    chosen: float
    """The selected k or C."""
    cv_macro_f1: float
    """Mean macro-F1 over folds with the selected value; nan if a class cannot be divided into folds."""


def knn_probe(features: np.ndarray, labels: np.ndarray, seed: int = 0, groups: np.ndarray | None = None) -> Probe:
    """Fit a k-nearest-neighbours classifier with cosine similarity; k is selected by cross-validated macro-F1.

    Args:
        features: float [N, F].
        labels: int64 [N], all >= 0.
        seed: of the folds.
        groups: int64 [N]; images of one group are held out together. None: each image is its own group.

    Raises:
        InputError: if there are fewer than two classes.
    """
    return _best("knn", features, labels, seed, groups)


def knn_curve(labelled: ArraySource, backbone: nn.Module) -> dict[str, float]:
    """Metric for curves of a pretraining: cross-validated macro-F1 of :func:`knn_probe` on the backbone's features."""
    features = outputs(backbone, labelled)
    return {"knn_cv_macro_f1": knn_probe(features, labelled.labels, groups=labelled.groups).cv_macro_f1}


def logistic_probe(features: np.ndarray, labels: np.ndarray, seed: int = 0, groups: np.ndarray | None = None) -> Probe:
    """Fit a logistic regression on standardised features of length 1; C is selected by cross-validated log loss.

    For arguments and errors see :func:`knn_probe`.
    """
    return _best("logistic", features, labels, seed, groups)


def _best(
    kind: Literal["knn", "logistic"], features: np.ndarray, labels: np.ndarray, seed: int, groups: np.ndarray | None
) -> Probe:
    classes = np.unique(labels)
    if len(classes) < 2:
        raise InputError(f"labels of {len(classes)} class: a probe needs two or more. Label images of another class.")
    some = _selection_rows(labels)
    splits = cv_splits(labels[some], seed, None if groups is None else groups[some])
    in_fold = min((len(train) for train, _ in splits), default=len(some) // 2)
    grid: tuple[float, ...] = tuple(k for k in KNN_K if k <= in_fold) if kind == "knn" else LOGISTIC_C
    if not splits:  # no selection is possible
        chosen, score = max(value for value in grid if value <= DEFAULT_PARAMETERS[kind]), float("nan")
    else:
        # F1 is noisier than the log loss, but probabilities of nearest neighbours are too coarse for a log loss.
        criterion = "f1_macro" if kind == "knn" else "neg_log_loss"
        scoring = {"f1_macro": _macro_f1} | ({"neg_log_loss": _negative_log_loss} if kind == "logistic" else {})
        scores: list[Any] = []
        for value in grid:
            estimator = _estimator(kind, value)
            scores.append(cross_validate(estimator, features[some], labels[some], cv=splits, scoring=scoring))
            means = [of_value[f"test_{criterion}"].mean() for of_value in scores]
            if kind == "logistic" and means[-1] < max(means):
                break  # the log loss has one minimum, and larger values of C take longer
        best = int(np.argmax(means))
        chosen, score = grid[best], float(scores[best]["test_f1_macro"].mean())
    return Probe(kind, _estimator(kind, chosen).fit(features, labels), chosen, score)


def _macro_f1(estimator: Any, features: np.ndarray, labels: np.ndarray) -> float:
    """Macro-F1 over the classes of the fold; with groups, a fold may lack some classes."""
    present = np.unique(labels)
    return float(f1_score(labels, estimator.predict(features), labels=present, average="macro", zero_division=0))


def _negative_log_loss(estimator: Any, features: np.ndarray, labels: np.ndarray) -> float:
    return -float(log_loss(labels, estimator.predict_proba(features), labels=estimator.classes_))


def cv_splits(labels: np.ndarray, seed: int, groups: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out indices of each fold; empty if a class cannot be divided into folds."""
    if groups is not None:
        held_out = folds(labels, PROBE_FOLDS, seed, groups)
        return [(np.setdiff1d(np.arange(len(labels)), part), part) for part in held_out]
    number = min(PROBE_FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    if number < 2:
        return []
    return list(StratifiedKFold(number, shuffle=True, random_state=seed % 2**32).split(labels, labels))


def _selection_rows(labels: np.ndarray) -> np.ndarray:
    """Indices of the labels for the selection, int64: the same fraction of each class, but at least one per fold."""
    fraction = min(1.0, MAX_SELECTION_LABELS / len(labels))
    by_class = [np.flatnonzero(labels == cls) for cls in np.unique(labels)]
    sampled = [rows[evenly_spaced(rows, max(PROBE_FOLDS, round(len(rows) * fraction)))] for rows in by_class]
    return np.sort(np.concatenate(sampled))


def _estimator(kind: Literal["knn", "logistic"], value: float) -> Any:
    if kind == "knn":
        return KNeighborsClassifier(n_neighbors=int(value), metric="cosine")
    return make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(C=value, max_iter=200, tol=1e-3))


def linear_head(
    features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0, groups: np.ndarray | None = None
) -> np.ndarray:
    """Fit a linear head for :class:`~fewlabels.backbones.classifier.Classifier`: float64 [K, F + 1], the bias last.

    The head is a logistic regression. With up to ``PROTOTYPES_UP_TO`` labels per class it is a nearest-class-mean
    classifier (Snell et al. 2017, section 2.4).

    Args:
        features: float [N, F] of a frozen backbone.
        labels: int64 [N] in 0..K-1; a class without labels is hardly ever predicted.
        num_classes: K.
        seed: of the folds that select C.
        groups: int64 [N]; None: each image is its own group.
    """
    if len(labels) <= PROTOTYPES_UP_TO * len(np.unique(labels)):
        classes, weight, bias = _class_means(features, labels)
    else:
        classes, weight, bias = _logistic(features, labels, groups, seed)
    weight = weight / np.sqrt(weight.shape[1])  # the classifier scales its features to a mean square of 1
    head = np.zeros((num_classes, weight.shape[1] + 1))
    head[:, -1] = bias.min() - 10
    head[classes] = np.column_stack([weight, bias])
    return head


def _logistic(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a logistic regression: classes, their weights [F] for features of length 1, and their biases."""
    _, scale, logistic = logistic_probe(features, labels, seed, groups).estimator
    weight, bias = logistic.coef_, logistic.intercept_
    if len(logistic.classes_) == 2:  # for two classes, scikit-learn has one row
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    weight = weight / scale.scale_  # the standardisation becomes part of the weights
    return logistic.classes_, weight, bias - weight @ scale.mean_


def _class_means(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As :func:`_logistic`, for nearest class means: negative squared distance without the term of the image alone."""
    classes, unit = np.unique(labels), normalize(features)
    means = np.stack([unit[labels == cls].mean(axis=0) for cls in classes])
    return classes, 2 * PROTOTYPE_SHARPNESS * means, -PROTOTYPE_SHARPNESS * np.square(means).sum(axis=1)
