import numpy as np
import pytest
from scipy.special import softmax

from fewlabels.fit.label_shift import (
    PriorEstimate,
    adjust_logits,
    estimate_class_prior,
    is_not_uniform,
    label_frequencies,
    prior_offsets,
    shrunk_em_prior,
)


def predictions(prior: list[float], seed: int, images: int = 20_000) -> np.ndarray:
    """Posteriors under a uniform prior (Gaussian classes) of images whose classes have another prior."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(len(prior), size=images, p=prior)
    seen = rng.normal(size=(images, len(prior))) + 2 * np.eye(len(prior))[classes]
    posterior: np.ndarray = softmax(2 * seen, axis=1)
    return posterior


def test_em_finds_the_prior_that_the_mean_prediction_misses():
    posterior = predictions([0.6, 0.35, 0.05], seed=0)
    found = shrunk_em_prior([posterior], np.full(3, 1 / 3))
    np.testing.assert_allclose(found, [0.6, 0.35, 0.05], atol=0.015)
    assert abs(posterior.mean(axis=0) - [0.6, 0.35, 0.05]).max() > 0.05


def test_em_never_makes_a_class_absent():
    certain = np.eye(4)[np.zeros(100, int)] * 0.999 + 0.00025
    assert shrunk_em_prior([certain], np.full(4, 0.25)).min() > 0.02


def test_em_of_folds_that_agree_is_not_shrunk():
    folds = [predictions([0.6, 0.35, 0.05], seed) for seed in range(3)]
    np.testing.assert_allclose(shrunk_em_prior(folds, np.full(3, 1 / 3)), [0.6, 0.35, 0.05], atol=0.015)


def test_em_of_folds_that_contradict_each_other_is_shrunk_to_the_trained_prior():
    folds = [predictions(prior, 0) for prior in ([0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6])]
    trained = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(shrunk_em_prior(folds, trained), trained, atol=0.02)


def test_shrinkage_between_folds_by_hand():
    """Two folds, two classes."""

    def certain(log_ratio: float) -> np.ndarray:
        first = round(100_000 / (1 + np.exp(-log_ratio)))
        rows: np.ndarray = np.repeat(np.eye(2), [first, 100_000 - first], axis=0) * (1 - 2e-9) + 1e-9
        return rows

    found = shrunk_em_prior([certain(0.5), certain(1.5)], np.full(2, 1 / 2))
    # Logarithms 0.25 and 0.75 above their mean: 1/2 of 4 * 0.25 ** 2 by chance, of 2 * 0.5 ** 2 in all.
    assert np.log(found[0] / found[1]) == pytest.approx(1.0 * (1 - 0.125 / 0.5), rel=1e-3)


def test_shrinkage_of_few_images_by_hand():
    """0.9 of a hundred: the variance of its logarithm is (1 / 0.9 - 1) / 100, of the other's (1 / 0.1 - 1) / 100."""
    certain = np.repeat(np.eye(2), [90, 10], axis=0) * (1 - 2e-9) + 1e-9
    found = shrunk_em_prior([certain] * 2, np.full(2, 1 / 2))
    distance = np.log(9)
    kept = 1 - (1 / 9 + 9) / 100 / (2 * (distance / 2) ** 2)
    assert np.log(found[0] / found[1]) == pytest.approx(kept * distance, rel=1e-3)


def test_em_leaves_a_uniform_prior_unchanged():
    equal = np.tile(np.eye(2), (50, 1)) * 0.8 + 0.1
    np.testing.assert_allclose(shrunk_em_prior([equal] * 3, np.full(2, 1 / 2)), [0.5, 0.5])


def test_is_not_uniform_beyond_three_variances_by_hand():
    """Of two classes there are two images, 0.2 apart, whose variance is 0.02; the third has one."""
    held_out = np.array([[0.5, 0.4, 0.1], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    labels = np.array([0, 0, 1, 1, 2])
    label_variance = (0.02 + 0.02) / 2 / 3
    spread = np.array([[0.1, -0.1, 0.0], [-0.1, 0.1, 0.0]] * 5)  # of ten images
    image_variance = (0.01 + 0.01) / 10

    def found(ratio: float, design_effect: float) -> bool:
        off = np.sqrt(ratio * (design_effect * label_variance + image_variance) / 2)
        mean = np.array([1 / 3 + off, 1 / 3 - off, 1 / 3])
        return is_not_uniform(spread + mean, held_out, labels, design_effect)

    assert [found(ratio, effect) for ratio in (2.9, 3.1) for effect in (1.0, 1.5)] == [False, False, True, True]
    assert not is_not_uniform(spread + np.array([0.9, 0.05, 0.05]), held_out[:1], labels[:1])


def test_is_not_uniform_pools_all_labels_where_no_class_was_held_out_twice():
    rng = np.random.default_rng(0)
    held_out = rng.dirichlet(np.full(20, 0.2), 15)
    even, uneven = np.full((500, 20), 0.05), np.tile(np.linspace(0, 0.1, 20) ** 3, (500, 1))
    uneven /= uneven.sum(axis=1, keepdims=True)
    assert not is_not_uniform(even, held_out, np.arange(15))
    assert is_not_uniform(uneven, held_out, np.arange(15))
    assert not is_not_uniform(uneven, held_out[:1], np.arange(1))


def held_out_predictions() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(300) % 3
    rng = np.random.default_rng(1)
    return softmax(2 * (rng.normal(size=(300, 3)) + 2 * np.eye(3)[labels]), axis=1), labels


def test_estimate_with_many_labels_is_that_of_em_and_corrects():
    folds = [predictions([0.6, 0.35, 0.05], seed) for seed in range(3)]
    found = estimate_class_prior(folds, *held_out_predictions(), few_labels=False)
    np.testing.assert_allclose(found.prior, shrunk_em_prior(folds, np.full(3, 1 / 3)))
    assert found.corrects


@pytest.mark.parametrize("prior", [[0.6, 0.35, 0.05], [1 / 3, 1 / 3, 1 / 3]])
def test_estimate_with_few_labels_is_the_mean_prediction_or_uniform(prior):
    folds = [predictions(prior, seed) for seed in range(3)]
    found = estimate_class_prior(folds, *held_out_predictions(), few_labels=True)
    uniform = prior[0] == prior[1]
    expected = np.full(3, 1 / 3) if uniform else np.mean(folds, axis=(0, 1))
    np.testing.assert_allclose(found.prior, expected)
    assert found.corrects == uniform
    assert found.prior.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("few_labels", [True, False])
def test_estimate_of_a_single_holdout_corrects_nothing(few_labels):
    found = estimate_class_prior([predictions([0.4, 0.3, 0.3], 0)], *held_out_predictions(), few_labels=few_labels)
    assert not found.corrects


def test_label_frequencies_do_not_correct():
    found = label_frequencies(np.array([0, 0, 2]), 3)
    np.testing.assert_allclose(found.prior, [2 / 3, 0, 1 / 3])
    assert not found.corrects


def test_prior_offsets_make_the_mean_probability_the_prior():
    logits = np.random.default_rng(0).normal(size=(500, 4))
    logits[:, 3] = -1e4
    prior = np.array([0.5, 0.3, 0.2, 0.0])
    offsets = prior_offsets(prior, logits)
    np.testing.assert_allclose(softmax(logits + offsets, axis=1).mean(axis=0), prior, atol=1e-6)
    assert offsets[3] == 0


def test_adjust_logits_corrects_by_the_reference_images_alone():
    rng = np.random.default_rng(0)
    logits, reference = rng.normal(size=(50, 3)), rng.normal(size=(400, 3)) + np.eye(3)[0]
    prior = np.array([0.2, 0.5, 0.3])
    adjusted = adjust_logits(logits, PriorEstimate(prior, True), reference)
    np.testing.assert_allclose(adjusted - logits, np.tile(prior_offsets(prior, reference), (50, 1)))


@pytest.mark.parametrize("corrects", [True, False])
def test_adjust_logits_without_reference_or_correction_returns_them_unchanged(corrects):
    logits = np.random.default_rng(0).normal(size=(50, 3))
    reference = np.empty((0, 3)) if corrects else logits
    assert adjust_logits(logits, PriorEstimate(np.array([0.2, 0.5, 0.3]), corrects), reference) is logits
