"""Which images are neighbours, and what is reached from one to the next."""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sparse
from sklearn.neighbors import NearestNeighbors

NUMBER = 25
"""Neighbours of an image; those count that it is a neighbour of."""
NEAREST, ONE_SIDED = 5, 0.2
"""Of them so many count in any case, so that no image is alone, and how much."""
POWER = 4
"""Of the cosine: how much nearer neighbours count more."""
STAYS = 1 / 2
"""Of an image's own in each step."""


def neighbour_graph(features: np.ndarray) -> sparse.csr_matrix:
    """Symmetric, normalised weights [N, N] of images that are neighbours by cosine, each of the other.

    In many dimensions some images are near to very many, whatever they show (hubs; Radovanovic et al. 2010).

    Args:
        features: float32 [N, F], of length 1.
    """
    number = min(NUMBER, len(features) - 1)
    apart, neighbours = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(features).kneighbors()
    weights = np.maximum(1 - np.square(apart) / 2, 1e-6) ** POWER

    def joined(nearest: int) -> sparse.csr_matrix:
        rows = np.repeat(np.arange(len(features)), nearest)
        columns = neighbours[:, :nearest].ravel()
        return sparse.csr_matrix((weights[:, :nearest].ravel(), (rows, columns)), (len(features),) * 2)

    all_of_them, nearest = joined(number), joined(min(NEAREST, number))
    graph = all_of_them.minimum(all_of_them.T) + ONE_SIDED * nearest.maximum(nearest.T)
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-12)))
    return (scale @ graph @ scale).tocsr()


def smoothed(graph: sparse.csr_matrix, features: np.ndarray, steps: Sequence[int]) -> Iterator[np.ndarray]:
    """Features float32 [N, F] after each of these numbers of steps, in each of which half comes from neighbours.

    Without training, as in Wu et al. 2019, section 2.2; there an image is one of its own neighbours.

    Args:
        graph: from :func:`neighbour_graph`.
        features: float32 [N, F].
        steps: ascending.
    """
    mixing = (graph * (1 - STAYS) + STAYS * sparse.identity(len(features))).tocsr().astype(np.float32)
    for step in range(steps[-1] + 1):
        if step:
            features = mixing @ features
        if step in steps:
            yield features
