import numpy as np
import pytest

from fewlabels.data.source import ArraySource
from fewlabels.metrics.classification import evaluate


def test_evaluate_by_hand():
    """Two classes, three images, one mistake: F1 is 2/3 for both."""
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    images = ArraySource(np.zeros((3, 28, 28), np.uint8), np.array([0, 0, 1]), ("a", "b"))
    result = evaluate(logits, images)
    assert result.macro_f1 == pytest.approx(2 / 3)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.predictions.tolist() == [0, 1, 1]
