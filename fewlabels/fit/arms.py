"""The ways from labels to a network that a fit chooses between; each can be tried on folds of the labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from fewlabels.engine.pairs import Views
from fewlabels.engine.precision import Precision
from fewlabels.evaluate import outputs
from fewlabels.fit.finetune import layerwise, probed_head, with_head
from fewlabels.fit.loop import Loop, LoopSettings, Objective
from fewlabels.fit.objectives import Distillation, Labels, LabelSettings, SelfTraining, SelfTrainingSettings
from fewlabels.fit.pool import Pool, folds
from fewlabels.fit.stages import Stages
from fewlabels.models.classifier import Classifier
from fewlabels.models.weights import load_backbone
from fewlabels.seeding import seed_from


@dataclass(frozen=True)
class Lab:
    """What all arms work with."""

    stages: Stages
    weak: Views
    strong: Views
    seed: int
    device: torch.device
    precision: Precision

    def seed_of(self, part: str) -> int:
        """Networks that learn from different parts of the labels shall differ in all else, too."""
        return seed_from(self.seed, part)

    def fresh(self, backbone: str, pool: Pool, part: str) -> Classifier:
        """A network with fresh weights for the pool's images and classes."""
        return Classifier(backbone, pool.source.class_names, pool.source.shape[0], self.seed_of(part))

    def probed(self, backbone: str, weights: Path, pool: Pool, part: str) -> Classifier:
        """A pretrained backbone with the head that a probe learns on it."""
        network = self.fresh(backbone, pool, part)
        load_backbone(network, weights)
        return with_head(network, self.stages.array(f"head-{part}", lambda: probed_head(network, pool, self.seed)))

    def labels(self, pool: Pool, part: str, settings: LabelSettings) -> Labels:
        """The loss on the pool's labels."""
        return Labels(pool, self.strong, settings, self.seed_of(part), self.device)


@dataclass(frozen=True)
class Arm:
    """One way from a pool to a network."""

    lab: Lab
    backbone: str

    name: ClassVar[str]
    at_most: ClassVar[int] = 20_000
    """Steps."""

    def train(self, pool: Pool, part: str, seconds: float) -> Classifier:
        """A network in evaluation mode; ``part`` names which labels are in the pool."""
        return self.lab.stages.network(self.name, part, lambda: self.loop(pool, part), seconds)

    def loop(self, pool: Pool, part: str) -> Loop:
        """The training."""
        raise NotImplementedError

    def _looped(
        self,
        part: str,
        network: Classifier,
        objective: Objective,
        settings: LoopSettings,
        groups: list[dict[str, Any]] | None = None,
    ) -> Loop:
        lab = self.lab
        return Loop(network, objective, settings, self.at_most, lab.seed_of(part), groups, lab.device, lab.precision)


@dataclass(frozen=True)
class Supervised(Arm):
    """Fresh weights and labels, well trained: the baseline."""

    labels: LabelSettings = LabelSettings()
    settings: LoopSettings = LoopSettings()

    name = "supervised"
    at_most = 4000

    def loop(self, pool: Pool, part: str) -> Loop:
        network, objective = self.lab.fresh(self.backbone, pool, part), self.lab.labels(pool, part, self.labels)
        return self._looped(part, network, objective, self.settings)


@dataclass(frozen=True)
class Probe(Arm):
    """A logistic probe on frozen features, as a network."""

    weights: Path

    name = "probe"

    def train(self, pool: Pool, part: str, seconds: float) -> Classifier:
        return self.lab.probed(self.backbone, self.weights, pool, part).eval()


@dataclass(frozen=True)
class FineTune(Arm):
    """Head first, then the whole network, lower layers at lower rates."""

    weights: Path
    labels: LabelSettings = LabelSettings()
    settings: LoopSettings = LoopSettings(lr=1e-3)

    name = "finetune"
    at_most = 2000

    def loop(self, pool: Pool, part: str) -> Loop:
        network = self.lab.probed(self.backbone, self.weights, pool, part)
        groups, objective = layerwise(network, self.settings.lr), self.lab.labels(pool, part, self.labels)
        return self._looped(part, network, objective, self.settings, groups)


@dataclass(frozen=True)
class SelfTrain(Arm):
    """Labels, and the network's own predictions for the other images."""

    weights: Path | None
    """Of a pretrained backbone to begin with; None: fresh ones."""
    prior: np.ndarray
    """float [K]: shares of the classes among the other images."""
    labels: LabelSettings = LabelSettings()
    others: SelfTrainingSettings = SelfTrainingSettings()
    settings: LoopSettings = LoopSettings()

    name = "selftrain"

    def loop(self, pool: Pool, part: str) -> Loop:
        labels = self.lab.labels(pool, part, self.labels)
        objective = SelfTraining(labels, self.lab.weak, self.lab.strong, self.prior, self.others)
        if self.weights is None:
            network = self.lab.fresh(self.backbone, pool, part)
        else:
            network = self.lab.probed(self.backbone, self.weights, pool, part)
        return self._looped(part, network, objective, self.settings)


@dataclass(frozen=True)
class Student(Arm):
    """Labels, and what other networks say of the images without."""

    rows: np.ndarray
    """int64 [N] of the source."""
    targets: np.ndarray
    """float [N, K]: their probabilities."""
    labels: LabelSettings = LabelSettings()
    settings: LoopSettings = LoopSettings()
    batch_size: int = 448

    name = "student"

    def loop(self, pool: Pool, part: str) -> Loop:
        labels = self.lab.labels(pool, part, self.labels)
        objective = Distillation(labels, self.lab.strong, self.rows, self.targets, self.batch_size)
        network = self.lab.fresh(self.backbone, pool, part)
        return self._looped(part, network, objective, self.settings)


class CrossFitted(NamedTuple):
    """An arm tried on folds."""

    networks: list[Classifier]
    held: np.ndarray
    """int64 [M]: the labelled images that a fold held out, as places in ``pool.labelled``."""
    logits: np.ndarray
    """float32 [M, K]: of each by the network that has not seen it."""


def cross_fit(arm: Arm, pool: Pool, number: int, seed: int, seconds: Callable[[], float]) -> CrossFitted:
    """Train the arm once for each fold, without that fold; ``seconds`` is asked before each training."""
    networks, logits = [], []
    parts = folds(pool.labels, number, seed)
    for fold, places in enumerate(parts):
        network = arm.train(pool.without(places), f"fold-{fold}", seconds())
        networks.append(network)
        logits.append(outputs(network, pool.source.subset(pool.labelled[places])))
    return CrossFitted(networks, np.concatenate(parts), np.concatenate(logits))
