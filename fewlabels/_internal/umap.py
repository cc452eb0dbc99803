"""UMAP projections of features."""

import warnings

import numpy as np


def umap_projection(features: np.ndarray, seed: int = 0, components: int = 3) -> np.ndarray:
    """Project features by UMAP (McInnes et al. 2018) with the tutorial's settings: 10 neighbours, cosine distance.

    Args:
        features: float32 [N, D].
        seed: of UMAP; on one machine, the same seed gives the same projection.
        components: dimensions of the projection: 3, as in the tutorial, or 2.

    Returns:
        float32 [N, components].
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba and umap warn about internals
        from umap import UMAP  # slow to import: numba compiles

        neighbours = min(10, len(features) - 1)
        reducer = UMAP(n_components=components, n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
        return np.asarray(reducer.fit_transform(features), dtype=np.float32)
