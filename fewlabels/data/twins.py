"""Images that stand in two sets: what a test finds there it may have learned by heart."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F

from fewlabels.data.source import ImageSource

SIDE = 32
"""Larger images are compared at this size, in pixels."""
COMPONENTS = 64
"""Of the principal components that candidates are found by."""
LEARNED_FROM = 6000
"""Images that the components are taken from."""
CANDIDATES = 5
ALIKE = 0.1
"""Root mean square of the difference over the image's own standard deviation, up to which two images are one."""
BATCH = 1024


def twins(images: ImageSource, others: ImageSource) -> np.ndarray:
    """For each image the row of its twin among the others, or -1 where it has none; int64 [N].

    Twins are equal but for compression, or nearly so; an image without any contrast has none. The nearest in 64
    principal components are compared pixel by pixel.

    Args:
        images: of one shape with the others.
        others: what they might be copied from.
    """
    return _alike(_pixels(images), _pixels(others), CANDIDATES)


def twins_within(images: ImageSource) -> np.ndarray:
    """As :func:`twins`, for each image another one of the same images."""
    pixels = _pixels(images)
    return _alike(pixels, pixels, CANDIDATES + 1, but_itself=True)


def _alike(ours: np.ndarray, theirs: np.ndarray, number: int, but_itself: bool = False) -> np.ndarray:
    found = np.full(len(ours), -1)
    some = np.linspace(0, len(theirs) - 1, min(LEARNED_FROM, len(theirs))).astype(np.int64)
    number = min(number, len(theirs))
    if not np.ptp(theirs[some]):
        return found
    components = PCA(min(COMPONENTS, len(some), theirs.shape[1]), random_state=0).fit(theirs[some])
    neighbours = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(components.transform(theirs))
    candidates = neighbours.kneighbors(components.transform(ours), return_distance=False)
    for start in range(0, len(ours), BATCH):
        rows = np.arange(start, min(start + BATCH, len(ours)))
        nearest = candidates[rows]
        apart = np.stack([np.square(theirs[nearest[:, n]] - ours[rows]).mean(axis=1) for n in range(number)], axis=1)
        if but_itself:
            apart[nearest == rows[:, None]] = np.inf
        best = apart.argmin(axis=1)
        places = np.arange(len(best))
        contrast = ours[rows].var(axis=1)
        alike = (apart[places, best] <= ALIKE**2 * contrast) & (contrast > 0)
        found[rows] = np.where(alike, nearest[places, best], -1)
    return found


def _pixels(source: ImageSource) -> np.ndarray:
    """Float32 [N, D] in 0..1, of images no larger than ``SIDE``."""
    height, width = (min(SIDE, side) for side in source.shape[1:])
    parts = []
    for start in range(0, len(source), BATCH):
        images = source.read(slice(start, start + BATCH)).float() / 255
        parts.append(F.adaptive_avg_pool2d(images, (height, width)).flatten(1))
    return torch.cat(parts).numpy()
