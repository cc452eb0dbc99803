"""What kernel ridge knows of images: gradients, patches, pretrained embeddings if there are some, and neighbours'."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from fewlabels.data.source import ArraySource, evenly_spaced
from fewlabels.features.hog import gradient_features
from fewlabels.features.knn_graph import neighbour_graph, smoothed
from fewlabels.features.patches import Patches

DIMENSIONS = 256
"""Principal components that are kept: kernels are as good with them as with all that they are made of."""
FITTED = 4000
"""Images that the components are taken from."""
WHITENED, SMALLEST = 1 / 2, 1e-6
"""How far the components' standard deviations are brought to be alike, 1 all the way; smaller shares of the first one's
variance are taken for this one."""
NEAR = 96
"""Components that neighbours are looked for in."""
STEPS = (0, 4, 16)
"""From neighbour to neighbour, after which the features are kept."""
COMPARED = 200_000
"""Images up to which neighbours are looked for: the time grows with the square of their number."""
NOTHING = 1e-5
"""Length up to which features are rounding errors."""
AT_ONCE, COPIED = 8192, 2**28
"""Images whose features are made or asked for together, and pixels that are copied for it."""


def kept(images: int) -> int:
    """Numbers that are kept of each of so many images, at most."""
    return DIMENSIONS * (len(STEPS) if images <= COMPARED else 1)


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
        self.by_neighbours = len(source) <= COMPARED
        """Whether an image is known by its neighbours, too; to be said before features are asked for."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Float32 [R, F], of length 1, unless the image is as the mean of all."""
        known: np.ndarray = self.vectors[rows].astype(np.float32)
        return known

    @cached_property
    def vectors(self) -> np.ndarray:
        """Of all images, float16 [N, F]: a kernel is as good, and memory holds twice as many."""
        number = len(STEPS) if self.by_neighbours else 1
        together = np.empty((len(self._own), number * self._own.shape[1]), np.float16)
        levels = smoothed(self.graph, self._own, STEPS) if self.by_neighbours else [self._own]
        for columns, level in zip(np.split(together, number, axis=1), levels, strict=True):
            for rows in self.parts(np.arange(len(level))):  # of all, the copies would be large
                columns[rows] = _of_length_1(level[rows]) / np.float32(math.sqrt(number))
        del self._own  # of full precision
        return together

    def made(self, source: ArraySource) -> np.ndarray:
        """Of these images, each alone: float32 [R, F]."""
        _, _, shortened = self._fitted
        return shortened(self._whole(source))

    def parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in parts whose features fit in memory beside those that are kept."""
        at_once = max(1, min(AT_ONCE, COPIED // math.prod(self._source.shape)))
        return [rows[start : start + at_once] for start in range(0, len(rows), at_once)]

    @cached_property
    def graph(self) -> Any:
        """Of neighbours, sparse [N, N]."""
        return neighbour_graph(_of_length_1(self._own[:, :NEAR]))

    @cached_property
    def _own(self) -> np.ndarray:
        rows, fitted, _ = self._fitted
        own = np.empty((len(self._source), fitted.shape[1]), np.float32)
        own[rows] = fitted
        for part in self.parts(np.setdiff1d(np.arange(len(own)), rows)):
            own[part] = self.made(self._source.subset(part))
        return own

    @cached_property
    def _fitted(self) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Rows, what is kept of them, and how it is made of what they are as a whole."""
        rows = evenly_spaced(self._source, FITTED)
        whole = np.concatenate([self._whole(self._source.subset(part)) for part in self.parts(rows)])
        components = PCA(min(DIMENSIONS, *whole.shape), svd_solver="randomized", random_state=0).fit(whole)
        spread = components.explained_variance_
        scale = np.maximum(spread, SMALLEST * spread[0] + NOTHING**2) ** (-WHITENED / 2)

        def shortened(whole: np.ndarray) -> np.ndarray:
            found: np.ndarray = (components.transform(whole) * scale).astype(np.float32)
            return found

        return rows, shortened(whole), shortened

    @cached_property
    def _patches(self) -> Patches:
        return Patches.of(self._source)

    def _whole(self, source: ArraySource) -> np.ndarray:
        parts = [gradient_features(source), self._patches.features(source)]
        if self._embed is not None:
            parts.append(_of_length_1(self._embed(source)))
        return np.hstack(parts)


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    """Each row of [N, F] divided by its length, unless it is nearly 0."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), NOTHING)
    return scaled
