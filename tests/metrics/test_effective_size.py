import numpy as np
import pytest

from fewlabels.metrics.effective_size import design_effect, prior_weights


def test_prior_weights_give_classes_the_frequencies_of_the_prior():
    labels = np.array([0, 0, 0, 1])
    weights = prior_weights(labels, np.array([0.25, 0.75]))
    by_class = np.bincount(labels, weights)
    assert by_class / by_class.sum() == pytest.approx([0.25, 0.75])
    assert weights.sum() == pytest.approx(1 / (3 * (0.25 / 3) ** 2 + 0.75**2))  # Kish's effective sample size


def test_design_effect_of_groups_that_are_correct_or_wrong_as_a_whole_is_their_size():
    correct = np.repeat([1, 0, 1, 1, 0, 0, 1, 0], 5)
    found = design_effect(correct, np.repeat(np.arange(8), 5))
    assert found == pytest.approx(5 * 8 / 7)
    assert design_effect(correct, np.arange(40)) == pytest.approx(40 / 39)


def test_design_effect_of_one_group_is_its_size():
    assert design_effect(np.array([1, 0, 1, 1]), np.zeros(4, int)) == 4
