"""Which candidate is shipped."""

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import confusion_matrix

from fewlabels.fit.ensemble import OutOfFold
from fewlabels.fit.performance import macro_f1
from fewlabels.metrics.effective_size import sums_by_group

PREFERRED = ("self-training", "ensemble")
"""Candidates that are taken within one standard error of the best, in this order: on folds self-training has a small
part of the time that it has when it is shipped, and an ensemble varies less than one learner."""


def confusion_of(oof: OutOfFold) -> np.ndarray:
    """Counts int64 [K, K] of held-out labels, true classes in rows."""
    classes = range(oof.pool.num_classes)
    counts: np.ndarray = confusion_matrix(oof.labels, oof.held_out.argmax(axis=1), labels=classes)
    return counts


def score_of(oof: OutOfFold) -> float:
    """Macro-F1 over the classes that were held out."""
    confusion = confusion_of(oof)
    return float(macro_f1(confusion)) * len(confusion) / np.count_nonzero(confusion.sum(axis=1))


def standard_error(one: OutOfFold, other: OutOfFold) -> float:
    """Standard error of the difference of two candidates' macro-F1 on the same held-out labels.

    Each class counts alike. One pseudo-disagreement is added: no disagreement on few images is not zero variance.
    """
    differs = one.correct.astype(int) - other.correct
    _, classes, counts = np.unique(one.labels, return_inverse=True, return_counts=True)
    differences = sums_by_group(differs / counts[classes], one.groups)
    return float(np.sqrt(np.square(differences).sum() + np.square(1 / counts).mean()) / len(counts))


def rank_models(candidates: Mapping[str, OutOfFold]) -> list[str]:
    """Names of the candidates, the one to ship first.

    It is the one with the highest macro-F1 on held-out labels, or one of ``PREFERRED`` that is at most a standard error
    of the difference below it. The others follow by their scores; of equals the one that was tried first.
    """
    scores = {name: score_of(oof) for name, oof in candidates.items()}
    ranked = sorted(scores, key=lambda name: -scores[name])
    best = ranked[0]
    for name in PREFERRED:
        if name in scores and scores[name] >= scores[best] - standard_error(candidates[name], candidates[best]):
            return [name, *(other for other in ranked if other != name)]
    return ranked
