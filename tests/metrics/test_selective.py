import numpy as np
import pytest

from fewlabels.metrics.selective import selective_thresholds, transfer_thresholds


def test_selective_threshold_depends_on_the_weights():
    """Ten correct images, and ten wrong ones with less confidence, which may be of a rare class."""
    confidence, correct = np.repeat([0.9, 0.6], 10), np.repeat([True, False], 10)
    assert selective_thresholds(confidence, correct)["0.80"] == 0.9
    assert selective_thresholds(confidence, correct, np.repeat([1.9, 0.1], 10))["0.80"] == 0.6


def test_selective_threshold_is_above_1_where_the_precision_is_not_reached():
    thresholds = selective_thresholds(np.array([0.9, 0.8]), np.array([True, True]))
    assert thresholds["0.75"] == 0.8
    assert thresholds["0.80"] > 1


def test_transferred_threshold_accepts_the_same_fraction_of_images():
    rng = np.random.default_rng(0)
    source, target = rng.uniform(size=1000), rng.uniform(size=2000) ** 0.1
    carried = transfer_thresholds({"0.90": 0.75}, source, target)["0.90"]
    assert (target >= carried).mean() == pytest.approx((source >= 0.75).mean(), abs=0.001)


def test_transferred_threshold_of_an_unreached_precision_stays_above_1():
    assert transfer_thresholds({"0.95": 1.01}, np.array([0.5]), np.array([0.99]))["0.95"] > 1


def test_transferred_threshold_counts_the_weights():
    source, weights = np.array([0.9, 0.8]), np.array([1.0, 3.0])
    target = np.linspace(0.1, 1.0, 100)
    carried = transfer_thresholds({"0.90": 0.9}, source, target, weights)["0.90"]
    assert (target >= carried).sum() == 25
