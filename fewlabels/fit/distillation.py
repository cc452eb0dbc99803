"""Distillation: the student, a network that is trained on soft targets and compared with them on images held back."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fewlabels.backbones.classifier import MIRRORED, Classifier
from fewlabels.data.source import digest, random_rows
from fewlabels.fit.config import DistillationConfig
from fewlabels.fit.data import LabeledPool, Split
from fewlabels.fit.learners import NetworkLearner
from fewlabels.training.objectives import DistillationLoss, Objective, smoothed_labels


@dataclass(frozen=True)
class Student(NetworkLearner):
    """A network trained on soft targets of unlabelled images, and on the labels among them."""

    rows: np.ndarray
    """int64 [R] of the source: the unlabelled images that it is trained on."""
    targets: np.ndarray
    """float [R, K]: their class probabilities."""
    init: Classifier | None = None
    """A network with the same backbone whose weights it starts from; None: random weights."""

    name = "student"
    test_views = MIRRORED  # shifts it has learned from the unlabelled images

    def train(self, pool: LabeledPool, split: Split, seconds: float) -> tuple[Classifier, str]:
        context, config = self.context, self.context.config.distillation
        rows = np.concatenate([self.rows, pool.labelled[split.train]])
        batch_size = config.batch_size(len(rows))

        def build() -> tuple[Classifier, Objective]:
            network = context.new_network(self.backbone, pool, split)
            if self.init is not None:
                network.load_state_dict(self.init.state_dict())
            labels = smoothed_labels(pool.labels[split.train], pool.num_classes, config.label_smoothing)
            targets, seed = np.concatenate([self.targets, labels]), context.seed_for(split)
            return network, DistillationLoss(pool.source, context.weak, rows, targets, batch_size, seed)

        step = context.costs.student_step(batch_size)
        return self.train_in_steps(pool, split, build, config.optimizer, seconds, step, config.max_steps)

    def inputs(self, pool: LabeledPool) -> dict[str, Any]:
        init = None if self.init is None else digest(next(self.init.parameters()).detach().cpu().numpy().tobytes())
        about = {"config": asdict(self.context.config.distillation), "backbone": self.backbone, "init": init}
        return about | {"unlabelled": digest(self.rows.tobytes()), "targets": digest(self.targets.tobytes())}


def heldback_rows(unlabelled: np.ndarray, seed: int, config: DistillationConfig) -> np.ndarray:
    """A random sample of the unlabelled rows, int64 ascending, that the student is not trained on."""
    number = min(config.max_heldback_images, math.ceil(len(unlabelled) * config.heldback_fraction))
    return random_rows(unlabelled, number, seed, "held back")


def agreement(logits: np.ndarray, targets: np.ndarray) -> float:
    """Fraction of images for which logits and targets, float [N, K] both, name the same class."""
    return float((logits.argmax(axis=1) == targets.argmax(axis=1)).mean())
