"""What a comparison consists of, and what it may take."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fewlabels._internal.errors import InputError, refuse_unknown
from fewlabels.ssl.methods import METHODS
from fewlabels.ssl.recipes import DEFAULT

Kind = Literal["pixels", "supervised", "probe", "finetune", "fit"]

WEIGHTS: dict[Kind | Literal["pretrain"], float] = {
    **{"pixels": 0.3, "supervised": 1.0, "probe": 0.1, "finetune": 1.0, "fit": 4.0},
    "pretrain": 5.0,
}
"""What each may take of the time, relative to the others."""
LEAST_SECONDS = 5.0
"""Of a supervised training; in less it learns nothing worth a comparison."""
BASELINE: Kind = "supervised"
TRAINING = 0.5
"""Share of the budget that is planned; the rest is for features, cross-validation, predictions, audit and pictures."""


@dataclass(frozen=True)
class Arm:
    """One way from images and labels to a classifier."""

    kind: Kind
    start: str | None = None
    """What its backbone comes from: a method, ``untrained``, ``own`` (the user's weights); None: nothing to tell."""

    @property
    def name(self) -> str:
        """As tables have it: ``mocov2-finetune``."""
        return self.kind if self.start is None else f"{self.start}-{self.kind}"


@dataclass(frozen=True)
class Cell:
    """One training and its predictions."""

    arm: Arm
    labels: int
    pair: int
    """The seed of label draw, initial weights, views and pretraining."""

    def words(self, pairs: int) -> str:
        """For the reader, who counts from one."""
        return f"{self.arm.name}, {self.labels:,} labels, pair {self.pair + 1} of {pairs}"


@dataclass(frozen=True)
class CompareSettings:
    """What decides a comparison, together with the images."""

    labels: tuple[int, ...] = (1000,)
    pairs: int = 6
    budget: float = 3600.0
    """Seconds for all."""
    methods: tuple[str, ...] = (DEFAULT.settings.method,)
    """The first is the one that the verdict is about."""
    backbone: str = "article"
    weights: str | None = None
    """The user's own pretrained backbone, a safetensors file."""

    def __post_init__(self) -> None:
        for method in self.methods:
            refuse_unknown("method", method, METHODS)
        for name, fits, wanted in (
            ("labels", all(n >= 2 for n in self.labels) and self.labels, "2 or more, each"),
            ("labels", len(set(self.labels)) == len(self.labels), "different numbers"),
            ("methods", self.methods and len(set(self.methods)) == len(self.methods), "one or more, each once"),
            ("pairs", self.pairs >= 1, "1 or more"),
            ("budget", 0 < self.budget < math.inf, "above 0"),
        ):
            if not fits:
                raise InputError(f"{name} {getattr(self, name)}: must be {wanted}.")
        if self.seconds("supervised") < LEAST_SECONDS:
            wanted_minutes = math.ceil(self.budget * LEAST_SECONDS / self.seconds("supervised") / 60)
            raise InputError(
                f"budget {self.budget / 60:g}m: too little for {len(list(self.cells()))} trainings and "
                f"{self.pairs * len(self.methods)} pretrainings. Give --budget {wanted_minutes}m, or fewer pairs."
            )

    def arms(self) -> list[Arm]:
        """All of them, the baselines first."""
        starts = [*self.methods, *(["own"] if self.weights else [])]
        learned = [Arm(kind, start) for start in starts for kind in ("probe", "finetune")]
        return [Arm("pixels"), Arm("supervised"), Arm("probe", "untrained"), *learned, Arm("fit")]

    def pretraining_of(self, arm: Arm) -> str | None:
        """The method whose pretraining an arm begins with, if any."""
        start = self.methods[0] if arm.kind == "fit" else arm.start
        return start if start in self.methods else None

    @property
    def asked(self) -> Arm:
        """The arm that the verdict is about, named before anything is measured."""
        return Arm("finetune", self.methods[0])

    @property
    def shown(self) -> Cell:
        """The one whose classifier is kept, for the pictures."""
        return Cell(self.asked, max(self.labels), 0)

    def cells(self) -> Iterator[Cell]:
        """Pair by pair, so that what is stopped leaves whole pairs."""
        for pair in range(self.pairs):
            for labels in self.labels:
                for arm in self.arms():
                    yield Cell(arm, labels, pair)

    def seconds(self, what: Kind | Literal["pretrain"]) -> float:
        """What one of them may take.

        A supervised network may take as long as a pretrained one with its pretraining; it seldom needs to.
        """
        of_a_pair = len(self.methods) * WEIGHTS["pretrain"] + len(self.labels) * sum(
            WEIGHTS[arm.kind] for arm in self.arms()
        )
        return TRAINING * self.budget / self.pairs * WEIGHTS[what] / of_a_pair
