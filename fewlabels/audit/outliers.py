"""Find images that are unlike all others."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F

from fewlabels.data.source import ImageSource, evenly_spaced

MIN_IMAGES = 30
"""Number of images below which none is reported. Not tuned."""
PIXEL_SIDE = 14
"""Side in pixels of the reduced images. Not tuned."""
OUTLIER_COMPONENTS = 64
"""Principal components in which neighbours are searched. Not tuned."""
NEIGHBOUR_RANK = 5
"""The outlier score is the distance to this neighbour (Ramaswamy et al. 2000)."""
MAX_REFERENCES = 10_000
"""Number of images among which neighbours are searched, at most. Not tuned."""
MIN_DISTANCE_RATIO = 1.8
"""Ratio to the median distance from which an image is an outlier. Not tuned."""
IMAGES_PER_READ = 4096
"""Number of images that are reduced at a time. Not tuned."""


def outliers(source: ImageSource, features: np.ndarray) -> list[tuple[int, float]]:
    """Return row and distance ratio of the images far from all others, the farthest first.

    The distance is the one to the fifth nearest neighbour (Ramaswamy et al. 2000), on features and reduced pixels with
    equal weights. Neighbours are searched in principal components. The part of an image outside these components is
    added to its distance. The ratio is that of the distance to the median distance.

    Args:
        source: N images.
        features: float32 [N, F] with rows of length 1, from :func:`~fewlabels.features.hog.gradient_features`.
    """
    if len(features) < MIN_IMAGES:
        return []
    vectors = np.concatenate([features, _reduced_pixels(source)], axis=1)
    references = vectors[evenly_spaced(vectors, MAX_REFERENCES)]
    number = min(OUTLIER_COMPONENTS, len(references) - 1, vectors.shape[1])
    pca = PCA(number, svd_solver="randomized", random_state=0).fit(references)
    projected = pca.transform(vectors)
    residual = np.square(vectors - pca.mean_).sum(axis=1) - np.square(projected).sum(axis=1)
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOUR_RANK + 1, algorithm="brute").fit(pca.transform(references))
    nearest = neighbours.kneighbors(projected)[0][:, -1]
    distance = np.sqrt(np.square(nearest) + residual.clip(min=0))
    ratio = distance / max(float(np.median(distance)), 1e-12)
    farthest_first = np.argsort(-ratio, kind="stable")
    return [(int(row), float(ratio[row])) for row in farthest_first if ratio[row] >= MIN_DISTANCE_RATIO]


def _reduced_pixels(source: ImageSource) -> np.ndarray:
    """Return float32 [N, D]: reduced pixels minus their mean, with rows of length 1."""
    parts = []
    for start in range(0, len(source), IMAGES_PER_READ):
        images = source.read(slice(start, start + IMAGES_PER_READ)).float()
        images = F.adaptive_avg_pool2d(images, PIXEL_SIDE).flatten(1)
        parts.append(F.normalize(images - images.mean(dim=1, keepdim=True), dim=1))
    return torch.cat(parts).numpy()
