"""Self-training: the teacher, a network that learns from labels and from its own predictions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fewlabels.backbones.classifier import MIRRORED, Classifier
from fewlabels.data.source import digest
from fewlabels.fit.data import LabeledPool, Split
from fewlabels.fit.learners import NetworkLearner
from fewlabels.training.objectives import Objective, SelfTrainingLoss


@dataclass(frozen=True)
class SelfTraining(NetworkLearner):
    """Trains on labels and on its own predictions, to whose logits the ensemble's log-probabilities are added."""

    prior: np.ndarray
    """float [K]: class prior of the unlabelled images."""
    log_priors: Mapping[str, np.ndarray]
    """By split, float [N, K]: log-probabilities of every image, by an ensemble that was trained on the same labels."""

    name = "self-training"
    test_views = MIRRORED  # shifts it has learned from the unlabelled images

    def train(self, pool: LabeledPool, split: Split, seconds: float) -> tuple[Classifier, str]:
        context, config = self.context, self.context.config.self_training

        def build() -> tuple[Classifier, Objective]:
            labelled = context.label_loss(pool, split, config.labels)
            rows = np.concatenate([pool.unlabelled, pool.labelled[split.train]])
            held_out, log_prior = pool.labelled[split.held_out], self.log_priors[split.name]
            loss = SelfTrainingLoss(labelled, rows, held_out, self.prior, config.loss, log_prior)
            return context.new_network(self.backbone, pool, split), loss

        step = context.costs.self_training_step
        return self.train_in_steps(pool, split, build, config.optimizer, seconds, step, config.max_steps)

    def inputs(self, pool: LabeledPool) -> dict[str, Any]:
        log_priors = {split: digest(logits.tobytes()) for split, logits in self.log_priors.items()}
        about = {"config": asdict(self.context.config.self_training), "prior": digest(self.prior.tobytes())}
        about |= {"log_priors": log_priors, "unlabelled": digest(pool.unlabelled.tobytes())}
        return about | {"backbone": self.backbone}
