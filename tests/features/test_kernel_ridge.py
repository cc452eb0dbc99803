import math

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import f1_score

from fewlabels.features.hog import gradient_features
from fewlabels.features.kernel_ridge import (
    KernelConfig,
    _leave_out_error,
    _left_out_together,
    _selection,
    fit_kernel_ridge,
)

CONFIG = KernelConfig()


@pytest.mark.parametrize("groups", [np.arange(12), np.array([7, 3, 3, 7, 3, 0, 0, 3, 9, 9, 9, 9])])
def test_leave_out_error_equals_refitting_without_each_group(groups):
    left_out = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(0)
    points, targets = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    kernel = points @ points.T
    errors = []
    for rows in left_out:
        rest = np.delete(np.arange(12), rows)
        fitted = KernelRidge(alpha=0.3, kernel="precomputed").fit(kernel[np.ix_(rest, rest)], targets[rest])
        errors.append(fitted.predict(kernel[np.ix_(rows, rest)]) - targets[rows])
    expected = np.square(np.concatenate(errors)).mean()
    assert _leave_out_error(kernel, targets, 0.3, left_out) == pytest.approx(expected)


def test_scores_equal_scikit_learn_for_one_of_the_grid(fmnist):
    features = gradient_features(fmnist.train.first_k(300))
    rows, labels = np.arange(100), fmnist.train.labels[:100]
    scores = fit_kernel_ridge(features[rows], labels, 10).scores(features)
    targets = np.eye(10)[labels] - 0.1
    theirs = [
        KernelRidge(alpha=penalty, kernel="rbf", gamma=gamma).fit(features[rows], targets).predict(features)
        for gamma in CONFIG.gammas
        for penalty in CONFIG.penalties
    ]
    assert min(abs(scores - each).max() for each in theirs) < 1e-4


def test_groups_are_left_out_whole_unless_a_class_would_be_left_out():
    groups, labels = np.array([5, 2, 5, 2, 8, 8]), np.array([0, 0, 0, 1, 1, 1])
    assert [rows.tolist() for rows in _left_out_together(labels, groups)] == [[1, 3], [0, 2], [4, 5]]
    found = _left_out_together(np.array([0, 0, 0, 1, 2, 2]), groups)
    assert sorted(map(tuple, found)) == [(0, 2), (1,), (3,), (4,), (5,)]


def patients(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features in which a patient's images are more alike than those of a class; labels and groups.

    There are 20 patients in each of two classes, with this number of images each.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(40), images)
    labels = groups % 2
    each = rng.normal(size=(40, 30))
    features = 0.6 * np.eye(30)[labels] * math.sqrt(30) + each[groups] + 0.1 * rng.normal(size=(len(groups), 30))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels, groups


def test_gamma_is_smaller_with_groups_and_accuracy_on_new_patients_no_lower():
    features, labels, groups = patients(8)
    known, others = groups < 20, groups >= 20
    alone, grouped = (fit_kernel_ridge(features[known], labels[known], 2, each) for each in (None, groups[known]))
    assert grouped.gamma < alone.gamma
    right = [(ridge.scores(features[others]).argmax(axis=1) == labels[others]).mean() for ridge in (alone, grouped)]
    assert right[1] >= right[0]


def test_macro_f1_on_fashion_mnist_is_above_logistic_regression_on_pixels(fmnist):
    """0.8174 is logistic regression's figure for raw pixels, 1,000 labels and scikit-learn's best C."""
    source = fmnist.train.first_k(3000)
    features = gradient_features(source)
    scores = fit_kernel_ridge(features[:1000], source.labels[:1000], 10).scores(features)
    assert f1_score(source.labels[1000:], scores[1000:].argmax(axis=1), average="macro") > 0.84


def test_selection_keeps_all_labels_of_some_classes_where_classes_are_many():
    """Five labels of each of a thousand classes, in order: every fifth would be one of each."""
    labels = np.repeat(np.arange(1000), 5)
    chosen = labels[_selection(labels, CONFIG)]
    assert len(chosen) == CONFIG.max_selection_labels
    assert set(np.unique(chosen, return_counts=True)[1]) == {5}
    assert len(_selection(np.arange(5000) % 10, CONFIG)) == CONFIG.max_selection_labels
