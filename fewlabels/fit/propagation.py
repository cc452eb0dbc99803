"""Labels that spread along a graph of neighbours."""

import numpy as np
import scipy.sparse as sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 15
DIMENSIONS = 96
"""Principal components that neighbours are looked for in."""
PARTS = 8
"""In which features are shortened, to save memory."""
POWER = 4
"""Of the cosine: how much nearer neighbours count more."""
ALPHA = 0.99
"""Share of a step that comes from neighbours; the rest is the labels."""
STEPS = 60


def neighbour_graph(features: np.ndarray) -> sparse.csr_matrix:
    """Symmetric, normalised weights [N, N] of each image's nearest neighbours by cosine.

    Args:
        features: float16 or float32 [N, F].
    """
    width = min(DIMENSIONS, *features.shape)
    some = features[:: max(1, len(features) // 10_000)].astype(np.float32)
    near = PCA(width, svd_solver="randomized", random_state=0).fit(some)
    parts = np.array_split(features, min(PARTS, len(features)))
    shortened = np.concatenate([near.transform(part.astype(np.float32)) for part in parts])
    shortened /= np.maximum(np.linalg.norm(shortened, axis=1, keepdims=True), 1e-12)
    number = min(NEIGHBOURS, len(features) - 1)
    squared, neighbours = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(shortened).kneighbors()
    weights = np.maximum(1 - np.square(squared) / 2, 1e-6) ** POWER
    rows = np.repeat(np.arange(len(features)), number)
    graph = sparse.csr_matrix((weights.ravel(), (rows, neighbours.ravel())), (len(features),) * 2)
    graph = graph + graph.T
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-12)))
    return (scale @ graph @ scale).tocsr()


def propagated(graph: sparse.csr_matrix, rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Log-probabilities of every image, float32 [N, K] (Zhou et al. 2004, section 2).

    What classes got in all is brought half the way to being equal: all the way (Zhu et al. 2003, section 4) helps where
    they are equally frequent, and harms where they are not.

    Args:
        graph: from :func:`neighbour_graph`.
        rows: int64 [M], the labelled ones.
        labels: int64 [M] in 0..K-1.
        classes: K.
    """
    given = np.zeros((graph.shape[0], classes))
    given[rows, labels] = 1
    given /= np.maximum(given.sum(axis=0), 1)
    spread = given
    for _ in range(STEPS):
        spread = ALPHA * (graph @ spread) + (1 - ALPHA) * given
    mass = spread / np.sqrt(np.maximum(spread.sum(axis=0), 1e-12))
    known = given.any(axis=0)
    mass[:, known] += 1e-6 / len(mass)  # what no label reaches
    logs: np.ndarray = np.log(np.maximum(mass / mass.sum(axis=1, keepdims=True), 1e-6)).astype(np.float32)
    return logs
