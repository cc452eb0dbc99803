import numpy as np
import pytest

from fewlabels.audit.label_errors import doubtful
from fewlabels.features.hog import gradient_features


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


def test_the_images_of_a_patient_do_not_vouch_for_each_other():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 10)
    truth = patients % 2
    features = 2 * np.eye(30)[truth] + np.hstack([np.zeros((40, 2)), rng.normal(size=(40, 28))])[patients]
    features += 0.1 * rng.normal(size=features.shape)
    labels = np.where(patients == 7, 1 - truth, truth)  # all of one patient's
    doubted = [doubt.place for doubt in doubtful(features, labels, groups=patients)]
    assert np.isin(np.flatnonzero(patients == 7), doubted).all()
    assert not np.isin(np.flatnonzero(patients == 7), [doubt.place for doubt in doubtful(features, labels)]).all()


def test_who_alone_knows_a_class_is_not_doubted():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    patients = np.where(labels == 2, 0, 1 + np.arange(60) // 5)
    doubts = doubtful(rng.normal(size=(60, 5)), labels, groups=patients)
    assert doubts
    assert not np.isin([doubt.place for doubt in doubts], np.flatnonzero(labels == 2)).any()
    assert doubtful(rng.normal(size=(60, 5)), labels, groups=np.zeros(60, int)) == []


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 0, 1]])
def test_nothing_is_doubted_where_nothing_can_be_held_out(labels):
    assert doubtful(np.eye(4), np.array(labels)) == []
