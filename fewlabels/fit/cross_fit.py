"""What an arm says on folds of the labels, and several arms together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fewlabels.fit.arms import Arm
from fewlabels.fit.calibration import pool_weights, rarity
from fewlabels.fit.pool import Pool

RARE = "rare"
"""Among experts: the class whose labels are few."""
NEVER = -1e4
"""The logit of a class that has no label."""


@dataclass(frozen=True)
class CrossFitted:
    """What was said of every image, fold by fold."""

    pool: Pool
    parts: list[np.ndarray]
    """int64: the labelled images that each fold held out, as places in ``pool.labelled``."""
    logits: list[np.ndarray]
    """Of every image of the source by each fold, float32 [N, K]; nan of those that it was not asked of."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the experts that these logits are pooled from, and of ``RARE``."""
    of_folds: Sequence[Mapping[str, float]] = ()
    """The same for each fold, by what the others held out."""

    @cached_property
    def held(self) -> np.ndarray:
        """int64 [M]: places in ``pool.labelled``."""
        return np.concatenate(self.parts)

    @cached_property
    def held_logits(self) -> np.ndarray:
        """float32 [M, K]: of each held-out image, by who has not seen its label; ``NEVER`` of a class without any."""
        pairs = zip(self.logits, self.parts, strict=True)
        held = np.concatenate([logits[self.pool.labelled[places]] for logits, places in pairs])
        return of_known(held, self.pool.labels)

    @property
    def held_labels(self) -> np.ndarray:
        """int64 [M]."""
        labels: np.ndarray = self.pool.labels[self.held]
        return labels

    @property
    def held_groups(self) -> np.ndarray | None:
        """int64 [M]; None: each image is its own."""
        return None if self.pool.groups is None else self.pool.groups[self.held]


def of_known(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A copy of logits [N, K], ``NEVER`` of a class that none of the labels names."""
    known = logits.copy()
    known[:, np.setdiff1d(np.arange(logits.shape[1]), labels)] = NEVER
    return known


def cross_fit(
    arm: Arm, pool: Pool, parts: list[np.ndarray], seconds: Callable[[], float], of_all: bool = True
) -> CrossFitted:
    """Use the arm once for each part that is held out, without its labels.

    Args:
        arm: what is tried.
        pool: all labels that may be used.
        parts: places in ``pool.labelled``.
        seconds: is asked before each part.
        of_all: whether the arm is asked of all images, or of those that are held out.
    """
    logits = []
    for fold, places in enumerate(parts):
        rows = None if of_all else pool.labelled[places]
        logits.append(arm.logits(pool.without(places), f"fold-{fold}", seconds(), rows))
    return CrossFitted(pool, parts, logits)


def pooled(experts: Mapping[str, CrossFitted]) -> CrossFitted:
    """All of them as one, each as much as it helps on held-out images; calibrated, and no class at a disadvantage.

    What a fold says is weighed by what the others held out, so that its own labels judge the weights, too. A part that
    is held out alone is large enough for both.
    """
    first = next(iter(experts.values()))
    rare = rarity(first.pool.labels, first.logits[0].shape[1])
    known = np.unique(first.pool.labels)
    fold_of = np.repeat(np.arange(len(first.parts)), [len(part) for part in first.parts])

    def weights_by(held: np.ndarray) -> dict[str, float]:
        said = [expert.held_logits[held][:, known] for expert in experts.values()]
        weights, of_rare = pool_weights(said, np.searchsorted(known, first.held_labels[held]), rare[known])
        return dict(zip(experts, weights.tolist(), strict=True)) | {RARE: of_rare}

    by_all = weights_by(np.ones(len(fold_of), bool))
    folds = range(len(first.parts))
    of_folds = [by_all if len(folds) == 1 else weights_by(fold_of != fold) for fold in folds]
    logits = [
        weighted({name: of.logits[fold] for name, of in experts.items()} | {RARE: rare}, of_folds[fold])
        for fold in folds
    ]
    return CrossFitted(first.pool, first.parts, logits, by_all, of_folds)


def weighted(logits: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """The sum, float32 [N, K]."""
    total: np.ndarray = sum(weights[name] * of_one for name, of_one in logits.items())  # type: ignore[assignment]
    return total.astype(np.float32)
