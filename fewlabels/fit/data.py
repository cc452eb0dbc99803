"""What a fit may learn from: images with a label, images without one, and which labels are held out when."""

from dataclasses import dataclass

import numpy as np

from fewlabels._internal.errors import InputError
from fewlabels.data.source import UNLABELLED, ArraySource
from fewlabels.data.splits import folds
from fewlabels.fit.config import SplitConfig


@dataclass(frozen=True)
class LabeledPool:
    """Rows of one source; rows in neither list are not used."""

    source: ArraySource
    labelled: np.ndarray
    """int64 [M]: rows whose labels may be used."""
    unlabelled: np.ndarray
    """int64 [U]: rows that are used without a label."""

    @classmethod
    def from_source(cls, source: ArraySource) -> "LabeledPool":
        """All images of a source.

        Raises:
            InputError: if fewer than two classes have labels.
        """
        known = source.labels != UNLABELLED
        pool = cls(source, np.flatnonzero(known), np.flatnonzero(~known))
        found = len(np.unique(pool.labels))
        if found < 2:
            which = "No class is" if not found else "Only one class is"
            raise InputError(f"{which} labelled: a classifier needs two. Label images of another class.")
        return pool

    @property
    def labels(self) -> np.ndarray:
        """int64 [M]: the class of each labelled row."""
        labels: np.ndarray = self.source.labels[self.labelled]
        return labels

    @property
    def groups(self) -> np.ndarray | None:
        """int64 [M]: the group of each labelled row; None: each image is its own group."""
        return None if self.source.groups is None else self.source.groups[self.labelled]

    @property
    def num_classes(self) -> int:
        """K; classes without a label count, too."""
        return len(self.source.class_names)

    @property
    def classes(self) -> np.ndarray:
        """int64: the classes that have labels."""
        return np.unique(self.labels)

    @property
    def labels_per_class(self) -> float:
        """Mean number of labels of the classes that have some."""
        return len(self.labelled) / len(self.classes)


@dataclass(frozen=True)
class Split:
    """Which labels are trained on, and which are held out to evaluate."""

    name: str
    """``fold-1``, ``fold-2``, ...; ``all`` where nothing is held out."""
    train: np.ndarray
    """int64: positions in ``pool.labelled``."""
    held_out: np.ndarray
    """int64: positions in ``pool.labelled``."""


def all_labels(pool: LabeledPool) -> Split:
    """The split that holds nothing out."""
    return Split("all", np.arange(len(pool.labelled)), np.empty(0, np.int64))


def make_splits(
    labels: np.ndarray, groups: np.ndarray | None, seed: int, config: SplitConfig = SplitConfig()
) -> list[Split]:
    """Folds of the labels, or one hold-out of many labels; empty where no label can be held out.

    A class is never held out whole, and a group is never divided. Of many labels a tenth is held out once, unless the
    groups do not allow a hold-out of at most a fifth that has every class.

    Args:
        labels: int64 [M].
        groups: int64 [M]; None: each image is its own group.
        seed: of the draw.
        config: see there.
    """
    if len(labels) > config.many_labels:
        parts = folds(labels, config.holdout_parts, seed, groups)
        if groups is not None:
            classes = set().union(*(labels[part] for part in parts))
            most = len(labels) * config.max_holdout_fraction
            parts = [part for part in parts if len(part) <= most and set(labels[part]) == classes]
        if parts:
            return [_split(1, labels, parts[0])]
    return [_split(number, labels, part) for number, part in enumerate(folds(labels, config.folds, seed, groups), 1)]


def _split(number: int, labels: np.ndarray, held_out: np.ndarray) -> Split:
    return Split(f"fold-{number}", np.delete(np.arange(len(labels)), held_out), held_out)
