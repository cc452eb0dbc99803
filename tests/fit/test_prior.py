import numpy as np
import pytest
from scipy.special import softmax

from fewlabels.fit.prior import are_uneven, class_prior, shift_to


def said_of(shares: list[float], seed: int) -> np.ndarray:
    """Bayes' rule for Gaussians by who takes the classes to be equal, of images that have these shares."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(shares), size=20_000, p=shares)
    seen = rng.normal(size=(len(truth), len(shares))) + 2 * np.eye(len(shares))[truth]
    said: np.ndarray = softmax(2 * seen, axis=1)
    return said


def test_the_shares_of_classes_are_found_among_images_without_labels():
    """A classifier that learned from equal classes, and images of which few are of the third."""
    said = said_of([0.6, 0.35, 0.05], seed=0)
    found = class_prior([said], np.full(3, 1 / 3))
    np.testing.assert_allclose(found, [0.6, 0.35, 0.05], atol=0.015)
    assert abs(said.mean(axis=0) - [0.6, 0.35, 0.05]).max() > 0.05  # the plain mean is not it


def test_no_class_is_taken_to_be_absent():
    sure = np.eye(4)[np.zeros(100, int)] * 0.999 + 0.00025
    assert class_prior([sure], np.full(4, 0.25)).min() > 0.02


def test_folds_that_agree_are_believed():
    folds = [said_of([0.6, 0.35, 0.05], seed) for seed in range(3)]
    np.testing.assert_allclose(class_prior(folds, np.full(3, 1 / 3)), [0.6, 0.35, 0.05], atol=0.015)


def test_folds_that_contradict_each_other_say_nothing():
    folds = [said_of(shares, 0) for shares in ([0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6])]
    np.testing.assert_allclose(class_prior(folds, np.array([0.5, 0.3, 0.2])), [0.5, 0.3, 0.2], atol=0.02)


def test_of_folds_that_differ_so_much_is_believed_as_is_more_than_chance():
    """By hand, of two folds and two classes."""

    def sure_of(ratio: float) -> np.ndarray:
        share = 1 / (1 + np.exp(-ratio))
        of_first = round(100_000 * share)
        sure: np.ndarray = np.repeat(np.eye(2), [of_first, 100_000 - of_first], axis=0) * (1 - 2e-9) + 1e-9
        return sure

    found = class_prior([sure_of(0.5), sure_of(1.5)], np.full(2, 1 / 2))
    # Logarithms 0.25 and 0.75 above their mean: 1/2 of 4 * 0.25 ** 2 by chance, of 2 * 0.5 ** 2 in all.
    assert np.log(found[0] / found[1]) == pytest.approx(1.0 * (1 - 0.125 / 0.5), rel=1e-3)


def test_equal_classes_are_told_to_be_equal():
    equal = np.tile(np.eye(2), (50, 1)) * 0.8 + 0.1
    np.testing.assert_allclose(class_prior([equal] * 3, np.full(2, 1 / 2)), [0.5, 0.5])


def test_few_images_are_believed_less():
    """By hand: 0.9 of a hundred; its logarithm's variance is (1 / 0.9 - 1) / 100, the other's (1 / 0.1 - 1) / 100."""
    sure = np.repeat(np.eye(2), [90, 10], axis=0) * (1 - 2e-9) + 1e-9
    found = class_prior([sure] * 2, np.full(2, 1 / 2))
    apart = np.log(9)
    believed = 1 - (1 / 9 + 9) / 100 / (2 * (apart / 2) ** 2)
    assert np.log(found[0] / found[1]) == pytest.approx(believed * apart, rel=1e-3)


def test_shares_are_uneven_beyond_three_times_the_variance_of_what_is_said():
    """By hand: of two classes there are two images, 0.2 apart, whose variance is 0.02; the third has one."""
    held = np.array([[0.5, 0.4, 0.1], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    labels = np.array([0, 0, 1, 1, 2])
    of_labels = (0.02 + 0.02) / 2 / 3
    apart = np.array([[0.1, -0.1, 0.0], [-0.1, 0.1, 0.0]] * 5)  # of ten images
    of_images = (0.01 + 0.01) / 10

    def are(times: float, effect: float) -> bool:
        off = np.sqrt(times * (effect * of_labels + of_images) / 2)
        return are_uneven(apart + np.array([1 / 3 + off, 1 / 3 - off, 1 / 3]), held, labels, effect)

    assert [are(times, effect) for times in (2.9, 3.1) for effect in (1.0, 1.5)] == [False, False, True, True]
    assert not are_uneven(apart + np.array([0.9, 0.05, 0.05]), held[:1], labels[:1])


def test_classes_are_raised_and_lowered_until_they_are_as_frequent_as_is_said():
    logits = np.random.default_rng(0).normal(size=(500, 4))
    logits[:, 3] = -1e4
    shares = np.array([0.5, 0.3, 0.2, 0.0])
    shift = shift_to(shares, logits)
    np.testing.assert_allclose(softmax(logits + shift, axis=1).mean(axis=0), shares, atol=1e-6)
    assert shift[3] == 0


def test_where_no_class_was_held_out_twice_all_together_tell_their_chance():
    """A thousand classes of which a tenth of few labels holds one each, or none."""
    rng = np.random.default_rng(0)
    held = rng.dirichlet(np.full(20, 0.2), 15)
    even, uneven = np.full((500, 20), 0.05), np.tile(np.linspace(0, 0.1, 20) ** 3, (500, 1))
    uneven /= uneven.sum(axis=1, keepdims=True)
    assert not are_uneven(even, held, np.arange(15))
    assert are_uneven(uneven, held, np.arange(15))
    assert not are_uneven(uneven, held[:1], np.arange(1))
