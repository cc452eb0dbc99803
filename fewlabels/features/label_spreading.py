"""Label spreading along a graph of nearest neighbours."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LabelSpreadingConfig:
    """Label spreading (Zhou et al. 2004)."""

    alpha: float = 0.99  # Zhou et al. 2004, section 3
    iterations: int = 60  # not tuned
    min_probability: float = 1e-6  # of a class that no label reaches; numerical


def spread_labels(
    graph: Any,
    rows: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    config: LabelSpreadingConfig = LabelSpreadingConfig(),
) -> np.ndarray:
    """Log-probabilities of every image, float32 [N, K] (Zhou et al. 2004, section 2).

    Classes are normalised by the square root of their mass. Normalising by the mass (Zhu et al. 2003, section 4) helps
    where classes are equally frequent, and harms where they are not.

    Args:
        graph: sparse [N, N], from :func:`~fewlabels.features.knn_graph.neighbour_graph`.
        rows: int64 [M], the labelled images.
        labels: int64 [M] in 0..K-1.
        num_classes: K.
        config: see there.
    """
    given = np.zeros((graph.shape[0], num_classes))
    given[rows, labels] = 1
    given /= np.maximum(given.sum(axis=0), 1)
    spread = given
    for _ in range(config.iterations):
        spread = config.alpha * (graph @ spread) + (1 - config.alpha) * given
    mass = spread / np.sqrt(np.maximum(spread.sum(axis=0), 1e-12))
    known = given.any(axis=0)
    mass[:, known] += config.min_probability / len(mass)  # for images that no label reaches
    probabilities = mass / mass.sum(axis=1, keepdims=True)
    logits: np.ndarray = np.log(np.maximum(probabilities, config.min_probability)).astype(np.float32)
    return logits
