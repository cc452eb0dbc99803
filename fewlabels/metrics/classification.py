"""Metrics of predictions: macro-F1, accuracy, expected calibration error, classification report."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import classification_report

from fewlabels._internal.errors import sanitize
from fewlabels.data.source import ImageSource

CALIBRATION_BINS = 15
"""Bins of the expected calibration error, as in Guo et al. 2017."""


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of logits over classes: [N, K] to float32 [N, K], with rows that sum to 1."""
    return torch.from_numpy(logits).softmax(dim=1).numpy()


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, eq. 3).

    Args:
        probabilities: float [N, K].
        labels: int64 [N].

    >>> calibration_error(np.array([[0.8, 0.2]] * 5), np.array([0, 0, 0, 0, 1]))
    0.0
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs((correct[bins == b]).sum() - confidence[bins == b].sum()) for b in range(CALIBRATION_BINS)]
    return round(float(sum(gaps) / len(labels)), 12)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a classifier on test images."""

    macro_f1: float
    accuracy: float
    per_class: dict[str, Any]
    """scikit-learn's classification report as a dictionary."""
    text: str
    """scikit-learn's classification report as text."""
    predictions: np.ndarray
    """int64 [N], the predicted classes."""
    calibration_error: float
    """See :func:`calibration_error`."""


def evaluate(logits: np.ndarray, test: ImageSource) -> Evaluation:
    """Evaluate a classifier's logits, float [N, K], on test labels; call it once, for the final model."""
    predictions = logits.argmax(axis=1)
    names = list(test.class_names)
    options: dict[str, Any] = {"labels": range(len(names)), "target_names": names, "digits": 4, "zero_division": 0}
    per_class = classification_report(test.labels, predictions, output_dict=True, **options)
    return Evaluation(
        macro_f1=per_class["macro avg"]["f1-score"],
        accuracy=float((test.labels == predictions).mean()),
        per_class=per_class,
        text=classification_report(test.labels, predictions, **{**options, "target_names": list(map(sanitize, names))}),
        predictions=predictions,
        calibration_error=calibration_error(probabilities(logits), test.labels),
    )
