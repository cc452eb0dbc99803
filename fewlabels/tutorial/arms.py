"""The tutorial's arms, at its own settings."""

from dataclasses import dataclass
from pathlib import Path

import torch

from fewlabels._internal.tensors import read_weights
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import load_backbone
from fewlabels.data.source import ImageSource
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.supervised import SupervisedSettings, train_supervised

HIDDEN = 32
"""Width of the hidden layer in the tutorial's head."""


@dataclass(frozen=True)
class Arm:
    """One row of the tutorial's story."""

    name: str
    title: str
    labels: int
    settings: SupervisedSettings
    pretrained_by: str | None = None
    """The method whose backbone is meant to be used."""
    pretrain_epochs: int = 0
    """Epochs of the pretrained weights that really reach the classifier: 0 where they do not."""
    as_printed: bool = False
    """Load the weights as the tutorial's code does, which leaves the random ones in place."""
    once: bool = False
    """Run with the first seed only."""


@dataclass(frozen=True)
class ArticlePlan:
    """How long each part trains. The defaults are the tutorial's."""

    few_labels: int = 1000
    full_epochs: int = 10
    few_epochs: int = 100
    head_epochs: int = 100
    pretrain_epochs: int = 100
    comparison_epochs: int = 10
    """SimCLR and SimSiam are compared after this many epochs each; the tutorial only describes SimCLR."""

    def arms(self, total_labels: int) -> list[Arm]:
        """All arms, in the tutorial's order; the last two are ours."""
        head = SupervisedSettings(self.head_epochs, batch_size=32, freeze_backbone=True)
        few = self.few_labels
        return [
            Arm(
                "supervised-60000",
                f"supervised, all {total_labels:,} labels",
                total_labels,
                SupervisedSettings(self.full_epochs),
                once=True,
            ),
            Arm(
                "supervised-1000",
                f"supervised, {few:,} labels",
                few,
                SupervisedSettings(self.few_epochs),
            ),
            Arm(
                "frozen-as-printed",
                "frozen backbone + head, code as printed (random weights)",
                few,
                head,
                pretrained_by="simsiam",
                as_printed=True,
            ),
            Arm(
                "frozen-as-intended",
                "frozen SimSiam backbone + head, as intended",
                few,
                head,
                pretrained_by="simsiam",
                pretrain_epochs=self.pretrain_epochs,
            ),
            Arm(
                "frozen-simsiam-short",
                "frozen SimSiam backbone + head, SimCLR's epochs",
                few,
                head,
                pretrained_by="simsiam",
                pretrain_epochs=self.comparison_epochs,
            ),
            Arm(
                "frozen-simclr",
                "frozen SimCLR backbone + head",
                few,
                head,
                pretrained_by="simclr",
                pretrain_epochs=self.comparison_epochs,
            ),
        ]


QUICK = ArticlePlan(full_epochs=2, few_epochs=60, head_epochs=60, pretrain_epochs=5, comparison_epochs=3)
"""Short enough for a demonstration on a laptop; every figure says how many epochs it had."""


def train_arm(
    arm: Arm, train: ImageSource, backbone_file: Path | None, seed: int, observer: Observer, device: torch.device
) -> Classifier:
    """Train one arm's classifier on the labels of ``train``, from the weights in ``backbone_file`` if it has some."""
    model = Classifier("article", train.class_names, train.shape[0], seed, hidden=HIDDEN)
    if backbone_file is not None:
        if arm.as_printed:
            load_as_printed(model, backbone_file)
        else:
            load_backbone(model, backbone_file)
    return train_supervised(model, train, arm.settings, seed, observer, device)


def load_as_printed(model: Classifier, backbone_file: Path) -> None:
    """The tutorial's loading code with its bug, kept for comparison: it loads nothing.

    The comprehension takes its values from the new model's own state and only its *keys* from the file,
    so every weight is replaced by itself.
    """
    model_dict = model.state_dict()
    saved = {f"backbone.{name}": tensor for name, tensor in read_weights(backbone_file)[0].items()}
    simsiam_dict = {name: tensor for name, tensor in model_dict.items() if name in saved}
    model.load_state_dict(simsiam_dict, strict=False)
