"""Statistics of paired runs: differences with confidence intervals, sign-flip tests, Holm correction and power."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.stats import norm

from fewlabels._internal.seeding import seed_from

BOOTSTRAP_RESAMPLES = 2000
"""Resamples of the bootstrap. Not tuned."""
RESAMPLES_PER_BATCH = 100
"""Resamples that are computed at a time; limits memory."""
SIGNIFICANCE_LEVEL = 0.05
"""Level of all tests, by convention."""
MAX_EXACT_PAIRS = 14
"""Pairs up to which all sign flips are enumerated; with more, 2**14 flips are drawn at random."""
POWER_SIMULATIONS = 20_000
"""Simulated experiments for a power, at most."""
MAX_PAIRS = 200
"""Pairs up to which :func:`pairs_needed` searches."""

K = TypeVar("K")


@dataclass(frozen=True)
class Difference:
    """Difference of two methods in macro-F1 over the same pairs of runs."""

    mean: float
    low: float
    """Lower end of the 95% interval over pairs and test images."""
    high: float
    """Upper end of the interval."""
    p: float
    """Two-sided p-value of the sign-flip test."""
    pairs: int
    """Number of pairs."""
    spread: float
    """Standard deviation over pairs; nan for one pair."""


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0
) -> Difference:
    """Compute the difference of two methods in macro-F1, from predictions for the same test images.

    The interval is a bootstrap over pairs and test images. Both are resampled independently, since all pairs are tested
    on the same images (Owen 2007, "The pigeonhole bootstrap").

    Args:
        ours: int64 [P, N], predictions of P runs of one method.
        theirs: int64 [P, N], predictions of the other method; row by row with the same labels and seed.
        labels: int64 [N].
        classes: number of classes; macro-F1 is the mean over the classes among ``labels``.
        seed: of the bootstrap.
    """
    plain = _differences(ours, theirs, labels, classes, np.ones((1, len(labels)), np.float32))[0]
    rng = np.random.default_rng(seed_from(seed, "bootstrap"))
    means = []
    for _ in range(BOOTSTRAP_RESAMPLES // RESAMPLES_PER_BATCH):
        counts = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), RESAMPLES_PER_BATCH)
        weights = counts.astype(np.float32)
        pairs = rng.integers(0, len(plain), (RESAMPLES_PER_BATCH, len(plain)))
        means.append(np.take_along_axis(_differences(ours, theirs, labels, classes, weights), pairs, 1).mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    spread = float(plain.std(ddof=1)) if len(plain) > 1 else float("nan")
    return Difference(float(plain.mean()), float(low), float(high), sign_flip_p(plain, seed), len(plain), spread)


def _differences(
    ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray
) -> np.ndarray:
    """Differences in macro-F1, float [B, P], with test images weighted by each row of ``weights`` [B, N]."""
    eye, present = np.eye(classes, dtype=np.float32), np.unique(labels)
    truth = weights @ eye[labels]

    def scores(predictions: np.ndarray) -> np.ndarray:
        predicted = eye[predictions]
        correct = weights @ (predicted * (predictions == labels)[:, None])
        f1: np.ndarray = (2 * correct / np.maximum(weights @ predicted + truth, 1e-12))[:, present].mean(axis=1)
        return f1

    return np.stack([scores(a) - scores(b) for a, b in zip(ours, theirs, strict=True)], axis=1).astype(np.float64)


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided p-value of the sign-flip test of a zero mean (Fisher 1935, chapter 3).

    It is the fraction of all sign flips whose mean is at least as far from 0. With 3 pairs it is at least 0.25, with 6
    pairs at least 0.031.

    >>> sign_flip_p(np.array([0.1, 0.2, 0.3]))
    0.25
    """
    differences = np.asarray(differences, np.float64)  # single-precision sums depend on the order
    number = len(differences)
    if number <= MAX_EXACT_PAIRS:
        signs = 1 - 2 * (np.arange(2**number)[:, None] >> np.arange(number) & 1)
    else:
        signs = np.random.default_rng(seed_from(seed, "flips")).choice((-1, 1), (2**MAX_EXACT_PAIRS, number))
        signs[0] = 1  # the observed signs are one of the flips
    means = np.abs(signs @ differences)
    return float((means >= abs(differences.sum()) - 1e-12).mean())


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Adjust p-values for multiple tests (Holm 1979): a level then bounds the probability of any false claim.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted: dict[K, float] = {}
    highest = 0.0
    for position, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - position) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


Verdict = Literal["helps", "hurts", "cannot tell"]
"""Result of a comparison."""


def verdict(difference: Difference, p: float) -> Verdict:
    """Judge a difference: a claim needs both ``p``, adjusted for all tests, and the confidence interval."""
    if p > SIGNIFICANCE_LEVEL or difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "helps" if difference.mean > 0 else "hurts"


def power(effect: float, pairs: int, tests: int = 1) -> float:
    """Power of the sign-flip test: probability that it finds an effect, for normal differences.

    Args:
        effect: mean of the differences over their standard deviation.
        pairs: number of pairs.
        tests: number of tests in the Holm correction, of which this has the smallest p-value.
    """
    if pairs > MAX_EXACT_PAIRS:  # the power is that of a test of a normal mean
        return float(norm.sf(norm.isf(SIGNIFICANCE_LEVEL / 2 / tests) - effect * np.sqrt(pairs)))
    rng = np.random.default_rng(seed_from(0, "power", pairs))
    number = max(200, POWER_SIMULATIONS * 2**6 // 2**pairs // 8)
    drawn = rng.normal(effect, 1, (min(POWER_SIMULATIONS, number), pairs))
    return float(np.mean([sign_flip_p(each) * tests <= SIGNIFICANCE_LEVEL for each in drawn]))


def detectable_effect(pairs: int, tests: int = 1, target_power: float = 0.8) -> float:
    """Smallest effect, in standard deviations over pairs, with the target power; inf if there is none."""
    if pairs < min_pairs(tests):
        return float("inf")
    low, high = 0.0, 20.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, pairs, tests) >= target_power else (middle, high)
    return high


def min_pairs(tests: int = 1) -> int:
    """Smallest number of pairs whose Holm-adjusted p-value can be low enough for a claim.

    >>> min_pairs(), min_pairs(2)
    (6, 7)
    """
    return math.ceil(1 + math.log2(tests / SIGNIFICANCE_LEVEL))


def pairs_needed(effect: float, tests: int = 1, target_power: float = 0.8) -> int | None:
    """Smallest number of pairs that find an effect with the target power; None if ``MAX_PAIRS`` do not."""
    return next((pairs for pairs in range(2, MAX_PAIRS) if power(effect, pairs, tests) >= target_power), None)
