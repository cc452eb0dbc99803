"""Supervised training of a whole network or of its head alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from fewlabels._internal.errors import InputError
from fewlabels.backbones.classifier import Classifier
from fewlabels.data.order import batches, steps_per_epoch
from fewlabels.data.source import UNLABELLED, ImageSource
from fewlabels.training.callbacks import Observer
from fewlabels.training.optimizers import OptimizerSettings


@dataclass(frozen=True)
class SupervisedSettings:
    """Settings of the tutorial: plain SGD, no augmentation."""

    epochs: int
    batch_size: int = 64
    freeze_backbone: bool = False
    """Train the head alone. As in the tutorial, batch norm still uses the statistics of each batch."""
    optimizer: OptimizerSettings = OptimizerSettings("sgd", lr=1e-3, weight_decay=1e-5)


def train_supervised(
    model: Classifier,
    source: ImageSource,
    settings: SupervisedSettings,
    seed: int,
    observer: Observer,
    device: torch.device,
) -> Classifier:
    """Train a model on the labelled images of a source; return it in evaluation mode, on the CPU.

    Raises:
        InputError: if fewer than two images have a label.
    """
    labelled = np.flatnonzero(source.labels != UNLABELLED)
    if len(labelled) < 2:
        raise InputError(f"{len(labelled)} labelled images: training needs at least 2. Label more images.")
    model.to(device).train()
    model.backbone.requires_grad_(not settings.freeze_backbone)
    optimizer = settings.optimizer.build([p for p in model.parameters() if p.requires_grad])
    targets = torch.from_numpy(source.labels)
    step = 0
    with observer.watch(settings.epochs * steps_per_epoch(len(labelled), settings.batch_size), settings.batch_size):
        for epoch in range(settings.epochs):
            for batch in batches(len(labelled), settings.batch_size, seed, "order", epoch):
                indices = torch.from_numpy(labelled)[batch]
                images = source.read(indices).to(device).float() / 255
                loss = F.cross_entropy(model(images), targets[indices].to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                observer.step(step, loss.item())
    return model.cpu().eval()
