"""Select the images to label next."""

from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from fewlabels._internal.seeding import seed_from

CLUSTER_COMPONENTS = 64
"""Principal components in which images are clustered. Not tuned."""
MAX_FITTED_IMAGES = 20_000
"""Number of images from which components and clusters are computed, at most. Not tuned."""
MAX_KMEANS_ITERATIONS = 30
"""Iterations of k-means, at most. Not tuned."""
CANDIDATES_PER_IMAGE = 10
"""Number of low-margin candidates per image to label. Trials with 3, 5, 10 and 20 are in docs/finding.md."""


class Suggestion(NamedTuple):
    """Images to label, in order of priority."""

    rows: np.ndarray
    """int64 [M], distinct rows."""
    cluster_sizes: np.ndarray
    """int64 [M]: number of images in the cluster of each row."""


def first_batch(features: np.ndarray, number: int, seed: int = 0) -> Suggestion:
    """Select images by k-means, without a model: the image nearest to each cluster centre, large clusters first.

    Args:
        features: float32 [N, F].
        number: M, the number of images to select; all are selected if there are fewer.
        seed: the same seed selects the same images.
    """
    return _centres(features, None, number, seed)


def next_batch(features: np.ndarray, probabilities: np.ndarray, number: int, seed: int = 0) -> Suggestion:
    """Select images by margin sampling with k-means, so that they are uncertain and diverse.

    Candidates are the ``CANDIDATES_PER_IMAGE * number`` images with the smallest margins. Weighted k-means clusters
    them, with weights of 1 minus margin, and the image nearest to each centre is selected (Zhdanov 2019, "Diverse
    mini-batch active learning").

    Args:
        features: float32 [N, F], of unlabelled images.
        probabilities: float [N, K], predicted by the model.
        number: M, the number of images to select; all are selected if there are fewer.
        seed: the same seed selects the same images.
    """
    margin = margins(probabilities)
    candidates = np.argsort(margin, kind="stable")[: CANDIDATES_PER_IMAGE * number]
    weights = np.maximum(1 - margin[candidates], 1e-6)  # above 0, since all margins may be 1
    rows, cluster_sizes = _centres(features[candidates], weights, number, seed)
    return Suggestion(candidates[rows], cluster_sizes)


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Return the difference between the two largest probabilities of each row; float [N] in 0..1.

    Args:
        probabilities: float [N, K].

    >>> margins(np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])).round(3)
    array([0.5, 0. ])
    """
    ordered = np.sort(probabilities, axis=1)
    margin: np.ndarray = ordered[:, -1] - ordered[:, -2:-1].sum(axis=1)  # the slice is empty if K is 1
    return margin


def _centres(features: np.ndarray, weights: np.ndarray | None, number: int, seed: int) -> Suggestion:
    """Cluster by k-means, and select the image nearest to each centre."""
    number = min(number, len(features))
    rng = np.random.default_rng(seed_from(seed, "suggest"))
    fitted = np.sort(rng.permutation(len(features))[:MAX_FITTED_IMAGES])
    width = min(CLUSTER_COMPONENTS, len(fitted), features.shape[1])
    projected = PCA(width, random_state=0).fit(features[fitted]).transform(features)
    distinct = len(np.unique(projected[fitted], axis=0))
    clusters, random_state = min(number, distinct), int(rng.integers(2**31))
    kmeans = KMeans(clusters, n_init=1, max_iter=MAX_KMEANS_ITERATIONS, random_state=random_state)
    kmeans.fit(projected[fitted], sample_weight=None if weights is None else weights[fitted])
    cluster = kmeans.predict(projected)
    distance = np.square(projected - kmeans.cluster_centers_[cluster]).sum(axis=1)
    by_cluster = np.lexsort((distance, cluster))
    _, first, sizes = np.unique(cluster[by_cluster], return_index=True, return_counts=True)
    large_first = np.argsort(-sizes, kind="stable")
    rows, cluster_sizes = by_cluster[first][large_first], sizes[large_first]
    # Equal images share a cluster, so there may be fewer clusters than requested: random images fill the rest.
    others = rng.permutation(np.setdiff1d(np.arange(len(features)), rows))[: number - len(rows)]
    return Suggestion(np.concatenate([rows, others]), np.concatenate([cluster_sizes, np.ones(len(others), np.int64)]))
