"""Which of several ways is taken, by what they gave on labels held out."""

from collections.abc import Mapping

import numpy as np

from fewlabels.fit.cross_fit import RARE, CrossFitted
from fewlabels.fit.estimate import sums_by_group

SURE = 2.0
"""Standard errors by which a pretrained backbone has to be better than fresh weights."""


def is_right(fitted: CrossFitted) -> np.ndarray:
    """Whether each held-out label was named: bool [M]."""
    right: np.ndarray = fitted.held_logits.argmax(axis=1) == fitted.held_labels
    return right


def preferred(scores: Mapping[str, float], tried: Mapping[str, CrossFitted]) -> list[str]:
    """Best first; of equals the one that was tried first. The standard error of a difference decides three things.

    - A pretrained backbone counts as no better than fresh weights until it is better by two of it: few labels are soon
      fooled, and fresh weights are the baseline that nothing may fall below.
    - All experts together are taken before kernel ridge, or labels that spread, alone, unless they are worse by more:
      whose folds are luckier on a hundred labels says little.
    - Self-training is taken unless it is worse by more. On the folds it has a small part of the time that it is given
      when it is chosen; the others gave there nearly all that they have.
    """

    def error(one: str, other: str) -> float:
        differs = is_right(tried[one]).astype(int) - is_right(tried[other])
        # Of a rare class each image counts more, as it does in macro-F1.
        _, classes, counts = np.unique(tried[one].held_labels, return_inverse=True, return_counts=True)
        apart = sums_by_group(differs / counts[classes], tried[one].held_groups)
        # One more is added that differs, since two that name the same few images right may be apart on others.
        return float(np.sqrt(np.square(apart).sum() + np.square(1 / counts).mean()) / len(counts))

    counted = dict(scores)
    for name in ("probe", "finetune"):
        if name in scores and scores[name] <= scores["supervised"] + SURE * error(name, "supervised"):
            counted[name] = min(scores[name], scores["supervised"])
    ordered = sorted(counted, key=lambda name: -counted[name])  # stable

    def is_near(name: str, better: str) -> bool:
        return name in tried and scores[name] >= scores[better] - error(name, better)

    best, next_best = ordered[0], next(name for name in ordered if name != "selftrain")
    if next_best in ("kernel", "propagate") and is_near("committee", next_best):
        ordered.remove("committee")
        ordered.insert(ordered.index(next_best), "committee")
    if is_near("selftrain", best):
        ordered.remove("selftrain")
        ordered.insert(0, "selftrain")
    return ordered


def heard(weights: Mapping[str, float]) -> list[str]:
    """The experts that have a say."""
    return [name for name, weight in weights.items() if weight > 0 and name != RARE]
