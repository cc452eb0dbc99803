import numpy as np
import pytest
from scipy.special import softmax

from fewlabels.fit.calibration import pool_weights, rarity, temperature_for, thresholds
from fewlabels.metrics.classification import calibration_error


def drawn(t: float, number: int = 4000, seed: int = 0):
    """Logits, and labels drawn from softmax(logits / t)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(number, 4)) * 3
    labels = np.array([rng.choice(4, p=p) for p in softmax(logits / t, axis=1)])
    return logits, labels


@pytest.mark.parametrize("t", [0.5, 1.0, 3.0])
def test_the_temperature_that_drew_the_labels_is_found(t):
    logits, labels = drawn(t)
    (found,), _ = pool_weights([logits], labels)
    assert 1 / found == pytest.approx(t, rel=0.08)
    assert calibration_error(softmax(logits * found, axis=1), labels) < 0.02
    if t != 1:
        assert calibration_error(softmax(logits, axis=1), labels) > 0.05


def test_the_temperature_for_a_wanted_confidence():
    logits, _ = drawn(1.0)
    for wanted in (0.4, 0.7, 0.95):
        found = temperature_for(logits, wanted)
        assert softmax(logits / found, axis=1).max(axis=1).mean() == pytest.approx(wanted, abs=1e-3)


def test_the_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.62, 0.38], [0.35, 0.65]])
    # Bins of 1/15: 0.9 holds two (one right); 0.62 and 0.65 share one (one right), so that they make up for each other.
    by_hand = (abs(1 - 1.8) + abs(1 - 1.27)) / 4
    assert calibration_error(probabilities, np.array([0, 1, 0, 0])) == pytest.approx(by_hand)


def test_a_few_images_that_are_all_right_do_not_make_the_network_sure():
    logits = np.eye(3)[np.array([0, 1, 2, 0])] * 2
    (found,), _ = pool_weights([logits], np.array([0, 1, 2, 0]))
    assert 0.7 < softmax(logits * found, axis=1).max() < 0.95


def test_the_weights_of_experts_that_drew_the_labels_are_found():
    rng = np.random.default_rng(0)
    one, other, noise = (rng.normal(size=(6000, 4)) * size for size in (1.0, 20.0, 0.1))
    truth = 0.8 * one + 0.06 * other
    labels = np.array([rng.choice(4, p=p) for p in softmax(truth, axis=1)])
    found, _ = pool_weights([one, other, noise], labels)
    np.testing.assert_allclose(found[:2], [0.8, 0.06], rtol=0.1)
    assert found[2] * 0.1 < 0.05
    assert pool_weights([one, -other], labels)[0][1] == 0  # who is wrong is not listened to, nor turned round


def test_experts_that_learned_from_few_of_a_class_are_put_right():
    """They say what Bayes' rule says with the shares of their labels, which are not to count."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, size=3000, p=[0.8, 0.15, 0.05])
    seen = rng.normal(size=(len(truth), 3)) + 2 * np.eye(3)[truth]
    rare = rarity(truth, 3)
    (weight,), of_rare = pool_weights([2 * seen - rare], truth, rare)
    assert weight == pytest.approx(1, rel=0.1)
    assert of_rare == pytest.approx(1, rel=0.1)
    np.testing.assert_allclose(np.exp(-rare), [0.8, 0.15, 0.05], atol=0.02)


def test_a_frequent_class_counts_more_when_it_is_said_from_where_on_to_be_sure():
    """Ten images named right, ten named wrong with less confidence; those may be of a rare class."""
    confidence, right = np.repeat([0.9, 0.6], 10), np.repeat([True, False], 10)
    assert thresholds(confidence, right)["0.80"] == 0.9
    assert thresholds(confidence, right, np.repeat([1.9, 0.1], 10))["0.80"] == 0.6
