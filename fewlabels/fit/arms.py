"""The ways from labels to what is said of every image that a fit chooses between; each can be tried on folds."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from fewlabels._internal.seeding import seed_from
from fewlabels.backbones.classifier import MIRRORED, SHIFTED, Classifier
from fewlabels.backbones.inference import TRIED, outputs, seconds_an_image
from fewlabels.backbones.weights import load_backbone
from fewlabels.data.source import digest, evenly_spaced
from fewlabels.features.extractor import Features
from fewlabels.fit.finetune import layerwise, probed_head, with_head
from fewlabels.fit.kernel import KernelRidge, kernel_ridge
from fewlabels.fit.objectives import Distillation, Labels, LabelSettings, SelfTraining, SelfTrainingSettings, smoothed
from fewlabels.fit.pool import Pool
from fewlabels.fit.propagation import propagated
from fewlabels.fit.stages import Stages
from fewlabels.training.pairs import Views
from fewlabels.training.precision import Precision
from fewlabels.training.trainer import Loop, LoopSettings, Objective

GOES_ON = 1 / 4
"""Of the learning rate, where a training goes on from a network that knows fewer labels."""
MOST_LABELS = 5000
"""That a kernel learns from: time grows with the third power."""


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

    def fresh(self, backbone: str, pool: Pool, part: str, start: Classifier | None = None) -> Classifier:
        """A network for the pool's images and classes, with fresh weights or those of another."""
        network = Classifier(backbone, pool.source.class_names, pool.source.shape[0], self.seed_of(part))
        if start is not None:
            network.load_state_dict(start.state_dict())
        return network.to(self.device)

    def probed(self, backbone: str, weights: Path, pool: Pool, part: str) -> Classifier:
        """A pretrained backbone with the head that a probe learns on it."""
        network = self.fresh(backbone, pool, part)
        load_backbone(network, weights)
        return with_head(network, self.stages.array(f"head-{part}", lambda: probed_head(network, pool, self.seed)))

    def labels(self, pool: Pool, part: str, settings: LabelSettings) -> Labels:
        """The loss on the pool's labels."""
        return Labels(pool, self.weak, self.strong, settings, self.seed_of(part), self.device)


def placed(logits: np.ndarray, rows: np.ndarray, images: int) -> np.ndarray:
    """Logits [R, K] of some rows in those of all images: float32 [N, K], nan elsewhere."""
    whole = np.full((images, logits.shape[1]), np.nan, np.float32)
    whole[rows] = logits
    return whole


@dataclass(frozen=True)
class Arm:
    """One way from a pool to logits of every image of its source."""

    lab: Lab

    name: ClassVar[str]

    def logits(self, pool: Pool, part: str, seconds: float, rows: np.ndarray | None = None) -> np.ndarray:
        """Float32 [N, K], nan in other rows than those that are asked for; None: all are.

        ``part`` names which labels are in the pool.
        """

        def said() -> np.ndarray:
            asked = self._logits(pool, part, seconds, rows)
            return asked if rows is None else placed(asked, rows, len(pool.source))

        return self.lab.stages.array(f"{self.name}-{part}-of-{'all' if rows is None else 'some'}", said)

    def of_rows(self, pool: Pool, part: str, rows: np.ndarray) -> np.ndarray:
        """Float32 [R, K] of these rows alone, by what has learned from the part already."""
        kept_as = f"{self.name}-{part}-of-{digest(rows.tobytes())[:8]}"
        return self.lab.stages.array(kept_as, lambda: self._logits(pool, part, 0.0, rows))

    def asked(self, part: str) -> bool:
        """Whether it has been asked of all images."""
        return self.lab.stages.has(f"{self.name}-{part}-of-all")

    def seconds_to_ask(self, pool: Pool, part: str) -> float:
        """Seconds to ask it of all images, by plan or a trial of some; without what it takes to learn the labels.

        Args:
            pool: of the part.
            part: which it has learned from.
        """
        raise NotImplementedError

    def _logits(self, pool: Pool, part: str, seconds: float, rows: np.ndarray | None) -> np.ndarray:
        """Of the rows that are asked for, in their order; None: of all."""
        raise NotImplementedError


@dataclass(frozen=True)
class Kernel(Arm):
    """Kernel ridge on features that no training made."""

    features: Features

    name = "kernel"

    def _logits(self, pool: Pool, part: str, seconds: float, rows: np.ndarray | None) -> np.ndarray:
        spread = evenly_spaced(pool.labelled, MOST_LABELS)
        seen, groups = self.features.of(pool.labelled[spread]), None if pool.groups is None else pool.groups[spread]
        ridge = kernel_ridge(seen, pool.labels[spread], len(pool.source.class_names), groups)
        rows = np.arange(len(pool.source)) if rows is None else rows
        return np.concatenate([ridge.scores(self.features.of(part)) for part in self.features.parts(rows)])

    def seconds_to_ask(self, pool: Pool, part: str) -> float:
        """See :class:`Arm`."""
        labels = min(len(pool.labels), MOST_LABELS)

        def tried() -> float:
            some = evenly_spaced(pool.source, TRIED)
            nothing = np.zeros((labels, len(pool.source.class_names)))
            ridge = KernelRidge(self.features.of(pool.labelled[:labels]), 1.0, nothing)
            began = time.perf_counter()
            ridge.scores(self.features.of(some))
            return (time.perf_counter() - began) / (len(some) * labels)

        return len(pool.source) * labels * self.lab.stages.pace("kernel", tried)


@dataclass(frozen=True)
class Propagate(Arm):
    """Labels spread along the graph of neighbours."""

    features: Features

    name = "propagate"

    def _logits(self, pool: Pool, part: str, seconds: float, rows: np.ndarray | None) -> np.ndarray:
        spread = propagated(self.features.graph, pool.labelled, pool.labels, len(pool.source.class_names))
        return spread if rows is None else spread[rows]

    def seconds_to_ask(self, pool: Pool, part: str) -> float:
        """See :class:`Arm`."""
        return 0.0  # labels spread to all images at once


@dataclass(frozen=True)
class NetworkArm(Arm):
    """One that ends in a network."""

    backbone: str

    at_most: ClassVar[int] = 20_000
    """Steps."""
    test_views: ClassVar[int] = SHIFTED
    """Its network's :attr:`Classifier.test_views`."""
    asked_at: ClassVar[str] = "image"
    """The pace that it is asked at, of one view."""

    def _logits(self, pool: Pool, part: str, seconds: float, rows: np.ndarray | None) -> np.ndarray:
        network, half = self.train(pool, part, seconds), self.lab.precision == "bf16-mixed"
        return outputs(network, pool.source if rows is None else pool.source.subset(rows), half)

    def seconds_to_ask(self, pool: Pool, part: str) -> float:
        """See :class:`Arm`."""
        views = max(1, self.test_views)

        def tried() -> float:
            network = self.train(pool, part, 0.0)
            return seconds_an_image(network, pool.source, self.lab.precision == "bf16-mixed") / views

        return len(pool.source) * views * self.lab.stages.pace(self.asked_at, tried)

    def train(self, pool: Pool, part: str, seconds: float) -> Classifier:
        """A network in evaluation mode; ``part`` names which labels are in the pool."""
        network = self._trained(pool, part, seconds)
        network.test_views = self.test_views
        return network

    def _trained(self, pool: Pool, part: str, seconds: float) -> Classifier:
        return self.lab.stages.network(self.name, part, lambda: self.loop(pool, part), seconds)

    def steps_in(self, pool: Pool, part: str, seconds: float) -> int:
        """So many are done in this time."""
        return self.lab.stages.steps_in(self.name, lambda: self.loop(pool, part), seconds)

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
class Supervised(NetworkArm):
    """Fresh weights and labels, well trained: the baseline."""

    labels: LabelSettings = LabelSettings()
    settings: LoopSettings = LoopSettings()
    start: Classifier | None = None
    """One that knows fewer labels: the training goes on from its weights, at a lower rate."""

    name = "supervised"

    def loop(self, pool: Pool, part: str) -> Loop:
        network = self.lab.fresh(self.backbone, pool, part, self.start)
        settings = self.settings if self.start is None else replace(self.settings, lr=GOES_ON * self.settings.lr)
        return self._looped(part, network, self.lab.labels(pool, part, self.labels), settings)


@dataclass(frozen=True)
class Probe(NetworkArm):
    """A logistic probe on frozen features, as a network."""

    weights: Path

    name = "probe"
    test_views = 0  # its head has seen plain images alone

    def _trained(self, pool: Pool, part: str, seconds: float) -> Classifier:
        return self.lab.probed(self.backbone, self.weights, pool, part).eval()


@dataclass(frozen=True)
class FineTune(NetworkArm):
    """Head first, then the whole network, lower layers at lower rates."""

    weights: Path
    labels: LabelSettings = LabelSettings()
    settings: LoopSettings = LoopSettings(lr=1e-3)
    start: Classifier | None = None
    """As :class:`Supervised` has it."""

    name = "finetune"
    at_most = 2000

    def loop(self, pool: Pool, part: str) -> Loop:
        if self.start is None:
            network, lr = self.lab.probed(self.backbone, self.weights, pool, part), self.settings.lr
        else:
            network, lr = self.lab.fresh(self.backbone, pool, part, self.start), GOES_ON * self.settings.lr
        groups, objective = layerwise(network, lr), self.lab.labels(pool, part, self.labels)
        return self._looped(part, network, objective, self.settings, groups)


@dataclass(frozen=True)
class SelfTrain(NetworkArm):
    """Labels, and for the other images the network's own predictions, weighed against the hints of others."""

    prior: np.ndarray
    """float [K]: shares of the classes among the other images."""
    hints: Mapping[str, np.ndarray]
    """By part; float [N, K]: log-probabilities by others who have the same labels."""
    labels: LabelSettings = LabelSettings()
    others: SelfTrainingSettings = SelfTrainingSettings()
    settings: LoopSettings = LoopSettings(muon=0.02)

    name = "selftrain"
    test_views = MIRRORED  # from many images it has learned more of shifts than they would add
    asked_at = "teacher"
    fewest: ClassVar[int] = 150
    """Steps; in fewer it learns less than the others knew."""

    def loop(self, pool: Pool, part: str) -> Loop:
        labels = self.lab.labels(pool, part, self.labels)
        objective = SelfTraining(labels, self.prior, self.others, self.hints[part])
        return self._looped(part, self.lab.fresh(self.backbone, pool, part), objective, self.settings)


@dataclass(frozen=True)
class Student(NetworkArm):
    """What other networks say of the images without labels, and the labels among them."""

    rows: np.ndarray
    """int64 [N] of the source."""
    targets: np.ndarray
    """float [N, K]: their probabilities."""
    start: Classifier | None = None
    """One of the teachers with the same backbone, where there is one: the student goes on from its weights."""
    smoothing: float = 0.1
    """Of the labels."""
    settings: LoopSettings = LoopSettings(lr=4e-3, muon=0.02, ema=0.999)
    batch_size: int = 512

    name = "student"
    fewest: ClassVar[int] = 300
    """Steps; in fewer it learns less than a network that has the time to itself."""
    test_views = MIRRORED  # as the teacher's

    def loop(self, pool: Pool, part: str) -> Loop:
        rows = np.concatenate([self.rows, pool.labelled])
        targets = np.concatenate([self.targets, smoothed(pool.labels, self.targets.shape[1], self.smoothing)])
        lab = self.lab
        objective = Distillation(pool.source, lab.weak, rows, targets, self.batch_size, lab.seed_of(part), lab.device)
        network = lab.fresh(self.backbone, pool, part, self.start)
        return self._looped(part, network, objective, self.settings)


@dataclass(frozen=True)
class Arms:
    """Those of a fit, by name."""

    lab: Lab
    pool: Pool
    """Images, and the labels that may be used."""
    backbone: str
    """Of the classifier."""
    teachers: str
    """The backbone that teaches itself."""
    weights: Path | None
    """Pretrained ones of the classifier's backbone."""

    def expert(self, name: str) -> Arm:
        """One that learns from nothing but labels."""
        if name == "supervised":
            return Supervised(self.lab, self.backbone)
        if name == "kernel":
            return Kernel(self.lab, self.features)
        if name == "propagate":
            return Propagate(self.lab, self.features)
        assert self.weights is not None  # the others are wanted only with weights
        return (Probe if name == "probe" else FineTune)(self.lab, self.backbone, self.weights)

    def teacher(self, hints: Mapping[str, np.ndarray], prior: np.ndarray | None = None) -> SelfTrain:
        """One that teaches itself; the classes are equally frequent if nothing else is known."""
        classes = len(self.pool.source.class_names)
        return SelfTrain(self.lab, self.teachers, np.full(classes, 1 / classes) if prior is None else prior, hints)

    @cached_property
    def features(self) -> Features:
        """Of the pool's images."""
        return Features(self.pool.source, None if self.weights is None else lambda of: outputs(self.pretrained, of))

    @cached_property
    def pretrained(self) -> nn.Module:
        """The backbone with its pretrained weights."""
        assert self.weights is not None
        network = self.lab.fresh(self.backbone, self.pool, "features")
        load_backbone(network, self.weights)
        return network.backbone
