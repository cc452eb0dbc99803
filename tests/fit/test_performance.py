import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from fewlabels.data.source import balanced_indices
from fewlabels.data.splits import folds
from fewlabels.features.hog import gradient_features
from fewlabels.features.kernel_ridge import fit_kernel_ridge
from fewlabels.fit.config import PerformanceConfig
from fewlabels.fit.performance import (
    Estimate,
    disagreement_losses,
    expected_accuracy,
    expected_macro_f1,
    macro_f1,
    mean_over_classes,
)

TRUE = np.array([[0.9, 0.1, 0.0], [0.05, 0.85, 0.1], [0.0, 0.3, 0.7]])
THIRDS = np.full(3, 1 / 3)


def predicted(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    return labels, np.array([rng.choice(3, p=TRUE[label]) for label in labels])


def estimate(labels: np.ndarray, predictions: np.ndarray, **options) -> Estimate:
    return expected_macro_f1(confusion_matrix(labels, predictions, labels=range(3)), THIRDS, **options)


def test_macro_f1_equals_scikit_learn():
    labels, predictions = predicted(20, 0)
    confusion = confusion_matrix(labels, predictions)
    assert macro_f1(confusion) == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert estimate(labels, predictions).macro_f1 == pytest.approx(macro_f1(confusion), abs=0.02)


@pytest.mark.parametrize("per_class", [5, 30, 300])
def test_interval_covers_the_truth_as_often_as_stated(per_class):
    truth, few_draws = float(macro_f1(TRUE)), PerformanceConfig(draws=300)
    inside, widths = 0, []
    for seed in range(100):
        found = estimate(*predicted(per_class, seed), config=few_draws)
        inside += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert 88 <= inside <= 100
    assert 0.5 < np.mean(widths) / (4 * 0.27 / np.sqrt(3 * per_class) * 1.0) < 2


def test_train_fraction_corrects_the_bias_of_folds_on_real_images(fmnist):
    """Kernel ridge on 300 labels: models that were trained on two thirds make too low an estimate."""
    some = fmnist.train.first_k(6000)
    features, tenths = gradient_features(some), np.full(10, 0.1)
    plain, corrected, inside = [], [], 0
    for seed in range(12):
        rows = balanced_indices(some.labels, 300, seed)
        labels = some.labels[rows]
        rest = np.setdiff1d(np.arange(len(some)), rows)
        predictions = fit_kernel_ridge(features[rows], labels, 10).scores(features[rest]).argmax(axis=1)
        truth = f1_score(some.labels[rest], predictions, average="macro")
        confusion = np.zeros((10, 10), int)
        for held_out in folds(labels, 3, seed):
            train = np.setdiff1d(np.arange(300), held_out)
            ridge = fit_kernel_ridge(features[rows[train]], labels[train], 10)
            predictions = ridge.scores(features[rows[held_out]]).argmax(axis=1)
            confusion += confusion_matrix(labels[held_out], predictions, labels=range(10))
        found = expected_macro_f1(confusion, tenths, seed, len(rest), 2 / 3)
        inside += found.low <= truth <= found.high
        corrected.append(found.macro_f1 - truth)
        plain.append(expected_macro_f1(confusion, tenths, seed, len(rest)).macro_f1 - truth)
    assert np.mean(plain) < -0.01
    assert abs(np.mean(corrected)) < abs(np.mean(plain)) / 1.5
    assert inside >= 10


def test_error_falls_as_a_power_of_the_train_fraction():
    labels, predictions = predicted(300, 0)
    some, every = (estimate(labels, predictions, train_fraction=share).macro_f1 for share in (1.0, 2 / 3))
    assert (1 - every) / (1 - some) == pytest.approx((2 / 3) ** PerformanceConfig.learning_exponent)


def test_seed_deviation_remains_with_a_million_labels():
    """Twice 1.96 standard deviations of score times error."""
    found = expected_macro_f1(np.array([[900_000, 100_000], [100_000, 900_000]]), np.array([0.5, 0.5]))
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.04 * 0.9 * 0.1, rel=0.15)
    assert found.macro_f1 == pytest.approx(0.9, abs=0.001)


def test_interval_includes_the_sampling_error_of_a_small_test():
    labels, predictions = predicted(300, 0)
    wide, narrow = (estimate(labels, predictions, test_images=number) for number in (90, 90_000))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_test_of_fewer_images_than_classes_counts_absent_classes_as_0():
    """Of 100 classes 50 images are tested: some 40 classes occur."""
    found = expected_macro_f1(20 * np.eye(100), np.full(100, 0.01), test_images=50)
    assert 0.25 < found.macro_f1 < 0.45
    assert found.low < found.high


def test_few_correct_images_leave_a_wide_interval():
    labels = np.array([0, 0, 1, 1, 2, 2])
    found = estimate(labels, labels)
    assert found.low < 0.8 < found.macro_f1 < found.high <= 1


def test_class_that_could_not_be_held_out_is_unknown_not_wrong():
    labels = np.repeat([0, 1], 100)
    found = estimate(labels, labels)
    assert found.high - found.low > 0.2
    assert found.high > 0.95


def test_class_that_was_not_held_out_by_chance_is_like_the_others():
    """Half of the classes have no image held out; six of ten images are correct."""
    classes = 40
    counts = np.zeros((classes, classes))
    for cls in range(0, classes, 2):
        counts[cls, cls], counts[cls, cls + 1] = 6, 4
    prior = np.full(classes, 1 / classes)
    by_chance = expected_macro_f1(counts, prior, not_held_out=np.zeros(classes, bool))
    assert by_chance.low < 0.6 < by_chance.high
    assert expected_macro_f1(counts, prior).macro_f1 < by_chance.macro_f1 - 0.1


@pytest.mark.parametrize("seed", range(3))
def test_estimate_of_many_classes_with_few_images_is_unbiased(seed):
    """Of 100 classes, each correct nine times in ten, three images each were held out."""
    correct = np.random.default_rng(seed).binomial(3, 0.9, 100)
    confusion = np.diag(correct) + np.roll(np.diag(3 - correct), 1, axis=1)
    found = expected_macro_f1(confusion, np.full(100, 0.01), seed)
    assert abs(found.macro_f1 - correct.mean() / 3) < 0.015
    assert 0.03 < found.high - found.low < 0.09


def test_large_design_effect_gives_finite_figures():
    confusion = np.diag([100, 200, 1, 0])
    for test_images in (None, 50):
        found = expected_macro_f1(confusion, np.full(4, 0.25), test_images=test_images, design_effect=150.0)
        assert 0 <= found.low < found.high <= 1


def test_prior_decides_the_cost_of_an_error():
    """A tenth of the first class is predicted as the second: little where the first is rare."""
    confusion = np.array([[90, 10], [0, 100]])
    rare, frequent = (expected_macro_f1(confusion, np.array([p, 1 - p])).macro_f1 for p in (0.1, 0.9))
    by_hand = [float(macro_f1(np.array([[0.9 * p, 0.1 * p], [0, 1 - p]]))) for p in (0.1, 0.9)]
    assert (rare, frequent) == pytest.approx(by_hand, abs=0.02)
    assert rare > frequent + 0.1


def test_loss_is_subtracted_down_to_0():
    confusion, prior = np.diag([90, 90]) + 10, np.array([0.5, 0.5])
    whole, less = (expected_macro_f1(confusion, prior, loss=loss) for loss in (0.0, 0.03))
    assert np.subtract(whole, less) == pytest.approx([0.03] * 3)
    assert expected_macro_f1(confusion, prior, loss=1.0).low == 0


def test_disagreement_losses_by_hand():
    targets = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    losses = disagreement_losses(np.array([0, 1, 1]), targets)
    assert losses == pytest.approx([0.0, 0.25, 0.0])
    assert mean_over_classes(losses, targets.argmax(axis=1)) == pytest.approx(0.0625)


def test_expected_accuracy_adds_a_correct_and_a_wrong_image():
    assert expected_accuracy(np.array([True, True, False]), np.ones(3)) == pytest.approx(3 / 5)
