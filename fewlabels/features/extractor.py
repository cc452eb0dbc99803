"""Feature vectors of images that need no label: gradients, patches, embeddings, and averages over neighbours."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from fewlabels.data.source import ArraySource, evenly_spaced
from fewlabels.features import hog, patches
from fewlabels.features.hog import gradient_features
from fewlabels.features.knn_graph import neighbour_graph, smoothed_features
from fewlabels.features.patches import Patches

ZERO_NORM = 1e-5
"""Length up to which a vector is rounding error."""
SECONDS_PER_PIXEL, SECONDS_PER_PLACE = 0.25e-6, 0.4e-6
"""Of gradient features, and of comparing a place with the patches beside its operations; as measured on a core of an
AMD EPYC."""
BATCH_IMAGES, BATCH_PIXELS = 8192, 2**28
"""Images whose features are made or read together, and pixels that are copied for it."""


@dataclass(frozen=True)
class FeatureConfig:
    """What features are made of."""

    components: int = 256
    """Principal components that are kept: kernels are as good with them as with all (dev/trials.md)."""
    pca_images: int = 4000
    """Images that the components are fitted to. Not tuned."""
    whitening: float = 0.5
    """0: components keep their variance, 1: all have the same (dev/trials.md)."""
    min_variance: float = 1e-6
    """Of a component, relative to the first one's. Numerical."""
    patches: bool = True
    """Whether similarity to patches of the images is one of the features."""
    graph_components: int = 96
    """Components that nearest neighbours are searched in (dev/trials.md)."""
    smoothing_steps: tuple[int, ...] = (0, 4, 16)
    """Averagings over neighbours after which the features are kept; 0 alone: no smoothing (dev/trials.md)."""

    def dimensions(self, graph: bool = True) -> int:
        """Numbers that are kept of each image, at most."""
        return self.components * (len(self.smoothing_steps) if graph else 1)


class Features:
    """Features of the images of a source, computed when they are first asked for.

    Beside an image's own features stand their averages over its neighbours in the graph, so that unlabelled images show
    which images are alike (Wu et al. 2019, section 2.2; several numbers of steps: Rossi et al. 2020).

    Args:
        source: N images.
        config: see there.
        graph: whether neighbours are searched; without, features are not averaged.
        embed: gives pretrained embeddings float [N, F] of images, to stand beside the others; None: there are none.
        embed_key: what tells the embeddings from others, such as a digest of the weights.
    """

    def __init__(
        self,
        source: ArraySource,
        config: FeatureConfig = FeatureConfig(),
        graph: bool = True,
        embed: Callable[[ArraySource], np.ndarray] | None = None,
        embed_key: str = "",
    ) -> None:
        self._source, self._embed, self._use_graph, self.config = source, embed, graph, config
        self.key = {**asdict(config), "graph": graph, "embedding": embed_key}
        """What the features depend on, beside the images."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Features float32 [R, D] of these rows, of length 1, unless an image is like the mean of all."""
        features: np.ndarray = self.vectors[rows].astype(np.float32)
        return features

    @cached_property
    def vectors(self) -> np.ndarray:
        """Features of all images, float16 [N, D]: a kernel is as good, and memory holds twice as many."""
        steps = self.config.smoothing_steps if self._use_graph else (0,)
        together = np.empty((len(self._own), len(steps) * self._own.shape[1]), np.float16)
        levels = smoothed_features(self.graph, self._own, steps) if self._use_graph else [self._own]
        for columns, level in zip(np.split(together, len(steps), axis=1), levels, strict=True):
            for rows in self.parts(np.arange(len(level))):  # copies of all would be large
                columns[rows] = unit_vectors(level[rows]) / np.float32(math.sqrt(len(steps)))
        return together

    def parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in parts whose features fit in memory beside those that are kept."""
        size = max(1, min(BATCH_IMAGES, BATCH_PIXELS // math.prod(self._source.shape)))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    @cached_property
    def graph(self) -> Any:
        """The graph of nearest neighbours, sparse [N, N]."""
        return neighbour_graph(unit_vectors(self._own[:, : self.config.graph_components]))

    def own(self, source: ArraySource) -> np.ndarray:
        """Features of each image of a source alone, before any averaging: float32 [R, components]."""
        _, _, reduce = self._fitted
        return reduce(self._all_of(source))

    @cached_property
    def _own(self) -> np.ndarray:
        rows, reduced, _ = self._fitted
        own = np.empty((len(self._source), reduced.shape[1]), np.float32)
        own[rows] = reduced
        for part in self.parts(np.setdiff1d(np.arange(len(own)), rows)):
            own[part] = self.own(self._source.subset(part))
        return own

    @cached_property
    def _fitted(self) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """The rows that the components are fitted to, their reduced features, and the function that reduces."""
        rows = evenly_spaced(self._source, self.config.pca_images)
        whole = np.concatenate([self._all_of(self._source.subset(part)) for part in self.parts(rows)])
        number = min(self.config.components, *whole.shape)
        components = PCA(number, svd_solver="randomized", random_state=0).fit(whole)
        variance = components.explained_variance_
        floor = self.config.min_variance * variance[0] + ZERO_NORM**2
        scale = np.maximum(variance, floor) ** (-self.config.whitening / 2)

        def reduce(features: np.ndarray) -> np.ndarray:
            reduced: np.ndarray = (components.transform(features) * scale).astype(np.float32)
            return reduced

        return rows, reduce(whole), reduce

    @cached_property
    def _patches(self) -> Patches:
        return Patches.of(self._source)

    def _all_of(self, source: ArraySource) -> np.ndarray:
        parts = [gradient_features(source)]
        if self.config.patches:
            parts.append(self._patches.features(source))
        if self._embed is not None:
            parts.append(unit_vectors(self._embed(source)))
        return np.hstack(parts)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Each row of [N, F] divided by its length, unless it is nearly 0."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), ZERO_NORM)
    return scaled


def counted_seconds_per_image(
    shape: tuple[int, int, int], config: FeatureConfig = FeatureConfig(), operations_per_second: float = 80e9
) -> float:
    """Seconds that an image's own features take on one core of an AMD EPYC with AVX-512, by their operations.

    Args:
        shape: (C, H, W) of the images.
        config: see there.
        operations_per_second: floating-point operations in single precision.
    """
    channels, height, width = shape
    pixels, side = channels * patches.PATCH_SIZE**2, patches.MAX_SIDE
    seconds = 2 * pixels * (patches.NUM_PATCHES + pixels) / operations_per_second
    compared = min(height, side) * min(width, side) * (SECONDS_PER_PLACE + seconds)
    reduced = 2 * (hog.num_features(channels) + patches.NUM_FEATURES) * config.components / operations_per_second
    return math.prod(shape) * SECONDS_PER_PIXEL + compared + reduced
