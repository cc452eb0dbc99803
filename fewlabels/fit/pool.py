"""What a strategy may learn from: images with a label, and images without."""

from dataclasses import dataclass, field, replace

import numpy as np

from fewlabels._internal.errors import InputError
from fewlabels.data.source import UNLABELLED, ArraySource
from fewlabels.data.splits import folds

FOLDS = 3
MANY = 5000
"""Labels above which a tenth of them tells enough: it alone is held out, and the time goes to training."""


@dataclass(frozen=True)
class Pool:
    """Rows of one source; what is in no list is not looked at."""

    source: ArraySource
    labelled: np.ndarray
    """int64: rows whose labels may be used."""
    unlabelled: np.ndarray
    """int64: rows that are used without."""
    held: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """int64: rows whose labels judge, and that nothing is learned from."""

    @classmethod
    def of(cls, source: ArraySource) -> "Pool":
        """All images of a source.

        Raises:
            InputError: if there are labels of fewer than two classes.
        """
        known = source.labels != UNLABELLED
        pool = cls(source, np.flatnonzero(known), np.flatnonzero(~known))
        found = len(np.unique(pool.labels))
        if found < 2:
            raise InputError(f"{found} class{'' if found == 1 else 'es'} with labels: 2 are needed. Label or use more.")
        return pool

    @property
    def labels(self) -> np.ndarray:
        """int64, one for each labelled row."""
        labels: np.ndarray = self.source.labels[self.labelled]
        return labels

    @property
    def groups(self) -> np.ndarray | None:
        """int64, one for each labelled row; None: each is its own."""
        return None if self.source.groups is None else self.source.groups[self.labelled]

    def by_class(self) -> list[np.ndarray]:
        """Labelled rows of each class that has some."""
        return [self.labelled[self.labels == cls] for cls in np.unique(self.labels)]

    def labelled_alone(self) -> "Pool":
        """The pool of the labelled images, for who asks nothing of the others."""
        return Pool.of(self.source.subset(self.labelled))

    def without(self, places: np.ndarray) -> "Pool":
        """The pool less these places of ``labelled``, which are held out."""
        return replace(self, labelled=np.delete(self.labelled, places), held=self.labelled[places])


def held_out(labels: np.ndarray, seed: int, groups: np.ndarray | None = None) -> list[np.ndarray]:
    """Places to hold out, one part after the other: three folds, or of many labels one tenth alone.

    Groups may not be divisible so: where none of ten parts has at most a fifth of the labels, and every class that any
    of them has, there are three.
    """
    if len(labels) <= MANY:
        return folds(labels, FOLDS, seed, groups)
    tenths = folds(labels, 10, seed, groups)
    if groups is None:
        return tenths[:1]
    classes = set().union(*(labels[part] for part in tenths))
    suit = [part for part in tenths if len(part) <= len(labels) / 5 and set(labels[part]) == classes]
    return suit[:1] or folds(labels, FOLDS, seed, groups)


def is_alone(labels: np.ndarray, parts: list[np.ndarray]) -> bool:
    """Whether it is one small part of many labels that is held out; of groups the only one may be half, or of few."""
    return len(labels) > MANY and len(parts) == 1 and len(parts[0]) <= len(labels) / 5
