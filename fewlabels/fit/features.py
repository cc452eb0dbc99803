"""What kernel ridge and neighbours know of images: gradients, patches, and pretrained embeddings if there are some."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from fewlabels.data.source import ArraySource, evenly_spaced
from fewlabels.fit.gradients import gradient_features
from fewlabels.fit.neighbours import neighbour_graph, smoothed
from fewlabels.fit.patches import Patches

DIMENSIONS = 256
"""Principal components that are kept: kernels are as good with them as with all that they are made of."""
FITTED = 4000
"""Images that the components are taken from."""
NEAR = 96
"""Components that neighbours are looked for in."""
STEPS = (4, 16)
"""From neighbour to neighbour, after which the features are kept, too."""
HELD = 200_000
"""Images up to which neighbours are looked for: the time grows with the square of their number."""
AT_ONCE, COPIED = 8192, 2**28
"""Images whose features are made or asked for together, and pixels that are copied for it."""


def kept(images: int) -> int:
    """Numbers that are kept of each of so many images, at most."""
    return DIMENSIONS * (1 + len(STEPS) if images <= HELD else 1)


class Features:
    """What kernel and graph know of the images: features that no label made, computed when first asked for.

    An image's own stand beside what they become as they are mixed with its neighbours', so that images without a label
    say which are alike (Wu et al. 2019, section 2.2; several numbers of steps beside each other: Rossi et al. 2020).

    Args:
        source: the images.
        embed: gives pretrained embeddings float [N, F] of images, to stand beside the others; None: they are alone.
    """

    def __init__(self, source: ArraySource, embed: Callable[[ArraySource], np.ndarray] | None) -> None:
        self._source, self._embed = source, embed
        self.by_neighbours = len(source) <= HELD
        """Whether an image is known by its neighbours, too; to be said before features are asked for."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Float32 [R, F], of length 1 (an image that is as the mean of all has shorter ones)."""
        known: np.ndarray = self.vectors[rows].astype(np.float32)
        return known

    @cached_property
    def vectors(self) -> np.ndarray:
        """Of all images, float16 [N, F]: a kernel is as good, and memory holds twice as many."""
        if not self.by_neighbours:
            return _of_length_1(self._own).astype(np.float16)
        levels = [self._own, *smoothed(self.graph, self._own, STEPS)]
        together = np.empty((len(self._own), len(levels) * self._own.shape[1]), np.float16)
        for part, level in zip(np.split(together, len(levels), axis=1), levels, strict=True):
            np.divide(_of_length_1(level), math.sqrt(len(levels)), out=part, casting="same_kind")
        return together

    def made(self, source: ArraySource) -> np.ndarray:
        """Of these images, each alone: float32 [R, F]."""
        components: np.ndarray = self._components.transform(self._whole(source)).astype(np.float32)
        return components

    def parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in parts whose features fit in memory beside those that are kept."""
        at_once = max(1, min(AT_ONCE, COPIED // math.prod(self._source.shape)))
        return np.array_split(rows, -(-len(rows) // at_once))

    @cached_property
    def graph(self) -> Any:
        """Of neighbours, sparse [N, N]."""
        return neighbour_graph(_of_length_1(self._own[:, :NEAR]))

    @cached_property
    def _own(self) -> np.ndarray:
        return self._in_parts(self.made, np.arange(len(self._source)))

    @cached_property
    def _components(self) -> PCA:
        some = self._in_parts(self._whole, evenly_spaced(self._source, FITTED))
        return PCA(min(DIMENSIONS, *some.shape), svd_solver="randomized", random_state=0).fit(some)

    @cached_property
    def _patches(self) -> Patches:
        return Patches.of(self._source)

    def _in_parts(self, made: Callable[[ArraySource], np.ndarray], rows: np.ndarray) -> np.ndarray:
        return np.concatenate([made(self._source.subset(part)) for part in self.parts(rows)])

    def _whole(self, source: ArraySource) -> np.ndarray:
        parts = [gradient_features(source), self._patches.features(source)]
        if self._embed is not None:
            parts.append(_of_length_1(self._embed(source)))
        return np.hstack(parts)


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    """Each row of [N, F] divided by its length, unless that is nearly 0."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled
