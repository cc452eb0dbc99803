"""What kernel ridge and neighbours know of images: gradients, patches, and pretrained embeddings if there are some."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from fewlabels.data.source import ArraySource
from fewlabels.fit import gradients, patches
from fewlabels.fit.gradients import gradient_features
from fewlabels.fit.patches import Patches
from fewlabels.fit.propagation import neighbour_graph

HELD = 200_000
"""Images up to which features are kept; of more they are made anew whenever they are asked for."""
AT_ONCE, COPIED = 8192, 2**28
"""Images whose features are made or asked for together, and pixels that are copied for it."""


def num_features(channels: int) -> int:
    """F of :class:`Features` without embeddings."""
    return gradients.num_features(channels) + patches.NUM_FEATURES


class Features:
    """What kernel and graph know of the images: features that no label made, computed when first asked for.

    Args:
        source: the images.
        embed: gives pretrained embeddings float [N, F] of images, to stand beside the others; None: they are alone.
    """

    def __init__(self, source: ArraySource, embed: Callable[[ArraySource], np.ndarray] | None) -> None:
        self._source, self._embed = source, embed

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Float32 [R, F], of length 1 (an image without any change has shorter ones)."""
        if self.held:
            known: np.ndarray = self.vectors[rows].astype(np.float32)
            return known
        return np.concatenate([self.made(self._source.subset(part)) for part in self.parts(rows)])

    @property
    def held(self) -> bool:
        """Whether those of all images are kept."""
        return len(self._source) <= HELD

    @cached_property
    def vectors(self) -> np.ndarray:
        """Of all images, float16 [N, F]: a kernel is as good, and memory holds twice as many."""
        parts = self.parts(np.arange(len(self._source)))
        return np.concatenate([self.made(self._source.subset(part)).astype(np.float16) for part in parts])

    def made(self, source: ArraySource) -> np.ndarray:
        """Of these images, as ``of`` has them."""
        parts = [gradient_features(source), self._patches.features(source)]
        if self._embed is not None:
            embeddings = self._embed(source)
            parts.append(embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12))
        together: np.ndarray = np.hstack(parts) / np.float32(np.sqrt(len(parts)))
        return together

    def parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in parts whose features fit in memory beside those that are kept."""
        at_once = max(1, min(AT_ONCE, COPIED // math.prod(self._source.shape)))
        return np.array_split(rows, -(-len(rows) // at_once))

    @cached_property
    def _patches(self) -> Patches:
        return Patches.of(self._source)

    @cached_property
    def graph(self) -> Any:
        """Of neighbours, sparse [N, N]."""
        return neighbour_graph(self.vectors)
