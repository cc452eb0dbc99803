"""What paired runs prove: differences with intervals, exact tests, and what could have been found at all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.stats import norm

from fewlabels._internal.seeding import seed_from

RESAMPLES = 2000
AT_ONCE = 100
"""Resamples that are computed together."""
LEVEL = 0.05
EXACT_UP_TO = 14
"""Pairs whose sign flips are all counted; of more, so many are drawn as they have."""
SIMULATED = 20_000
MOST_PAIRS = 200

K = TypeVar("K")


@dataclass(frozen=True)
class Difference:
    """Of two arms' macro-F1 over the same pairs."""

    mean: float
    low: float
    """Of the middle 95% over pairs and test images."""
    high: float
    p: float
    """Two-sided, by flipping signs."""
    pairs: int
    spread: float
    """Standard deviation over pairs; nan of one."""


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0
) -> Difference:
    """Of predictions for the same test images by two arms, pair by pair.

    The interval is a bootstrap over pairs and test images, each drawn again independently of the other, since all
    pairs are tested on the same images (Owen 2007, "The pigeonhole bootstrap").

    Args:
        ours: int64 [P, N], predictions of P runs.
        theirs: as ours; run by run with the same labels and seed.
        labels: int64 [N].
        classes: how many there are; the mean is over those that are among ``labels``.
        seed: of the bootstrap.
    """
    plain = _differences(ours, theirs, labels, classes, np.ones((1, len(labels)), np.float32))[0]
    rng = np.random.default_rng(seed_from(seed, "bootstrap"))
    means = []
    for _ in range(RESAMPLES // AT_ONCE):
        weights = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), AT_ONCE).astype(np.float32)
        pairs = rng.integers(0, len(plain), (AT_ONCE, len(plain)))
        means.append(np.take_along_axis(_differences(ours, theirs, labels, classes, weights), pairs, 1).mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    spread = float(plain.std(ddof=1)) if len(plain) > 1 else float("nan")
    return Difference(float(plain.mean()), float(low), float(high), sign_flip_p(plain, seed), len(plain), spread)


def _differences(
    ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray
) -> np.ndarray:
    """Of macro-F1, with test images weighted by each row of ``weights`` [B, N]: float [B, P]."""
    eye, tested = np.eye(classes, dtype=np.float32), np.unique(labels)
    truth = weights @ eye[labels]

    def scores(predictions: np.ndarray) -> np.ndarray:
        named = eye[predictions]
        right = weights @ (named * (predictions == labels)[:, None])
        of_each: np.ndarray = (2 * right / np.maximum(weights @ named + truth, 1e-12))[:, tested].mean(axis=1)
        return of_each

    return np.stack([scores(a) - scores(b) for a, b in zip(ours, theirs, strict=True)], axis=1).astype(np.float64)


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float:
    """Share of all ways to flip signs that give a mean as far from 0, or farther; two-sided (Fisher 1935, chapter 3).

    With 3 pairs it cannot be below 0.25, with 6 not below 0.031.

    >>> sign_flip_p(np.array([0.1, 0.2, 0.3]))
    0.25
    """
    differences = np.asarray(differences, np.float64)  # sums of single precision differ by their order
    number = len(differences)
    if number <= EXACT_UP_TO:
        signs = 1 - 2 * (np.arange(2**number)[:, None] >> np.arange(number) & 1)
    else:
        signs = np.random.default_rng(seed_from(seed, "flips")).choice((-1, 1), (2**EXACT_UP_TO, number))
        signs[0] = 1  # what was seen is one of them
    means = np.abs(signs @ differences)
    return float((means >= abs(differences.sum()) - 1e-12).mean())


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Adjusted p-values: any of them below a level is a claim, and one false claim among all is as rare (Holm 1979).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted: dict[K, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


Verdict = Literal["helps", "hurts", "cannot tell"]


def verdict(difference: Difference, p: float) -> Verdict:
    """A claim needs the test and the interval; ``p`` is the difference's, adjusted for all that were tested."""
    if p > LEVEL or difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "helps" if difference.mean > 0 else "hurts"


def power(effect: float, pairs: int, tests: int = 1) -> float:
    """Chance that a sign-flip test finds an effect, in standard deviations over pairs, that are normal.

    Args:
        effect: mean over standard deviation.
        pairs: how many.
        tests: of how many this is the smallest p-value, for Holm's first step.
    """
    if pairs > EXACT_UP_TO:  # then the test is as strong as that of a normal mean
        return float(norm.sf(norm.isf(LEVEL / 2 / tests) - effect * np.sqrt(pairs)))
    rng = np.random.default_rng(seed_from(0, "power", pairs))
    number = max(200, SIMULATED * 2**6 // 2**pairs // 8)
    drawn = rng.normal(effect, 1, (min(SIMULATED, number), pairs))
    return float(np.mean([sign_flip_p(each) * tests <= LEVEL for each in drawn]))


def detectable(pairs: int, tests: int = 1, wanted: float = 0.8) -> float:
    """The smallest effect, in standard deviations over pairs, that is found with the wanted chance; inf if none is."""
    if pairs < fewest_pairs(tests):
        return float("inf")
    low, high = 0.0, 20.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, pairs, tests) >= wanted else (middle, high)
    return high


def fewest_pairs(tests: int = 1) -> int:
    """With fewer no p-value, adjusted for so many tests, is low enough for a claim.

    >>> fewest_pairs(), fewest_pairs(2)
    (6, 7)
    """
    return math.ceil(1 + math.log2(tests / LEVEL))


def pairs_needed(effect: float, tests: int = 1, wanted: float = 0.8) -> int | None:
    """The fewest pairs that find an effect with the wanted chance; None if ``MOST_PAIRS`` do not."""
    return next((pairs for pairs in range(2, MOST_PAIRS) if power(effect, pairs, tests) >= wanted), None)
