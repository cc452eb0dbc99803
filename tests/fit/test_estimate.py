import numpy as np
import pytest
from sklearn.metrics import f1_score

from fewlabels.data.source import balanced_indices
from fewlabels.data.splits import folds
from fewlabels.features.hog import gradient_features
from fewlabels.fit.estimate import confusion_of, expected_macro_f1, lost_by, macro_f1, mean_of_classes
from fewlabels.fit.kernel import kernel_ridge

TRUE = np.array([[0.9, 0.1, 0.0], [0.05, 0.85, 0.1], [0.0, 0.3, 0.7]])


def predicted(per_class: int, seed: int):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    return labels, np.array([rng.choice(3, p=TRUE[label]) for label in labels])


def test_macro_f1_agrees_with_scikit_learn():
    labels, predictions = predicted(20, 0)
    confusion = confusion_of(labels, predictions, 3)
    assert macro_f1(confusion) == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert foretold(labels, predictions).macro_f1 == pytest.approx(macro_f1(confusion), abs=0.02)


def foretold(labels, predictions, **given):
    return expected_macro_f1(confusion_of(labels, predictions, 3), np.full(3, 1 / 3), **given)


@pytest.mark.parametrize("per_class", [5, 30, 300])
def test_the_interval_holds_the_truth_as_often_as_it_says(per_class, monkeypatch):
    monkeypatch.setattr("fewlabels.fit.estimate.DRAWS", 300)
    truth = float(macro_f1(TRUE))
    inside, widths = 0, []
    for seed in range(100):
        found = foretold(*predicted(per_class, seed))
        inside += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert 88 <= inside <= 100
    assert 0.5 < np.mean(widths) / (4 * 0.27 / np.sqrt(3 * per_class) * 1.0) < 2


def test_labels_that_the_folds_did_not_see_are_foretold(fmnist):
    """Kernel ridge on 300 real labels: its folds' two thirds alone make too low an estimate."""
    some = fmnist.train.first_k(6000)
    features, classes = gradient_features(some), np.full(10, 0.1)
    plain, raised, inside = [], [], 0
    for seed in range(12):
        rows = balanced_indices(some.labels, 300, seed)
        labels = some.labels[rows]
        rest = np.setdiff1d(np.arange(len(some)), rows)
        said = kernel_ridge(features[rows], labels, 10).scores(features[rest]).argmax(axis=1)
        truth = f1_score(some.labels[rest], said, average="macro")
        confusion = np.zeros((10, 10), int)
        for held in folds(labels, 3, seed):
            learned = np.setdiff1d(np.arange(300), held)
            ridge = kernel_ridge(features[rows[learned]], labels[learned], 10)
            said = ridge.scores(features[rows[held]]).argmax(axis=1)
            confusion += confusion_of(labels[held], said, 10)
        found = expected_macro_f1(confusion, classes, seed, len(rest), 2 / 3)
        inside += found.low <= truth <= found.high
        raised.append(found.macro_f1 - truth)
        plain.append(expected_macro_f1(confusion, classes, seed, len(rest)).macro_f1 - truth)
    assert np.mean(plain) < -0.01
    assert abs(np.mean(raised)) < abs(np.mean(plain)) / 1.5
    assert inside >= 10


def test_two_thirds_of_the_labels_make_more_mistakes():
    labels, predictions = predicted(300, 0)
    as_seen, with_all = (foretold(labels, predictions, learned_from=share).macro_f1 for share in (1.0, 2 / 3))
    assert (1 - with_all) / (1 - as_seen) == pytest.approx((2 / 3) ** 0.3)


def test_another_training_ends_elsewhere_however_many_labels_are_held_out():
    """A million labels leave no other doubt: twice 1.96 standard deviations of score times error."""
    found = expected_macro_f1(np.array([[900_000, 100_000], [100_000, 900_000]]), np.array([0.5, 0.5]))
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.04 * 0.9 * 0.1, rel=0.15)
    assert found.macro_f1 == pytest.approx(0.9, abs=0.001)


def test_the_chance_of_a_small_test_is_in_the_interval():
    labels, predictions = predicted(300, 0)
    wide, narrow = (foretold(labels, predictions, tested_on=number) for number in (90, 90_000))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_a_test_of_fewer_images_than_classes_has_some_of_each():
    """Of 100 classes 50 images are tested: some 40 classes occur, and what is right of them counts."""
    found = expected_macro_f1(20 * np.eye(100), np.full(100, 0.01), tested_on=50)
    assert 0.25 < found.macro_f1 < 0.45
    assert found.low < found.high


def test_a_few_images_that_are_all_right_prove_little():
    labels = np.array([0, 0, 1, 1, 2, 2])
    found = foretold(labels, labels)
    assert found.low < 0.8 < found.macro_f1 < found.high <= 1


def test_a_class_that_could_not_be_held_out_is_unknown_not_wrong():
    labels = np.repeat([0, 1], 100)
    known = expected_macro_f1(confusion_of(labels, labels, 3), np.full(3, 1 / 3))
    assert known.high - known.low > 0.2
    assert known.high > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_many_classes_of_few_images_are_foretold_without_a_bias(seed):
    """Of 100 classes of which each is named right nine times of ten, three images each were held out."""
    right = np.random.default_rng(seed).binomial(3, 0.9, 100)
    confusion = np.diag(right) + np.roll(np.diag(3 - right), 1, axis=1)
    found = expected_macro_f1(confusion, np.full(100, 0.01), seed)
    assert abs(found.macro_f1 - right.mean() / 3) < 0.015
    assert 0.03 < found.high - found.low < 0.09


def test_images_of_few_patients_leave_numbers():
    """So many images count as one that a class seen in one of them has a hundredth."""
    confusion = np.diag([100, 200, 1, 0])
    for tested_on in (None, 50):
        found = expected_macro_f1(confusion, np.full(4, 0.25), tested_on=tested_on, effect=150.0)
        assert 0 <= found.low < found.high <= 1


def test_shares_decide_what_a_mistake_costs():
    """Every tenth of the first class is called the second: little where the first is rare."""
    confusion = np.array([[90, 10], [0, 100]])
    rare, often = (expected_macro_f1(confusion, np.array([share, 1 - share])).macro_f1 for share in (0.1, 0.9))
    by_hand = [float(macro_f1(np.array([[0.9 * s, 0.1 * s], [0, 1 - s]]))) for s in (0.1, 0.9)]
    assert (rare, often) == pytest.approx(by_hand, abs=0.02)
    assert rare > often + 0.1


def test_what_the_student_lost_is_taken_off():
    confusion, shares = np.diag([90, 90]) + 10, np.array([0.5, 0.5])
    whole, less = (expected_macro_f1(confusion, shares, lost=lost) for lost in (0.0, 0.03))
    assert np.subtract(whole, less) == pytest.approx([0.03] * 3)
    assert expected_macro_f1(confusion, shares, lost=1.0).low == 0
    teachers = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    lost = lost_by(np.array([0, 1, 1]), teachers)
    assert lost == pytest.approx([0.0, 0.25, 0.0])
    assert mean_of_classes(lost, teachers.argmax(axis=1)) == pytest.approx(0.0625)


def test_a_class_that_was_not_drawn_is_not_one_that_could_not_be_held_out():
    """Half of the classes have no image held out; six of ten images are named right."""
    classes = 40
    counts = np.zeros((classes, classes))
    for cls in range(0, classes, 2):
        counts[cls, cls], counts[cls, cls + 1] = 6, 4
    shares = np.full(classes, 1 / classes)
    drawn = expected_macro_f1(counts, shares, kept=np.zeros(classes, bool))
    kept = expected_macro_f1(counts, shares)
    assert drawn.low < 0.6 < drawn.high
    assert kept.macro_f1 < drawn.macro_f1 - 0.1
