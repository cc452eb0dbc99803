"""Images that stand in two sets: what a test finds there it may have learned by heart."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.source import ImageSource
from fewlabels.features.embeddings import neighbours

SIDE = 32
"""Larger images are compared at this size, in pixels."""
COMPONENTS = 64
"""Of the principal components of spectra that candidates are found by."""
LEARNED_FROM = 6000
"""Images that the components are taken from."""
CANDIDATES = 5
NEAREST = 5
"""Nearest neighbours of an image, by embedding, that may be its duplicates."""
APART = 0.06
"""Root mean square of the difference, of blurred pixels brought to mean 0 and variance 1, up to which images are twins:
at it nearly all copies are found, and few real images have a twin (docs/your-images.md)."""
BRIGHTER, STRONGER = 0.15, 1.4
"""What twins may differ by: in mean brightness, of 1, and how many times in contrast."""
LEAST_SHIFTED = 8
"""Pixels of a side, below which a shift by one would leave too little."""
ALIKE = 0.1
"""Of :func:`difference`, up to which two images are one."""
BATCH = 1024
BLUR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])[None, None] / 16
"""It takes away what compression adds."""


def twins(images: ImageSource, others: ImageSource) -> np.ndarray:
    """For each image the row of its twin among the others, or -1 where it has none; int64 [N].

    Twins are equal but for compression, a change of size and back, slightly more or less brightness and contrast, and
    a shift of one pixel; an image without any contrast has none. Candidates are those with the nearest spectrum, which
    no shift changes; they are compared pixel by pixel.

    Args:
        images: of one shape with the others.
        others: what they might be copied from.
    """
    return _twins(_blurred(images), _blurred(others))


def twins_within(images: ImageSource) -> np.ndarray:
    """As :func:`twins`, for each image another one of the same images."""
    pixels = _blurred(images)
    return _twins(pixels, pixels, but_itself=True)


def _twins(ours: Tensor, theirs: Tensor, but_itself: bool = False) -> np.ndarray:
    found = np.full(len(ours), -1)
    if not len(ours) or not len(theirs):
        return found
    candidates = _candidates(ours, theirs, CANDIDATES + but_itself)
    for start in range(0, len(ours), BATCH):
        rows = np.arange(start, min(start + BATCH, len(ours)))
        nearest = candidates[rows]
        apart = np.stack([_apart(ours[rows], theirs[nearest[:, n]]) for n in range(nearest.shape[1])], axis=1)
        if but_itself:
            apart[nearest == rows[:, None]] = np.inf
        best = nearest[np.arange(len(rows)), apart.argmin(axis=1)]
        found[rows] = np.where(apart.min(axis=1) <= APART, best, -1)
    return found


def _candidates(ours: Tensor, theirs: Tensor, number: int) -> np.ndarray:
    """For each of ours the rows of theirs with the nearest spectra, or all where they are few: int64 [N, number]."""
    if len(theirs) <= number:
        return np.tile(np.arange(len(theirs)), (len(ours), 1))
    spectra = _spectra(theirs[torch.linspace(0, len(theirs) - 1, min(LEARNED_FROM, len(theirs))).long()])
    components = PCA(min(COMPONENTS, *spectra.shape), random_state=0).fit(spectra)
    ours_short, theirs_short = (
        np.concatenate([components.transform(_spectra(part)) for part in images.split(BATCH)])
        for images in (ours, theirs)
    )
    neighbours = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(theirs_short)
    nearest: np.ndarray = neighbours.kneighbors(ours_short, return_distance=False)
    return nearest


def _apart(images: Tensor, others: Tensor) -> np.ndarray:
    """Of each of [N, C, H, W] to the other in its place, at the best shift: float32 [N]; inf of what cannot be one."""
    margin = int(min(images.shape[2:]) >= LEAST_SHIFTED)
    height, width = (side - 2 * margin for side in images.shape[2:])
    middle = images[..., margin : margin + height, margin : margin + width]
    ours, alike = _standardised(middle), torch.full((len(images),), -1.0)
    for down in range(2 * margin + 1):
        for right in range(2 * margin + 1):
            theirs = _standardised(others[..., down : down + height, right : right + width])
            alike = torch.maximum(alike, (ours * theirs).mean(dim=1))
    (bright, contrast), (other_bright, other_contrast) = (
        (each.flatten(1).mean(dim=1), each.flatten(1).std(dim=1, correction=0)) for each in (images, others)
    )
    low, high = torch.minimum(contrast, other_contrast), torch.maximum(contrast, other_contrast)
    may_be = ((bright - other_bright).abs() <= BRIGHTER) & (high <= STRONGER * low) & (low > 1e-6)
    apart = (2 * (1 - alike)).clamp(min=0).sqrt()
    of_each: np.ndarray = torch.where(may_be, apart, torch.inf).numpy()
    return of_each


def _standardised(images: Tensor) -> Tensor:
    """[N, C, H, W] as [N, D] of mean 0 and variance 1; zeros without any contrast."""
    flat = images.flatten(1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    return centred / centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)


def _spectra(images: Tensor) -> np.ndarray:
    """How strong each frequency is."""
    standardised = _standardised(images).view_as(images)
    of_each: np.ndarray = torch.fft.rfft2(standardised).abs().flatten(1).numpy()
    return of_each


def _blurred(source: ImageSource) -> Tensor:
    """Float32 [N, C, H, W] in 0..1, no larger than ``SIDE``."""
    height, width = (min(SIDE, side) for side in source.shape[1:])
    parts = []
    for start in range(0, len(source), BATCH):
        images = F.adaptive_avg_pool2d(source.read(slice(start, start + BATCH)).float() / 255, (height, width))
        planes = F.pad(images.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
        parts.append(F.conv2d(planes, BLUR).view_as(images))
    return torch.cat(parts)


def difference(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each image to the other in its place: float32 [N], up to ``ALIKE`` for twins; inf without any contrast.

    Args:
        images: float32 [N, D], as of :func:`small_pixels`.
        others: as many.
    """
    contrast = images.std(axis=1)
    apart = np.sqrt(np.square(images - others).mean(axis=1))
    seen = contrast > 1e-6  # below it is rounding
    of_each: np.ndarray = np.divide(apart, contrast, out=np.full_like(apart, np.inf), where=seen)
    return of_each


def small_pixels(images: torch.Tensor) -> np.ndarray:
    """Float32 [N, D] in 0..1 of uint8 [N, C, H, W], made no larger than ``SIDE``."""
    height, width = (min(SIDE, side) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.float() / 255, (height, width)).flatten(1).numpy()


def duplicates(vectors: np.ndarray, pixels: np.ndarray, digests: Sequence[str]) -> list[np.ndarray]:
    """Rows of images that are one picture, int64, a group each; in the order of their first.

    Images of one digest are one. Near-duplicates are looked for among the nearest by cosine and confirmed by their
    pixels, by :func:`difference`; who has a common duplicate is in one group.

    Args:
        vectors: float32 [N, F].
        pixels: uint8 [N, D], of small images.
        digests: of all pixels, N.
    """
    _, first, kind = np.unique(np.array(digests), return_index=True, return_inverse=True)
    pairs = first[_near(vectors[first], pixels[first])]
    ends = np.concatenate([pairs, np.stack([np.arange(len(kind)), first[kind]], axis=1)])
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (len(kind),) * 2)
    group = connected_components(graph, directed=False)[1]
    by_group = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    return sorted((rows for rows in by_group if len(rows) > 1), key=lambda rows: int(rows[0]))


def _near(vectors: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Pairs of rows, int64 [P, 2]."""
    number = min(NEAREST, len(vectors) - 1)
    if not number:
        return np.empty((0, 2), np.int64)
    found = neighbours(vectors, number).rows
    pairs = []
    for place in range(number):
        ours = np.flatnonzero(found[:, place] >= 0)
        for rows in np.array_split(ours, -(-len(ours) // 4096) or 1):
            theirs = found[rows, place]
            alike = difference(pixels[rows] / np.float32(255), pixels[theirs] / np.float32(255)) <= ALIKE
            pairs.append(np.stack([rows, theirs], axis=1)[alike])
    return np.concatenate(pairs)
