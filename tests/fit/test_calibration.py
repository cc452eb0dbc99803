import numpy as np
import pytest
from scipy.special import softmax

from fewlabels.fit.calibration import fit_temperature_to_confidence, mask_absent_classes


def test_temperature_gives_the_confidence_that_is_asked_for():
    logits = np.random.default_rng(0).normal(size=(4000, 4)) * 3
    for confidence in (0.4, 0.7, 0.95):
        temperature = fit_temperature_to_confidence(logits, confidence)
        assert softmax(logits / temperature, axis=1).max(axis=1).mean() == pytest.approx(confidence, abs=1e-3)


def test_masked_classes_are_those_without_labels():
    logits = np.zeros((2, 3), np.float32)
    masked = mask_absent_classes(logits, np.array([2, 0]))
    assert softmax(masked, axis=1).tolist() == [[0.5, 0.0, 0.5]] * 2
    assert (logits == 0).all()
