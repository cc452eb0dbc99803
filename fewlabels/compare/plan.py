"""Settings of a comparison: its candidates, its trials, and the time limit of each training."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fewlabels._internal.errors import InputError, refuse_unknown
from fewlabels.ssl.methods import METHODS
from fewlabels.ssl.recipes import DEFAULT_PRESET

Kind = Literal["pixels", "supervised", "probe", "finetune", "fit"]

TIME_WEIGHTS: dict[Kind | Literal["pretrain"], float] = {
    **{"pixels": 0.3, "supervised": 1.0, "probe": 0.1, "finetune": 1.0, "fit": 4.0},
    "pretrain": 5.0,
}
"""Time limit of one training of each kind, and of one pretraining, relative to the others. Not tuned."""
MIN_SUPERVISED_SECONDS = 5.0
"""Shortest time limit of a supervised training. A shorter training learns too little to compare. Not tuned."""
BASELINE: Kind = "supervised"
"""The candidate that all others are compared with."""
TRAINING_FRACTION = 0.5
"""Fraction of the budget for trainings and pretrainings. The rest is for features, cross-validation, predictions, the
search for near-duplicates and the report's images. Not tuned."""


@dataclass(frozen=True)
class Candidate:
    """A model configuration that is compared: the kind of training and the source of the initial weights."""

    kind: Kind
    init: str | None = None
    """Source of the initial backbone weights: a pretraining method, ``untrained`` (random weights) or ``own`` (the
    user's weights). None: ``kind`` alone determines the training."""

    @property
    def name(self) -> str:
        """The name in tables and files, such as ``mocov2-finetune``."""
        return self.kind if self.init is None else f"{self.init}-{self.kind}"


@dataclass(frozen=True)
class Trial:
    """One training of a candidate and its predictions for the test images."""

    candidate: Candidate
    labels: int
    """Number of labels."""
    pair: int
    """Number of the pair, from 0. It seeds the draw of labels, the initial weights, the views and the pretraining."""

    def describe(self, pairs: int) -> str:
        """A line for the user, in which pairs are counted from 1."""
        return f"{self.candidate.name}, {self.labels:,} labels, pair {self.pair + 1} of {pairs}"


@dataclass(frozen=True)
class CompareSettings:
    """Settings that, with the images, determine a comparison.

    Raises:
        InputError: if a setting is out of range, or the budget is too small for the trials.
    """

    labels: tuple[int, ...] = (1000,)
    """Numbers of labels; every candidate is trained with each."""
    pairs: int = 6
    budget: float = 3600.0
    """Seconds for the whole comparison."""
    methods: tuple[str, ...] = (DEFAULT_PRESET.settings.method,)
    """Pretraining methods. The primary hypothesis is about the first."""
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
        if self.seconds("supervised") < MIN_SUPERVISED_SECONDS:
            wanted_minutes = math.ceil(self.budget * MIN_SUPERVISED_SECONDS / self.seconds("supervised") / 60)
            raise InputError(
                f"budget {self.budget / 60:g}m: too little for {len(list(self.trials()))} trainings and "
                f"{self.pairs * len(self.methods)} pretrainings. Give --budget {wanted_minutes}m, or fewer pairs."
            )

    def candidates(self) -> list[Candidate]:
        """All candidates, the baselines first."""
        inits = [*self.methods, *(["own"] if self.weights else [])]
        pretrained = [Candidate(kind, init) for init in inits for kind in ("probe", "finetune")]
        baselines = [Candidate("pixels"), Candidate("supervised"), Candidate("probe", "untrained")]
        return [*baselines, *pretrained, Candidate("fit")]

    def pretraining_of(self, candidate: Candidate) -> str | None:
        """The method whose pretraining gives a candidate its initial weights; None without a pretraining."""
        init = self.methods[0] if candidate.kind == "fit" else candidate.init
        return init if init in self.methods else None

    @property
    def primary(self) -> Candidate:
        """The candidate of the primary hypothesis, fixed before any measurement: the first method, fine-tuned."""
        return Candidate("finetune", self.methods[0])

    @property
    def displayed_trial(self) -> Trial:
        """The trial whose classifier is saved and whose predictions the report displays."""
        return Trial(self.primary, max(self.labels), 0)

    def trials(self) -> Iterator[Trial]:
        """All trials, pair by pair, so that an interrupted comparison has complete pairs."""
        for pair in range(self.pairs):
            for labels in self.labels:
                for candidate in self.candidates():
                    yield Trial(candidate, labels, pair)

    def seconds(self, what: Kind | Literal["pretrain"]) -> float:
        """Time limit in seconds of one training of a kind, or of one pretraining.

        :meth:`~fewlabels.compare.cells.Experiment.time_limit` adds the time of a pretraining for supervised training.
        """
        weight_of_pair = len(self.methods) * TIME_WEIGHTS["pretrain"] + len(self.labels) * sum(
            TIME_WEIGHTS[candidate.kind] for candidate in self.candidates()
        )
        return TRAINING_FRACTION * self.budget / self.pairs * TIME_WEIGHTS[what] / weight_of_pair
