"""The learners of a fit: each trains on the labels of a split and predicts logits for any image of the pool."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from fewlabels._internal.seeding import seed_from
from fewlabels.backbones.classifier import SHIFTED, Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import load_backbone
from fewlabels.data.source import digest, evenly_spaced
from fewlabels.features.extractor import Features
from fewlabels.features.kernel_ridge import fit_kernel_ridge
from fewlabels.features.label_spreading import spread_labels
from fewlabels.features.probes import linear_head
from fewlabels.fit.cache import StageCache
from fewlabels.fit.config import FitConfig
from fewlabels.fit.data import LabeledPool, Split
from fewlabels.fit.schedule import CostModel
from fewlabels.training.callbacks import Observer
from fewlabels.training.objectives import LabelLoss, LabelLossConfig, Objective
from fewlabels.training.optimizers import layerwise_groups
from fewlabels.training.pairs import Views
from fewlabels.training.precision import Precision
from fewlabels.training.trainer import NetworkTrainer, OptimizerConfig


@dataclass(frozen=True)
class FitContext:
    """What all learners of a fit share."""

    config: FitConfig
    cache: StageCache
    costs: CostModel
    weak: Views
    strong: Views
    seed: int
    device: torch.device
    precision: Precision
    observer: Callable[[str], Observer]

    def seed_for(self, split: Split) -> int:
        """Networks of different splits also differ in initial weights, order and views."""
        return seed_from(self.seed, split.name)

    def new_network(self, backbone: str, pool: LabeledPool, split: Split) -> Classifier:
        """A randomly initialised network for the pool's images and classes."""
        network = Classifier(backbone, pool.source.class_names, pool.source.shape[0], self.seed_for(split))
        return network.to(self.device)

    def label_loss(self, pool: LabeledPool, split: Split, config: LabelLossConfig) -> LabelLoss:
        """The loss on a split's labels."""
        rows, labels = pool.labelled[split.train], pool.labels[split.train]
        return LabelLoss(pool.source, rows, labels, self.weak, self.strong, config, self.seed_for(split), self.device)


@dataclass(frozen=True)
class Fitted:
    """A trained learner."""

    predict_logits: Callable[[np.ndarray], np.ndarray]
    """From rows int64 [R] of the pool's source to logits float32 [R, K]."""


@dataclass(frozen=True)
class FittedNetwork(Fitted):
    """A trained network."""

    network: Classifier
    """In evaluation mode."""
    warning: str
    """What the user should know about its training; empty for nothing."""


@dataclass(frozen=True)
class Learner(ABC):
    """One way from labels to a classifier."""

    context: FitContext

    name: ClassVar[str]

    @abstractmethod
    def fit(self, pool: LabeledPool, split: Split, seconds: float) -> Fitted:
        """Train on the split's labels.

        Args:
            pool: images and labels.
            split: which labels to train on.
            seconds: for the training; a learner in closed form takes the time that it needs.
        """

    @abstractmethod
    def inputs(self, pool: LabeledPool) -> dict[str, Any]:
        """What decides its predictions, beside images, labels, split and time."""

    def key(self, pool: LabeledPool, split: Split) -> dict[str, Any]:
        """What decides its predictions, beside the time."""
        train = digest(pool.labelled[split.train].tobytes() + pool.labels[split.train].tobytes())
        return {"learner": self.name, "split": split.name, "train": train, **self.inputs(pool)}

    def predict_logits(self, pool: LabeledPool, split: Split, seconds: float, rows: np.ndarray) -> np.ndarray:
        """Logits float32 [R, K] of some rows after :meth:`fit`; cached."""
        time = None if self.context.costs.clock else seconds
        key = {**self.key(pool, split), "predicts": digest(rows.tobytes()), "seconds": time}
        name = f"{self.name}-{split.name}-logits"
        return self.context.cache.get_or_compute(name, key, lambda: self.fit(pool, split, seconds).predict_logits(rows))


@dataclass(frozen=True)
class KernelRidgeLearner(Learner):
    """Kernel ridge regression on features that need no label."""

    features: Features

    name = "kernel"

    def fit(self, pool: LabeledPool, split: Split, seconds: float) -> Fitted:
        config, features = self.context.config.kernel, self.features
        train = split.train[evenly_spaced(split.train, config.max_labels)]
        groups = None if pool.groups is None else pool.groups[train]
        known, labels = features.of(pool.labelled[train]), pool.labels[train]
        model = fit_kernel_ridge(known, labels, pool.num_classes, groups, config)
        return Fitted(lambda rows: np.concatenate([model.scores(features.of(part)) for part in features.parts(rows)]))

    def inputs(self, pool: LabeledPool) -> dict[str, Any]:
        return {"config": asdict(self.context.config.kernel), "features": self.features.key}


@dataclass(frozen=True)
class LabelSpreadingLearner(Learner):
    """Labels spread along the graph of nearest neighbours."""

    features: Features

    name = "label-spreading"

    def fit(self, pool: LabeledPool, split: Split, seconds: float) -> Fitted:
        rows, labels = pool.labelled[split.train], pool.labels[split.train]
        config = self.context.config.label_spreading
        logits = spread_labels(self.features.graph, rows, labels, pool.num_classes, config)
        return Fitted(lambda rows: logits[rows])

    def inputs(self, pool: LabeledPool) -> dict[str, Any]:
        return {"config": asdict(self.context.config.label_spreading), "features": self.features.key}


Build = Callable[[], tuple[Classifier, Objective]]


@dataclass(frozen=True)
class NetworkLearner(Learner):
    """One that ends in a network of this architecture."""

    backbone: str

    test_views: ClassVar[int] = SHIFTED
    """Views whose logits are averaged in evaluation mode: :attr:`Classifier.test_views`."""

    def fit(self, pool: LabeledPool, split: Split, seconds: float) -> FittedNetwork:
        network, warning = self.train(pool, split, seconds)
        network.test_views = self.test_views
        half = self.context.precision == "bf16-mixed"
        return FittedNetwork(lambda rows: outputs(network, pool.source.subset(rows), half), network, warning)

    @abstractmethod
    def train(self, pool: LabeledPool, split: Split, seconds: float) -> tuple[Classifier, str]:
        """The trained network and its training's warning, or ""."""

    def train_in_steps(
        self,
        pool: LabeledPool,
        split: Split,
        build: Build,
        optimizer: OptimizerConfig,
        seconds: float,
        seconds_per_step: float,
        max_steps: int,
        layer_decay: float = 1.0,
    ) -> tuple[Classifier, str]:
        """Train for a time, or read the finished network back.

        Args:
            pool: images and labels.
            split: which labels to train on.
            build: gives the network and its objective.
            optimizer: see there.
            seconds: for the training.
            seconds_per_step: by the cost model.
            max_steps: at most.
            layer_decay: learning rate of a layer relative to the one above it.
        """
        context, name = self.context, f"{self.name}-{split.name}"
        steps = max(1, min(max_steps, int(seconds / seconds_per_step)))

        def train(checkpoints: Path) -> tuple[Classifier, str]:
            network, objective = build()
            groups = None
            if layer_decay != 1:
                groups = layerwise_groups(network.backbone, network.head, optimizer.lr, layer_decay)
            trainer = NetworkTrainer(
                network, objective, optimizer, steps, context.seed_for(split), context.observer(name), checkpoints,
                groups, context.device, context.precision, seconds if context.costs.clock else None, max_steps,
            )  # fmt: skip
            average = trainer.run()
            assert isinstance(average, Classifier)  # the running average of one
            return average, objective.warning()

        # By the clock two trainings differ in any case; else the number of steps decides.
        key = {**self.key(pool, split), "steps": None if context.costs.clock else steps}
        return context.cache.get_or_train(name, key, train, context.device)


@dataclass(frozen=True)
class Supervised(NetworkLearner):
    """A randomly initialised network trained on the labels alone."""

    name = "supervised"

    def train(self, pool: LabeledPool, split: Split, seconds: float) -> tuple[Classifier, str]:
        context, config = self.context, self.context.config.supervised

        def build() -> tuple[Classifier, Objective]:
            return context.new_network(self.backbone, pool, split), context.label_loss(pool, split, config.loss)

        step = context.costs.supervised_step
        return self.train_in_steps(pool, split, build, config.optimizer, seconds, step, config.max_steps)

    def inputs(self, pool: LabeledPool) -> dict[str, Any]:
        return {"config": asdict(self.context.config.supervised), "backbone": self.backbone}


@dataclass(frozen=True)
class Probe(NetworkLearner):
    """A linear head on a frozen pretrained backbone."""

    weights: Path

    name = "probe"
    test_views = 0  # its head was fitted to plain images

    def train(self, pool: LabeledPool, split: Split, seconds: float) -> tuple[Classifier, str]:
        network = self.context.new_network(self.backbone, pool, split)
        load_backbone(network, self.weights)

        def head() -> np.ndarray:
            source = pool.source.subset(pool.labelled[split.train])
            features = outputs(network.backbone, source)
            return linear_head(features, source.labels, pool.num_classes, self.context.seed, source.groups)

        network.set_head(self.context.cache.get_or_compute(f"head-{split.name}", self.key(pool, split), head))
        return network.eval(), ""

    def inputs(self, pool: LabeledPool) -> dict[str, Any]:
        return {"backbone": self.backbone, "weights": digest(self.weights.read_bytes())}


@dataclass(frozen=True)
class FineTune(Probe):
    """The probe's network trained as a whole, lower layers at lower rates."""

    name = "finetune"
    test_views = SHIFTED

    def train(self, pool: LabeledPool, split: Split, seconds: float) -> tuple[Classifier, str]:
        context, config = self.context, self.context.config.finetune

        def build() -> tuple[Classifier, Objective]:
            network, _ = Probe(context, self.backbone, self.weights).train(pool, split, 0.0)
            return network, context.label_loss(pool, split, config.loss)

        return self.train_in_steps(
            pool, split, build, config.optimizer, seconds, context.costs.supervised_step, config.max_steps,
            config.layer_decay,
        )  # fmt: skip

    def inputs(self, pool: LabeledPool) -> dict[str, Any]:
        return super().inputs(pool) | {"config": asdict(self.context.config.finetune)}
