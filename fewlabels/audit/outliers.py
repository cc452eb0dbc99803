"""Images that are unlike all others."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F

from fewlabels.data.source import ImageSource, evenly_spaced

FEWEST = 30
"""Images, below which none can be said to be unusual."""
SIDE = 14
"""Pixels at which images are compared."""
COMPONENTS = 64
NEIGHBOURS = 5
COMPARED_WITH = 10_000
FAR = 1.8
"""Times as far from its neighbours as the median image is."""
BATCH = 4096


def outliers(source: ImageSource, features: np.ndarray) -> list[tuple[int, float]]:
    """Images far from all others, the farthest first, each with how many times as far as the median image.

    The distance is that to the fifth neighbour (Ramaswamy et al. 2000), in features and small pixels of equal weight.
    Neighbours are looked for in principal components; what these leave over of an image is taken for its distance from
    all others.

    Args:
        source: N images.
        features: float32 [N, F] of length 1, as of :func:`~fewlabels.features.hog.gradient_features`.
    """
    if len(features) < FEWEST:
        return []
    whole = np.concatenate([features, _small(source)], axis=1)
    some = whole[evenly_spaced(whole, COMPARED_WITH)]
    components = PCA(min(COMPONENTS, len(some) - 1, whole.shape[1]), svd_solver="randomized", random_state=0).fit(some)
    within = components.transform(whole)
    left = np.square(whole - components.mean_).sum(axis=1) - np.square(within).sum(axis=1)
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, algorithm="brute").fit(components.transform(some))
    near = neighbours.kneighbors(within)[0][:, -1]
    distance = np.sqrt(np.square(near) + left.clip(min=0))
    times = distance / max(float(np.median(distance)), 1e-12)
    return [(int(row), float(times[row])) for row in np.argsort(-times, kind="stable") if times[row] >= FAR]


def _small(source: ImageSource) -> np.ndarray:
    """Float32 [N, D]: pixels less their mean, of length 1."""
    parts = []
    for start in range(0, len(source), BATCH):
        images = F.adaptive_avg_pool2d(source.read(slice(start, start + BATCH)).float(), SIDE).flatten(1)
        parts.append(F.normalize(images - images.mean(dim=1, keepdim=True), dim=1))
    return torch.cat(parts).numpy()
