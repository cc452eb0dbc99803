"""Head first, then the whole network: LP-FT (Kumar et al. 2022, section 4)."""

from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import normalize
from torch import nn

from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.data.source import ArraySource
from fewlabels.features.probes import logistic_probe
from fewlabels.fit.pool import Pool
from fewlabels.training.optimizers import without_decay

DECAY = 0.7
"""Of the learning rate, from a layer to the one below it."""


FEW_SHOTS = 5
"""Labels a class up to which the mean of a class tells more than a fitted probe."""
SHARPNESS = 5.0
"""Of squared distances between features of length 1, as logits; folds, where there are any, set it right."""


def probed_head(network: Classifier, pool: Pool, seed: int = 0) -> np.ndarray:
    """The head that a probe learns on the network's frozen features: float64 [K, F + 1], the bias last.

    The probe is logistic; up to ``FEW_SHOTS`` labels a class, on average, it is the nearest class mean
    (Snell et al. 2017, section 2.4).
    """
    source = pool.source.subset(pool.labelled)
    features = outputs(network.backbone, source)
    few = len(pool.labelled) <= FEW_SHOTS * len(np.unique(pool.labels))
    classes, weight, bias = _means(features, source.labels) if few else _logistic(features, source, seed)
    weight = weight / np.sqrt(weight.shape[1])  # the classifier's features are so many times longer than 1
    head = np.zeros((len(pool.source.class_names), weight.shape[1] + 1))
    head[:, -1] = bias.min() - 10  # a class without a label is not named
    head[classes] = np.column_stack([weight, bias])
    return head


def _logistic(features: np.ndarray, source: ArraySource, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, and of each the weights [F] of features of length 1, and the bias."""
    _, scale, logistic = logistic_probe(features, source.labels, seed, source.groups).estimator
    weight, bias = logistic.coef_, logistic.intercept_
    if len(logistic.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    weight = weight / scale.scale_  # what standardises the features is in the weights
    return logistic.classes_, weight, bias - weight @ scale.mean_


def _means(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As :func:`_logistic`: minus the squared distance to the mean of each class, less what all classes share."""
    classes, unit = np.unique(labels), normalize(features)
    means = np.stack([unit[labels == cls].mean(axis=0) for cls in classes])
    return classes, 2 * SHARPNESS * means, -SHARPNESS * np.square(means).sum(axis=1)


def with_head(network: Classifier, head: np.ndarray) -> Classifier:
    """The network, changed in place.

    Args:
        network: with a linear head.
        head: float [K, F + 1], the bias last.

    Raises:
        TypeError: if the head has a hidden layer.
    """
    if not isinstance(network.head, nn.Linear):
        raise TypeError("the head has a hidden layer")
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(head[:, :-1]))
        network.head.bias.copy_(torch.from_numpy(head[:, -1]))
    return network


def layerwise(network: Classifier, lr: float, decay: float = DECAY) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer with learning rates that fall from the head down.

    A layer is a child of the backbone that has weights; those in a sequence are its children. Weights that belong to
    no child, such as a transformer's positions, have the lowest rate.
    """
    layers = [*_layers(network.backbone), network.head]
    groups = [
        {**group, "lr": lr * decay**depth}
        for depth, layer in enumerate(reversed(layers))
        for group in without_decay(layer)
        if group["params"]
    ]
    known = {id(p) for group in groups for p in group["params"]}
    others = [p for p in network.parameters() if id(p) not in known]
    lowest = {"params": others, "lr": lr * decay ** (len(layers) - 1), "weight_decay": 0.0}
    return [*groups, lowest] if others else groups


def _layers(module: nn.Module) -> list[nn.Module]:
    found = []
    children = list(module.children())
    for child in children:
        opened = isinstance(child, nn.Sequential) or len(children) == 1
        found += _layers(child) if opened and list(child.children()) else [child]
    return [layer for layer in found if any(True for _ in layer.parameters())]
