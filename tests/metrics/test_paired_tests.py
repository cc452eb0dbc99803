import numpy as np
import pytest
from scipy.stats import permutation_test, wilcoxon
from sklearn.metrics import f1_score

from fewlabels.metrics.paired_tests import (
    Difference,
    detectable_effect,
    holm,
    paired_difference,
    pairs_needed,
    power,
    sign_flip_p,
    verdict,
)


def runs(rate: float, pairs: int, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Predictions of which a fraction ``rate`` is correct; the others are random among three classes."""
    guessed = rng.integers(0, 3, (pairs, len(labels)))
    return np.where(rng.random((pairs, len(labels))) < rate, labels, guessed)


def test_paired_difference_is_the_difference_of_macro_f1():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 400, p=[0.6, 0.3, 0.1])
    ours, theirs = runs(0.7, 6, labels, rng), runs(0.5, 6, labels, rng)
    found = paired_difference(ours, theirs, labels, 3)
    by_hand = [
        f1_score(labels, a, average="macro") - f1_score(labels, b, average="macro")
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert found.mean == pytest.approx(np.mean(by_hand), abs=1e-6)
    assert found.spread == pytest.approx(np.std(by_hand, ddof=1), abs=1e-6)
    assert found.low < found.mean < found.high
    assert (found.p, found.pairs) == (2 / 64, 6)


def test_paired_difference_interval_equals_bootstrap_by_loops():
    """The bootstrap resamples both pairs and images."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 120)
    ours, theirs = runs(0.8, 4, labels, rng), runs(0.7, 4, labels, rng)
    found = paired_difference(ours, theirs, labels, 3)
    means = []
    for _ in range(300):
        images, pairs = rng.integers(0, 120, 120), rng.integers(0, 4, 4)
        means.append(
            np.mean(
                [
                    f1_score(labels[images], ours[p][images], average="macro")
                    - f1_score(labels[images], theirs[p][images], average="macro")
                    for p in pairs
                ]
            )
        )
    np.testing.assert_allclose([found.low, found.high], np.percentile(means, [2.5, 97.5]), atol=0.02)


def test_sign_flip_p_agrees_with_scipy():
    differences = np.array([0.3, -0.1, 0.5, 0.2, 0.7, 0.4])
    theirs = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue)
    assert sign_flip_p(np.arange(1.0, 7)) == wilcoxon(np.arange(1.0, 7)).pvalue == 2 / 64
    many = np.random.default_rng(0).normal(0.3, 1, 40)
    drawn = permutation_test((many,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0)
    assert sign_flip_p(many) == pytest.approx(drawn.pvalue, abs=0.01)


@pytest.mark.parametrize("pairs", [2, 3, 6])
def test_sign_flip_p_is_not_smaller_in_single_precision(pairs):
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert sign_flip_p(rng.normal(0.1, 0.1, pairs).astype(np.float32)) >= 2 / 2**pairs


def test_holm_by_hand():
    assert holm({"a": 0.02, "b": 0.001, "c": 0.5, "d": 0.03}) == pytest.approx(
        {"b": 0.004, "a": 0.06, "d": 0.06, "c": 0.5}
    )


@pytest.mark.parametrize(
    ("mean", "low", "high", "p", "expected"),
    [
        (0.03, 0.01, 0.05, 0.03, "helps"),
        (-0.03, -0.05, -0.01, 0.03, "hurts"),
        (0.03, 0.01, 0.05, 0.06, "cannot tell"),
        (0.03, -0.01, 0.05, 0.03, "cannot tell"),
    ],
)
def test_verdict_needs_p_value_and_interval(mean, low, high, p, expected):
    assert verdict(Difference(mean, low, high, p, 6, 0.01), p) == expected


def test_verdict_rarely_claims_a_difference_between_equal_methods(monkeypatch):
    """200 comparisons of 6 pairs, whose accuracies vary by pair and method with equal means."""
    monkeypatch.setattr("fewlabels.metrics.paired_tests.BOOTSTRAP_RESAMPLES", 400)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    helped = 0
    for _ in range(200):
        rates = 0.75 + rng.normal(0, 0.02, (2, 6, 1))
        ours, theirs = (np.concatenate([runs(float(r[0]), 1, labels, rng) for r in method]) for method in rates)
        found = paired_difference(ours, theirs, labels, 3)
        helped += verdict(found, found.p) == "helps"
    assert helped <= 10


@pytest.mark.parametrize("pairs", [6, 10, 20])
def test_detectable_effect_is_found_with_the_target_power(pairs):
    effect = detectable_effect(pairs)
    rng = np.random.default_rng(7)
    found = np.mean([sign_flip_p(rng.normal(effect, 1, pairs)) <= 0.05 for _ in range(400)])
    assert found == pytest.approx(0.8, abs=0.08)
    assert power(0.0, pairs) <= 0.06


def test_detectable_effect_is_infinite_with_too_few_pairs():
    assert detectable_effect(5) == float("inf")
    assert detectable_effect(6, tests=2) == float("inf")
    assert detectable_effect(7, tests=2) < float("inf")


def test_pairs_needed_is_the_smallest_number_with_the_target_power():
    pairs = pairs_needed(1.0)
    assert pairs is not None
    assert power(1.0, pairs) >= 0.8 > power(1.0, pairs - 1)
    assert pairs_needed(0.01) is None
