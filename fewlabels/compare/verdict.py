"""From predictions to a table, claims that hold, and one sentence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from fewlabels.compare.plan import BASELINE, Arm, Cell, CompareSettings
from fewlabels.metrics.paired_tests import Difference, fewest_pairs, holm, paired_difference, pairs_needed, verdict

SMALL = 0.005
"""A difference that lies within this on both sides makes none."""


def judged(
    settings: CompareSettings,
    predictions: Mapping[Cell, np.ndarray],
    labels: np.ndarray,
    classes: int,
    twinless: np.ndarray,
) -> dict[str, Any]:
    """The figures of a comparison, for JSON.

    The asked arm's tests are one family, over the numbers of labels; those of all other arms another. In each, p-values
    are Holm's.

    Args:
        settings: see there.
        predictions: of every cell, int64 [N].
        labels: of the test images, int64 [N]: the one place where they are read.
        classes: how many there are.
        twinless: bool [N], test images that are not among the training images as well; they have a second score.
    """
    rows = [
        _row(arm, number, _stacked(settings, predictions, arm, number), labels, twinless)
        for number in settings.labels
        for arm in settings.arms()
    ]
    differences = {
        (arm, number): paired_difference(
            _stacked(settings, predictions, arm, number),
            _stacked(settings, predictions, Arm(BASELINE), number),
            labels,
            classes,
        )
        for number in settings.labels
        for arm in settings.arms()
        if arm.name != BASELINE
    }
    asked = {key: of.p for key, of in differences.items() if key[0] == settings.asked}
    others = {key: of.p for key, of in differences.items() if key[0] != settings.asked}
    adjusted: dict[tuple[Arm, int], float] = {}
    for family in (asked, others):
        adjusted |= holm(family)
    claims = [_claim(arm, number, of, adjusted[arm, number]) for (arm, number), of in differences.items()]
    sentences = [
        sentence(differences[settings.asked, number], adjusted[settings.asked, number], number, len(asked), settings)
        for number in settings.labels
    ]
    return {"asked": settings.asked.name, "verdict": " ".join(sentences), "arms": rows, "differences": claims}


def sentence(difference: Difference, p: float, labels: int, tests: int, settings: CompareSettings) -> str:
    """What is to be said of pretraining, in plain words.

    >>> sentence(Difference(0.031, 0.019, 0.042, 0.031, 6, 0.01), 0.031, 1000, 1, CompareSettings())
    'Pretraining helps: +3.1 points (95% 1.9 to 4.2) at 1,000 labels.'
    """
    size = f"{100 * difference.mean:+.1f} points (95% {100 * difference.low:.1f} to {100 * difference.high:.1f})"
    found = verdict(difference, p)
    if found == "helps":
        return f"Pretraining helps: {size} at {labels:,} labels."
    if found == "hurts":
        return f"Pretraining does not help: {size} at {labels:,} labels; supervised training alone is better."
    enough = difference.pairs >= fewest_pairs(tests)  # an interval over few pairs is too narrow
    if enough and difference.low > -SMALL and difference.high < SMALL:
        return f"Pretraining makes no difference: {size} at {labels:,} labels."
    return (
        f"Cannot tell whether pretraining helps: {size} at {labels:,} labels, p = {p:.2f}. "
        f"{_more(difference, tests, settings)}"
    )


def audit_line(twins: np.ndarray) -> str:
    """What is to be said of test images that are among the training images, too.

    >>> audit_line(np.array([-1, 7, -1]))
    '1 of 3 test images has a twin among the training images: a second score leaves it out.'
    """
    number = int((twins >= 0).sum())
    if not number:
        return f"None of {len(twins):,} test images has a twin among the training images."
    has, them = ("has", "it") if number == 1 else ("have", "them")
    return (
        f"{number:,} of {len(twins):,} test images {has} a twin among the training images: "
        f"a second score leaves {them} out."
    )


def _more(difference: Difference, tests: int, settings: CompareSettings) -> str:
    """What it would take to know."""
    least = fewest_pairs(tests)
    if difference.pairs < least:
        number = f"{difference.pairs} pair{'' if difference.pairs == 1 else 's'}"
        return f"With {number} nothing can be claimed: {least} are needed ({_asked_for(least, settings)})."
    effect = abs(difference.mean) / difference.spread if difference.spread > 0 else float("inf")
    pairs = pairs_needed(effect, tests)
    if pairs is None:
        return "If there is a difference, it is too small to be found in 200 pairs."
    pairs = max(pairs, difference.pairs + 1)
    return f"A difference of this size would be found with {pairs} pairs ({_asked_for(pairs, settings)})."


def _asked_for(pairs: int, settings: CompareSettings) -> str:
    """Options for more pairs of the same trainings, so that those that are done count."""
    return f"--pairs {pairs} --budget {settings.budget * pairs / settings.pairs / 60:.6g}m"


def _row(arm: Arm, number: int, named: np.ndarray, labels: np.ndarray, twinless: np.ndarray) -> dict[str, Any]:
    scores = _scores(named, labels)
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    row = {"arm": arm.name, "labels": number, "macro_f1": scores, "mean": float(np.mean(scores)), "spread": spread}
    second = None if twinless.all() else float(np.mean(_scores(named[:, twinless], labels[twinless])))
    return {**row, "mean_without_twins": second}


def _scores(named: np.ndarray, labels: np.ndarray) -> list[float]:
    """Macro-F1 of each run over the classes that are tested, as :func:`paired_difference` has it."""
    tested = np.unique(labels)
    return [float(f1_score(labels, each, labels=tested, average="macro", zero_division=0)) for each in named]


def _claim(arm: Arm, number: int, difference: Difference, p: float) -> dict[str, Any]:
    about = {"arm": arm.name, "labels": number, "difference": difference.mean, "low": difference.low}
    about |= {"high": difference.high, "p": difference.p, "p_adjusted": p, "pairs": difference.pairs}
    return {**about, "verdict": verdict(difference, p)}


def _stacked(settings: CompareSettings, predictions: Mapping[Cell, np.ndarray], arm: Arm, number: int) -> np.ndarray:
    return np.stack([predictions[Cell(arm, number, pair)] for pair in range(settings.pairs)])
