"""A graph of nearest neighbours, and smoothing of features along it."""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sparse
from sklearn.neighbors import NearestNeighbors

NUM_NEIGHBOURS = 25
"""Nearest neighbours per image; a link needs both images among each other's neighbours (dev/trials.md)."""
NUM_ONE_SIDED, ONE_SIDED_WEIGHT = 5, 0.2
"""Nearest neighbours that are linked in any case, and the factor of their links' weights (dev/trials.md)."""
SIMILARITY_POWER = 4
"""Exponent of the cosine similarity in a link's weight; it made no difference (dev/trials.md)."""
SELF_WEIGHT = 1 / 2
"""Weight of an image's own features in a smoothing step. Not tuned."""


def neighbour_graph(features: np.ndarray) -> sparse.csr_matrix:
    """Build a graph of mutual nearest neighbours by cosine: symmetric, normalised weights, sparse [N, N].

    Links are mutual because of hubs: in many dimensions, a few images are near to very many others (Radovanovic et al.
    2010).

    Args:
        features: float32 [N, F], of length 1.
    """
    number = min(NUM_NEIGHBOURS, len(features) - 1)
    distance, neighbours = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(features).kneighbors()
    weights = np.maximum(1 - np.square(distance) / 2, 1e-6) ** SIMILARITY_POWER

    def directed_graph(nearest: int) -> sparse.csr_matrix:
        rows = np.repeat(np.arange(len(features)), nearest)
        columns = neighbours[:, :nearest].ravel()
        return sparse.csr_matrix((weights[:, :nearest].ravel(), (rows, columns)), (len(features),) * 2)

    all_links, nearest = directed_graph(number), directed_graph(min(NUM_ONE_SIDED, number))
    graph = all_links.minimum(all_links.T) + ONE_SIDED_WEIGHT * nearest.maximum(nearest.T)
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-12)))
    return (scale @ graph @ scale).tocsr()


def smoothed_features(graph: sparse.csr_matrix, features: np.ndarray, steps: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield features, float32 [N, F], after each number of smoothing steps; a step averages them over neighbours.

    This is simple graph convolution (Wu et al. 2019, section 2.2), with ``SELF_WEIGHT`` instead of a self-loop.

    Args:
        graph: from :func:`neighbour_graph`.
        features: float32 [N, F].
        steps: numbers of steps, ascending.
    """
    mixing = (graph * (1 - SELF_WEIGHT) + SELF_WEIGHT * sparse.identity(len(features))).tocsr().astype(np.float32)
    for step in range(steps[-1] + 1):
        if step:
            features = mixing @ features
        if step in steps:
            yield features
