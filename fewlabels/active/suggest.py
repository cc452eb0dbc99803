"""Which images to label next."""

from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from fewlabels._internal.seeding import seed_from

COMPONENTS = 64
"""Principal components that images are clustered by."""
LEARNED_FROM = 20_000
"""Images that components and clusters are learned from."""
ROUNDS = 30
"""Of k-means, at most."""
DOUBTFUL = 10
"""Images looked at for each that is asked for: those that the model is least sure of."""


class Suggestion(NamedTuple):
    """Images to label, the most wanted first."""

    rows: np.ndarray
    """int64 [M], each once."""
    stands_for: np.ndarray
    """int64 [M]: how many images look like it, itself among them."""


def first_batch(features: np.ndarray, number: int, seed: int = 0) -> Suggestion:
    """Where nothing is labelled yet: of each of so many clusters the image at its centre, large clusters first.

    Args:
        features: float32 [N, F].
        number: M; of fewer images all are given.
        seed: the same seed gives the same images.
    """
    return _centres(features, None, number, seed)


def next_batch(features: np.ndarray, probabilities: np.ndarray, number: int, seed: int = 0) -> Suggestion:
    """What a model is least sure of, spread over what there is: of each cluster of doubtful images the centre.

    Doubtful are the ``DOUBTFUL`` times as many images with the smallest margin between their two likeliest classes; in
    k-means they weigh as much as the margin is short of 1 (Zhdanov 2019, "Diverse mini-batch active learning").

    Args:
        features: float32 [N, F], of images without a label.
        probabilities: float [N, K], of the model's classes.
        number: M; of fewer images all are given.
        seed: the same seed gives the same images.
    """
    margin = margins(probabilities)
    doubtful = np.argsort(margin, kind="stable")[: DOUBTFUL * number]
    doubt = np.maximum(1 - margin[doubtful], 1e-6)  # of nothing but certainties all count alike
    rows, stands_for = _centres(features[doubtful], doubt, number, seed)
    return Suggestion(doubtful[rows], stands_for)


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Between the likeliest class and the second: float [N] in 0..1.

    >>> margins(np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])).round(3)
    array([0.5, 0. ])
    """
    ordered = np.sort(probabilities, axis=1)
    between: np.ndarray = ordered[:, -1] - ordered[:, -2:-1].sum(axis=1)  # of one class, there is no second
    return between


def _centres(features: np.ndarray, weights: np.ndarray | None, number: int, seed: int) -> Suggestion:
    number = min(number, len(features))
    rng = np.random.default_rng(seed_from(seed, "suggest"))
    some = np.sort(rng.permutation(len(features))[:LEARNED_FROM])
    width = min(COMPONENTS, len(some), features.shape[1])
    short = PCA(width, random_state=0).fit(features[some]).transform(features)
    distinct = len(np.unique(short[some], axis=0))
    means = KMeans(min(number, distinct), n_init=1, max_iter=ROUNDS, random_state=int(rng.integers(2**31)))
    means.fit(short[some], sample_weight=None if weights is None else weights[some])
    cluster = means.predict(short)
    apart = np.square(short - means.cluster_centers_[cluster]).sum(axis=1)
    by_cluster = np.lexsort((apart, cluster))
    _, first, sizes = np.unique(cluster[by_cluster], return_index=True, return_counts=True)
    large_first = np.argsort(-sizes, kind="stable")
    rows, stands_for = by_cluster[first][large_first], sizes[large_first]
    # Copies of one image are one cluster; the others fill what is left.
    others = rng.permutation(np.setdiff1d(np.arange(len(features)), rows))[: number - len(rows)]
    return Suggestion(np.concatenate([rows, others]), np.concatenate([stands_for, np.ones(len(others), np.int64)]))
