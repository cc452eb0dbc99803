import numpy as np
import pytest

from fewlabels.fit.doubt import doubtful
from fewlabels.fit.gradients import gradient_features


def test_wrong_labels_are_doubted(fmnist):
    few = fmnist.train.first_k(1000)
    rng = np.random.default_rng(0)
    wrong = rng.choice(1000, 50, replace=False)
    labels = few.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 50)) % 10
    doubts = doubtful(gradient_features(few), labels)
    first = [doubt.place for doubt in doubts[:50]]
    assert np.isin(first, wrong).sum() >= 35
    right = [doubt.suggested == few.labels[doubt.place] for doubt in doubts[:50] if doubt.place in wrong]
    assert np.mean(right) > 0.8


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 0, 1]])
def test_nothing_is_doubted_where_nothing_can_be_held_out(labels):
    assert doubtful(np.eye(4), np.array(labels)) == []
