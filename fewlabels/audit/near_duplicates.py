"""Find near-duplicates: between a training and a test set, or within one set."""

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

COMPARED_SIDE = 32
"""Side in pixels to which larger images are reduced before they are compared. Not tuned."""
SPECTRUM_COMPONENTS = 64
"""Principal components of the spectra, in which candidates are searched. Not tuned."""
MAX_PCA_IMAGES = 6000
"""Number of images from which the principal components are computed, at most. Not tuned."""
SPECTRUM_CANDIDATES = 5
"""Number of nearest spectra whose images are compared pixel by pixel. Not tuned."""
EMBEDDING_CANDIDATES = 5
"""Number of nearest embeddings whose images are compared pixel by pixel. Not tuned."""
MAX_RMS_DIFFERENCE = 0.06
"""Root mean square difference of blurred, standardised pixels up to which images are near-duplicates.

It finds nearly all planted copies and few pairs of real images (docs/your-images.md).
"""
MAX_BRIGHTNESS_DIFFERENCE, MAX_CONTRAST_RATIO = 0.15, 1.4
"""Largest difference in mean brightness, for pixels in 0..1, and largest ratio of contrasts. Not tuned."""
MIN_SIDE_TO_SHIFT = 8
"""Side in pixels below which images are not compared at shifts of one pixel. Not tuned."""
MAX_RELATIVE_DIFFERENCE = 0.1
"""Value of :func:`difference` up to which two images are duplicates. Not tuned."""
IMAGES_PER_BLOCK = 1024
"""Number of images that are compared at a time. Not tuned."""
BLUR_KERNEL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])[None, None] / 16
"""Binomial filter, which suppresses compression artefacts."""


def near_duplicates(images: ImageSource, others: ImageSource) -> np.ndarray:
    """Return for each image the row of its near-duplicate among the others, or -1 if it has none; int64 [N].

    Near-duplicates may differ by lossy compression, by resizing and back, a little in brightness and contrast, and by a
    shift of one pixel. An image without contrast has none. Candidates are the images with the nearest amplitude
    spectra, which do not depend on shifts. The candidates are then compared pixel by pixel.

    Args:
        images: N images.
        others: possible originals, of the same shape.
    """
    return _near_duplicates(_blurred(images), _blurred(others))


def near_duplicates_within(images: ImageSource) -> np.ndarray:
    """Return for each image the row of a near-duplicate among the other images, or -1; as :func:`near_duplicates`."""
    pixels = _blurred(images)
    return _near_duplicates(pixels, pixels, exclude_self=True)


def _near_duplicates(ours: Tensor, theirs: Tensor, exclude_self: bool = False) -> np.ndarray:
    found = np.full(len(ours), -1)
    if not len(ours) or not len(theirs):
        return found
    candidates = _candidates(ours, theirs, SPECTRUM_CANDIDATES + exclude_self)
    for start in range(0, len(ours), IMAGES_PER_BLOCK):
        rows = np.arange(start, min(start + IMAGES_PER_BLOCK, len(ours)))
        nearest = candidates[rows]
        columns = range(nearest.shape[1])
        distance = np.stack([_rms_difference(ours[rows], theirs[nearest[:, n]]) for n in columns], axis=1)
        if exclude_self:
            distance[nearest == rows[:, None]] = np.inf
        best = nearest[np.arange(len(rows)), distance.argmin(axis=1)]
        found[rows] = np.where(distance.min(axis=1) <= MAX_RMS_DIFFERENCE, best, -1)
    return found


def _candidates(ours: Tensor, theirs: Tensor, number: int) -> np.ndarray:
    """Return for each of ours the rows of theirs with the nearest spectra; int64 [N, number].

    If there are at most ``number`` of theirs, each row has all of them.
    """
    if len(theirs) <= number:
        return np.tile(np.arange(len(theirs)), (len(ours), 1))
    spectra = _spectra(theirs[torch.linspace(0, len(theirs) - 1, min(MAX_PCA_IMAGES, len(theirs))).long()])
    pca = PCA(min(SPECTRUM_COMPONENTS, *spectra.shape), random_state=0).fit(spectra)
    ours_projected, theirs_projected = (
        np.concatenate([pca.transform(_spectra(block)) for block in images.split(IMAGES_PER_BLOCK)])
        for images in (ours, theirs)
    )
    neighbours = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(theirs_projected)
    nearest: np.ndarray = neighbours.kneighbors(ours_projected, return_distance=False)
    return nearest


def _rms_difference(images: Tensor, others: Tensor) -> np.ndarray:
    """Return the root mean square difference of standardised pixels in each pair, at the best shift; float32 [N].

    It is inf where brightness or contrast differ too much, or an image has no contrast.

    Args:
        images: [N, C, H, W].
        others: [N, C, H, W]; image i is compared with other i.
    """
    margin = int(min(images.shape[2:]) >= MIN_SIDE_TO_SHIFT)
    height, width = (side - 2 * margin for side in images.shape[2:])
    centre = images[..., margin : margin + height, margin : margin + width]
    ours, correlation = _standardised(centre), torch.full((len(images),), -1.0)
    for down in range(2 * margin + 1):
        for right in range(2 * margin + 1):
            theirs = _standardised(others[..., down : down + height, right : right + width])
            correlation = torch.maximum(correlation, (ours * theirs).mean(dim=1))
    (brightness, contrast), (other_brightness, other_contrast) = (
        (each.flatten(1).mean(dim=1), each.flatten(1).std(dim=1, correction=0)) for each in (images, others)
    )
    low, high = torch.minimum(contrast, other_contrast), torch.maximum(contrast, other_contrast)
    similar = (brightness - other_brightness).abs() <= MAX_BRIGHTNESS_DIFFERENCE
    similar &= (high <= MAX_CONTRAST_RATIO * low) & (low > 1e-6)
    distance: np.ndarray = torch.where(similar, (2 * (1 - correlation)).clamp(min=0).sqrt(), torch.inf).numpy()
    return distance


def _standardised(images: Tensor) -> Tensor:
    """Return [N, C, H, W] as [N, D] with mean 0 and variance 1 per image; zeros for an image without contrast."""
    flat = images.flatten(1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    return centred / centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)


def _spectra(images: Tensor) -> np.ndarray:
    """Return the amplitude spectra of standardised images [N, C, H, W]; float32 [N, D]."""
    standardised = _standardised(images).view_as(images)
    amplitudes: np.ndarray = torch.fft.rfft2(standardised).abs().flatten(1).numpy()
    return amplitudes


def _blurred(source: ImageSource) -> Tensor:
    """Return blurred images, float32 [N, C, H, W] in 0..1, reduced to ``COMPARED_SIDE`` if they are larger."""
    height, width = (min(COMPARED_SIDE, side) for side in source.shape[1:])
    parts = []
    for start in range(0, len(source), IMAGES_PER_BLOCK):
        images = source.read(slice(start, start + IMAGES_PER_BLOCK)).float() / 255
        images = F.adaptive_avg_pool2d(images, (height, width))
        planes = F.pad(images.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
        parts.append(F.conv2d(planes, BLUR_KERNEL).view_as(images))
    return torch.cat(parts)


def difference(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the root mean square difference in each pair, divided by the image's contrast; float32 [N].

    It is inf for an image without contrast. Up to ``MAX_RELATIVE_DIFFERENCE`` the pair counts as duplicates.

    Args:
        images: float32 [N, D], from :func:`small_pixels`.
        others: float32 [N, D]; image i is compared with other i.
    """
    contrast = images.std(axis=1)
    distance = np.sqrt(np.square(images - others).mean(axis=1))
    has_contrast = contrast > 1e-6  # smaller values are rounding errors
    relative: np.ndarray = np.divide(distance, contrast, out=np.full_like(distance, np.inf), where=has_contrast)
    return relative


def small_pixels(images: torch.Tensor) -> np.ndarray:
    """Return uint8 [N, C, H, W] as float32 [N, D] in 0..1, reduced to ``COMPARED_SIDE`` if they are larger."""
    height, width = (min(COMPARED_SIDE, side) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.float() / 255, (height, width)).flatten(1).numpy()


def duplicates(vectors: np.ndarray, pixels: np.ndarray, digests: Sequence[str]) -> list[np.ndarray]:
    """Return groups of duplicates, each as int64 rows, sorted by their first row.

    Images with equal digests are duplicates. Other candidates are the nearest embeddings by cosine, and
    :func:`difference` decides about their pixels. Images that have a duplicate in common are in the same group.

    Args:
        vectors: float32 [N, F], embeddings.
        pixels: uint8 [N, D], from :func:`small_pixels` times 255.
        digests: N digests of all pixels.
    """
    _, first, kind = np.unique(np.array(digests), return_index=True, return_inverse=True)
    pairs = first[_similar_pairs(vectors[first], pixels[first])]
    ends = np.concatenate([pairs, np.stack([np.arange(len(kind)), first[kind]], axis=1)])
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (len(kind),) * 2)
    group = connected_components(graph, directed=False)[1]
    by_group = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    return sorted((rows for rows in by_group if len(rows) > 1), key=lambda rows: int(rows[0]))


def _similar_pairs(vectors: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return pairs of rows with near embeddings and a small difference of pixels; int64 [P, 2]."""
    number = min(EMBEDDING_CANDIDATES, len(vectors) - 1)
    if not number:
        return np.empty((0, 2), np.int64)
    found = neighbours(vectors, number).rows
    pairs = []
    for rank in range(number):
        ours = np.flatnonzero(found[:, rank] >= 0)
        for rows in np.array_split(ours, -(-len(ours) // 4096) or 1):
            theirs = found[rows, rank]
            relative = difference(pixels[rows] / np.float32(255), pixels[theirs] / np.float32(255))
            pairs.append(np.stack([rows, theirs], axis=1)[relative <= MAX_RELATIVE_DIFFERENCE])
    return np.concatenate(pairs)
