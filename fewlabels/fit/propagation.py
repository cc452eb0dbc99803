"""Labels that spread along a graph of neighbours."""

import numpy as np
import scipy.sparse as sparse

ALPHA = 0.99
"""Share of a step that comes from neighbours; the rest is the labels."""
STEPS = 60


def propagated(graph: sparse.csr_matrix, rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Log-probabilities of every image, float32 [N, K] (Zhou et al. 2004, section 2).

    What classes got in all is brought half the way to being equal: all the way (Zhu et al. 2003, section 4) helps where
    they are equally frequent, and harms where they are not.

    Args:
        graph: from :func:`~fewlabels.features.knn_graph.neighbour_graph`.
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
