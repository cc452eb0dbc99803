"""Unsupervised features: similarity of regions of an image to random patches of the images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.source import ImageSource, evenly_spaced

MAX_SIDE = 32
"""Height and width above which images are downscaled. Not tuned."""
PATCH_SIZE = 6
"""Height and width of a patch in pixels. Not tuned."""
NUM_PATCHES = 128
"""Patches that images are compared with (dev/trials.md)."""
CELLS_PER_SIDE = 4
"""Cells along each side over which similarities are averaged. Not tuned."""
MIN_SIMILARITY = 0.4
"""Cosine similarity that is subtracted; positions with less similarity count as 0. Not tuned."""
CONTRAST_OFFSET = 0.02
"""Value added to the variance of a patch, so that noise in plain regions stays small. Not tuned."""
MAX_PLAIN_STD = 0.05
"""Standard deviation up to which a patch counts as plain and is left out. Not tuned."""
WHITENING_OFFSET = 0.1
"""Value added to the variance of each principal direction in whitening. Not tuned."""
PATCH_IMAGES, PATCHES_PER_IMAGE = 3000, 20
"""Images that patches are sampled from, and patches per image. Not tuned."""
VALUES_PER_READ = 2**22
"""Pixel values of the images that are read at a time; limits memory."""
POSITIONS_PER_CORE = 16 * 28 * 28
"""Positions that a core computes at a time: more do not fit into its cache."""
MAX_CORES = 8
"""Cores that compute at the same time, at most; limits memory."""
NUM_FEATURES = NUM_PATCHES * CELLS_PER_SIDE**2
"""Length of a feature vector."""


@dataclass(frozen=True)
class Patches:
    """Random whitened patches that images are compared with (Coates, Lee & Ng 2011, section 3).

    For random patches as kernel features see Thiry et al. 2021, section 2.
    """

    mean: Tensor
    """float [Q], mean of normalised patches; Q = C * PATCH_SIZE^2."""
    whiten: Tensor
    """float [Q, Q], whitening matrix."""
    filters: Tensor
    """float [NUM_PATCHES, Q], the whitened patches, of length 1."""

    @classmethod
    def of(cls, source: ImageSource) -> "Patches":
        """Sample patches at random positions of some images; the result depends on the images alone."""
        rng = np.random.default_rng(0)
        some = []
        for images in _downscaled_batches(source, evenly_spaced(source, PATCH_IMAGES)):
            windows = _padded(images).unfold(2, PATCH_SIZE, 1).unfold(3, PATCH_SIZE, 1)
            windows = windows.movedim(1, 3)  # [B, down, right, C, 6, 6]
            size = (len(images), PATCHES_PER_IMAGE)
            down, right = (torch.from_numpy(rng.integers(positions, size=size)) for positions in windows.shape[1:3])
            some.append(windows[torch.arange(len(images))[:, None], down, right].flatten(2).flatten(0, 1))
        patches = torch.cat(some)
        textured = patches[patches.std(dim=1) > MAX_PLAIN_STD]
        patches = textured if len(textured) >= NUM_PATCHES else patches
        patches = patches - patches.mean(dim=1, keepdim=True)
        patches = patches / (patches.square().mean(dim=1, keepdim=True) + CONTRAST_OFFSET).sqrt()
        mean = patches.mean(dim=0)
        variances, directions = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        whiten = directions / (variances.clamp(min=0) + WHITENING_OFFSET).sqrt() @ directions.T
        chosen = torch.from_numpy(rng.choice(len(patches), NUM_PATCHES, replace=len(patches) < NUM_PATCHES))
        return cls(mean, whiten, F.normalize((patches[chosen] - mean) @ whiten, dim=1))

    def features(self, source: ImageSource) -> np.ndarray:
        """Compute the square root of the similarity of each cell of an image to each patch: float32 [N, NUM_FEATURES].

        Vectors have length 1, or 0 if nothing is similar.
        """
        features, done = np.empty((len(source), NUM_FEATURES), np.float32), 0
        for images in _downscaled_batches(source, np.arange(len(source))):
            positions = POSITIONS_PER_CORE * min(MAX_CORES, torch.get_num_threads())
            for part in images.split(max(1, positions // images[0, 0].numel())):
                cells = F.adaptive_avg_pool2d(self._similar(part), CELLS_PER_SIDE).flatten(1)
                features[done : done + len(part)] = F.normalize(cells.sqrt(), dim=1).numpy()
                done += len(part)
        return features

    def _similar(self, images: Tensor) -> Tensor:
        """Cosine similarity above ``MIN_SIMILARITY``: float [B, C, H, W] to [B, NUM_PATCHES, H + 1, W + 1]."""
        channels, size = images.shape[1], len(self.mean)
        padded = _padded(images)
        average = torch.full((1, channels, PATCH_SIZE, PATCH_SIZE), 1 / size)
        # All is linear in the pixels but two divisors: the lengths of the patch and of the whitened patch.
        linear = self.whiten - self.whiten.mean(dim=0)  # also subtracts the patch's own mean
        kernels = [of.reshape(-1, channels, PATCH_SIZE, PATCH_SIZE) for of in (linear.T, self.filters @ linear.T)]
        variance = F.conv2d(padded.square(), average) - F.conv2d(padded, average).square()
        contrast = (variance.clamp(min=0) + CONTRAST_OFFSET).sqrt()
        offset = self.mean @ self.whiten
        white = F.conv2d(padded, kernels[0]) - contrast * offset[:, None, None]
        length = white.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
        similar = F.conv2d(padded, kernels[1])
        similar.addcmul_(contrast, (self.filters @ offset)[:, None, None], value=-1)
        return similar.sub_(MIN_SIMILARITY * length).clamp_(min=0).div_(length)


def _downscaled_batches(source: ImageSource, rows: np.ndarray) -> Iterator[Tensor]:
    """Yield batches of images, float [B, C, H, W] in [0, 1], with H and W of at most ``MAX_SIDE``."""
    height, width = (min(MAX_SIDE, side) for side in source.shape[1:])
    batch = max(1, VALUES_PER_READ // math.prod(source.shape))
    for start in range(0, len(rows), batch):
        images = source.read(rows[start : start + batch]).float() / 255
        yield images if images.shape[2:] == (height, width) else F.adaptive_avg_pool2d(images, (height, width))


def _padded(images: Tensor) -> Tensor:
    return F.pad(images, (PATCH_SIZE // 2,) * 4)
