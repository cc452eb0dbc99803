"""Statistics of a comparison: scores, paired differences, and a verdict in one sentence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from fewlabels.compare.plan import BASELINE, Candidate, CompareSettings, Trial
from fewlabels.metrics.paired_tests import Difference, holm, min_pairs, paired_difference, pairs_needed, verdict

EQUIVALENCE_MARGIN = 0.005
"""Difference of macro-F1 that counts as none: both ends of the confidence interval lie within it. Not tuned."""


def evaluate_trials(
    settings: CompareSettings,
    predictions: Mapping[Trial, np.ndarray],
    labels: np.ndarray,
    classes: int,
    unique: np.ndarray,
) -> dict[str, Any]:
    """Scores, differences to the baseline and the verdict, as JSON.

    The primary candidate's tests, one for each number of labels, form one family. The tests of all other candidates
    form a second one. P-values are adjusted within a family (Holm 1979).

    Args:
        settings: of the comparison.
        predictions: for every trial the predicted class of each test image, int64 [N].
        labels: int64 [N], of the test images.
        classes: number of classes.
        unique: bool [N], test images without a near-duplicate among the training images, for a second score.
    """
    scores = [
        _score_row(candidate, number, _stack_pairs(settings, predictions, candidate, number), labels, unique)
        for number in settings.labels
        for candidate in settings.candidates()
    ]
    differences = {
        (candidate, number): paired_difference(
            _stack_pairs(settings, predictions, candidate, number),
            _stack_pairs(settings, predictions, Candidate(BASELINE), number),
            labels,
            classes,
        )
        for number in settings.labels
        for candidate in settings.candidates()
        if candidate.name != BASELINE
    }
    primary = {key: difference.p for key, difference in differences.items() if key[0] == settings.primary}
    others = {key: difference.p for key, difference in differences.items() if key[0] != settings.primary}
    adjusted: dict[tuple[Candidate, int], float] = {}
    for family in (primary, others):
        adjusted |= holm(family)
    claims = [
        _claim(candidate, number, difference, adjusted[candidate, number])
        for (candidate, number), difference in differences.items()
    ]
    sentences = [
        verdict_sentence(
            differences[settings.primary, number], adjusted[settings.primary, number], number, len(primary), settings
        )
        for number in settings.labels
    ]
    return {
        "primary": settings.primary.name,
        "verdict": " ".join(sentences),
        "scores": scores,
        "differences": claims,
    }


def verdict_sentence(difference: Difference, p: float, labels: int, tests: int, settings: CompareSettings) -> str:
    """One sentence that says whether pretraining helps.

    Args:
        difference: of the primary candidate to the baseline.
        p: adjusted p-value of the difference.
        labels: number of labels.
        tests: number of tests of the primary hypothesis.
        settings: of the comparison.

    >>> verdict_sentence(Difference(0.031, 0.019, 0.042, 0.031, 6, 0.01), 0.031, 1000, 1, CompareSettings())
    'Pretraining helps: +3.1 points (95% 1.9 to 4.2) at 1,000 labels.'
    """
    size = f"{100 * difference.mean:+.1f} points (95% {100 * difference.low:.1f} to {100 * difference.high:.1f})"
    found = verdict(difference, p)
    if found == "helps":
        return f"Pretraining helps: {size} at {labels:,} labels."
    if found == "hurts":
        return f"Pretraining does not help: {size} at {labels:,} labels; supervised training alone is better."
    enough = difference.pairs >= min_pairs(tests)  # the bootstrap interval of few pairs is too narrow
    if enough and difference.low > -EQUIVALENCE_MARGIN and difference.high < EQUIVALENCE_MARGIN:
        return f"Pretraining makes no difference: {size} at {labels:,} labels."
    return (
        f"Cannot tell whether pretraining helps: {size} at {labels:,} labels, p = {p:.2f}. "
        f"{_pairs_advice(difference, tests, settings)}"
    )


def audit_line(near_duplicates: np.ndarray) -> str:
    """A sentence with the number of test images that have a near-duplicate among the training images.

    Args:
        near_duplicates: int64 [N], as :meth:`~fewlabels.compare.cells.Experiment.near_duplicates` returns them.

    >>> audit_line(np.array([-1, 7, -1]))
    '1 of 3 test images has a near-duplicate among the training images: a second score leaves it out.'
    """
    number = int((near_duplicates >= 0).sum())
    if not number:
        return f"None of {len(near_duplicates):,} test images has a near-duplicate among the training images."
    has, them = ("has", "it") if number == 1 else ("have", "them")
    return (
        f"{number:,} of {len(near_duplicates):,} test images {has} a near-duplicate among the training images: "
        f"a second score leaves {them} out."
    )


def _pairs_advice(difference: Difference, tests: int, settings: CompareSettings) -> str:
    """A sentence with the number of pairs that could settle an open question."""
    least = min_pairs(tests)
    if difference.pairs < least:
        number = f"{difference.pairs} pair{'' if difference.pairs == 1 else 's'}"
        return f"With {number} nothing can be claimed: {least} are needed ({_options_for(least, settings)})."
    effect = abs(difference.mean) / difference.spread if difference.spread > 0 else float("inf")
    pairs = pairs_needed(effect, tests)
    if pairs is None:
        return "If there is a difference, it is too small to be found in 200 pairs."
    pairs = max(pairs, difference.pairs + 1)
    return f"A difference of this size would be found with {pairs} pairs ({_options_for(pairs, settings)})."


def _options_for(pairs: int, settings: CompareSettings) -> str:
    """Command-line options for more pairs. The time per training stays the same, so finished trials are reused."""
    return f"--pairs {pairs} --budget {settings.budget * pairs / settings.pairs / 60:.6g}m"


def _score_row(
    candidate: Candidate, number: int, predictions: np.ndarray, labels: np.ndarray, unique: np.ndarray
) -> dict[str, Any]:
    """Scores of a candidate from its predictions int64 [P, N], as JSON."""
    scores = _macro_f1(predictions, labels)
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    # documents.py reads the key "arm" of benchmarks/results/compare.json.
    row = {"arm": candidate.name, "labels": number, "macro_f1": scores, "mean": float(np.mean(scores))}
    second = None if unique.all() else float(np.mean(_macro_f1(predictions[:, unique], labels[unique])))
    return {**row, "spread": spread, "mean_without_near_duplicates": second}


def _macro_f1(predictions: np.ndarray, labels: np.ndarray) -> list[float]:
    """Macro-F1 of each pair over the classes that have test images, as in :func:`paired_difference`."""
    tested = np.unique(labels)
    return [float(f1_score(labels, each, labels=tested, average="macro", zero_division=0)) for each in predictions]


def _claim(candidate: Candidate, number: int, difference: Difference, p: float) -> dict[str, Any]:
    """A difference to the baseline with its verdict, as JSON."""
    about = {"arm": candidate.name, "labels": number, "difference": difference.mean, "low": difference.low}
    about |= {"high": difference.high, "p": difference.p, "p_adjusted": p, "pairs": difference.pairs}
    return {**about, "verdict": verdict(difference, p)}


def _stack_pairs(
    settings: CompareSettings, predictions: Mapping[Trial, np.ndarray], candidate: Candidate, number: int
) -> np.ndarray:
    """Predictions int64 [P, N] of a candidate in all pairs."""
    return np.stack([predictions[Trial(candidate, number, pair)] for pair in range(settings.pairs)])
