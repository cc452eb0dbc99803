import numpy as np
import pytest

from fewlabels.audit.label_errors import find_label_issues
from fewlabels.features.hog import gradient_features


def test_find_label_issues_ranks_exchanged_labels_first(fmnist):
    source = fmnist.train.first_k(1000)
    rng = np.random.default_rng(0)
    wrong = rng.choice(1000, 50, replace=False)
    labels = source.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 50)) % 10
    issues = find_label_issues(gradient_features(source), labels)
    first = [issue.row for issue in issues[:50]]
    assert np.isin(first, wrong).sum() >= 35
    correct = [issue.suggested == source.labels[issue.row] for issue in issues[:50] if issue.row in wrong]
    assert np.mean(correct) > 0.8


def test_find_label_issues_keeps_a_group_in_one_fold():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 10)
    truth = patients % 2
    features = 2 * np.eye(30)[truth] + np.hstack([np.zeros((40, 2)), rng.normal(size=(40, 28))])[patients]
    features += 0.1 * rng.normal(size=features.shape)
    labels = np.where(patients == 7, 1 - truth, truth)  # all of one patient's
    grouped = [issue.row for issue in find_label_issues(features, labels, groups=patients)]
    ungrouped = [issue.row for issue in find_label_issues(features, labels)]
    assert np.isin(np.flatnonzero(patients == 7), grouped).all()
    assert not np.isin(np.flatnonzero(patients == 7), ungrouped).all()


def test_find_label_issues_skips_a_class_of_one_group():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    patients = np.where(labels == 2, 0, 1 + np.arange(60) // 5)
    issues = find_label_issues(rng.normal(size=(60, 5)), labels, groups=patients)
    assert issues
    assert not np.isin([issue.row for issue in issues], np.flatnonzero(labels == 2)).any()
    assert find_label_issues(rng.normal(size=(60, 5)), labels, groups=np.zeros(60, int)) == []


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 0, 1]])
def test_find_label_issues_returns_nothing_without_two_labels_per_class(labels):
    assert find_label_issues(np.eye(4), np.array(labels)) == []
