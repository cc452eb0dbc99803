"""The tutorial's experiments, with its own settings."""

from dataclasses import dataclass
from pathlib import Path

import torch

from fewlabels._internal.tensors import read_weights
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import load_backbone
from fewlabels.data.source import ImageSource
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.supervised import SupervisedSettings, train_supervised

HEAD_HIDDEN_WIDTH = 32
"""Width of the hidden layer in the classifier's head, as in the tutorial."""


@dataclass(frozen=True)
class Experiment:
    """One experiment of the tutorial: a classifier, its labels and its initial weights."""

    name: str
    title: str
    labels: int
    """Number of labels."""
    settings: SupervisedSettings
    pretrained_by: str | None = None
    """Pretraining method whose backbone the tutorial means to use; None without pretraining."""
    pretrain_epochs: int = 0
    """Epochs of the pretrained weights that the classifier loads; 0 if it loads none."""
    as_printed: bool = False
    """Use the tutorial's loading code, which leaves the random weights unchanged."""
    once: bool = False
    """Run with the first seed only."""


@dataclass(frozen=True)
class ArticlePlan:
    """Numbers of labels and epochs. The defaults are the tutorial's."""

    few_labels: int = 1000
    full_epochs: int = 10
    few_epochs: int = 100
    head_epochs: int = 100
    pretrain_epochs: int = 100
    comparison_epochs: int = 10
    """Pretraining epochs of both methods where SimCLR and SimSiam are compared. The tutorial only describes SimCLR."""

    def experiments(self, total_labels: int) -> list[Experiment]:
        """All experiments in the tutorial's order. The last two are additions of this package."""
        head = SupervisedSettings(self.head_epochs, batch_size=32, freeze_backbone=True)
        few = self.few_labels
        return [
            Experiment(
                "supervised-60000",
                f"supervised, all {total_labels:,} labels",
                total_labels,
                SupervisedSettings(self.full_epochs),
                once=True,
            ),
            Experiment(
                "supervised-1000",
                f"supervised, {few:,} labels",
                few,
                SupervisedSettings(self.few_epochs),
            ),
            Experiment(
                "frozen-as-printed",
                "frozen backbone + head, code as printed (random weights)",
                few,
                head,
                pretrained_by="simsiam",
                as_printed=True,
            ),
            Experiment(
                "frozen-as-intended",
                "frozen SimSiam backbone + head, as intended",
                few,
                head,
                pretrained_by="simsiam",
                pretrain_epochs=self.pretrain_epochs,
            ),
            Experiment(
                "frozen-simsiam-short",
                "frozen SimSiam backbone + head, SimCLR's epochs",
                few,
                head,
                pretrained_by="simsiam",
                pretrain_epochs=self.comparison_epochs,
            ),
            Experiment(
                "frozen-simclr",
                "frozen SimCLR backbone + head",
                few,
                head,
                pretrained_by="simclr",
                pretrain_epochs=self.comparison_epochs,
            ),
        ]


QUICK = ArticlePlan(full_epochs=2, few_epochs=60, head_epochs=60, pretrain_epochs=5, comparison_epochs=3)
"""A plan for a demonstration on a laptop. Every result states its number of epochs."""


def train_experiment(
    experiment: Experiment,
    train: ImageSource,
    backbone_file: Path | None,
    seed: int,
    observer: Observer,
    device: torch.device,
) -> Classifier:
    """Train the classifier of an experiment.

    Args:
        experiment: its settings.
        train: images and labels.
        backbone_file: pretrained weights; None: random weights.
        seed: of the initial weights and the order of the images.
        observer: of the training.
        device: to train on.
    """
    model = Classifier("article", train.class_names, train.shape[0], seed, hidden=HEAD_HIDDEN_WIDTH)
    if backbone_file is not None:
        if experiment.as_printed:
            load_as_printed(model, backbone_file)
        else:
            load_backbone(model, backbone_file)
    return train_supervised(model, train, experiment.settings, seed, observer, device)


def load_as_printed(model: Classifier, backbone_file: Path) -> None:
    """Run the tutorial's loading code, whose bug is reproduced: it loads nothing.

    The comprehension takes its values from the new model's own state and only its *keys* from the file. So every weight
    is replaced by itself.
    """
    model_dict = model.state_dict()
    saved = {f"backbone.{name}": tensor for name, tensor in read_weights(backbone_file)[0].items()}
    simsiam_dict = {name: tensor for name, tensor in model_dict.items() if name in saved}
    model.load_state_dict(simsiam_dict, strict=False)
