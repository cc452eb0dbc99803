"""Features that no label made: where in an image something resembles patches of the images themselves."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.source import ImageSource, evenly_spaced

SIDE = 32
"""Larger images are shrunk to it."""
PATCH = 6
"""Height and width in pixels."""
NUMBER = 128
"""Of patches that images are compared with."""
GRID = 4
"""Cells along each side."""
ALIKE = 0.4
"""Cosine from which a place counts as similar."""
CONTRAST = 0.02
"""Variance that is added to a patch's, so that noise in plain places stays small."""
PLAIN = 0.05
"""Standard deviation up to which a patch is not one to compare with."""
WHITE = 0.1
"""What is added to the variance of each direction that is brought to 1."""
IMAGES, FROM_EACH = 3000, 20
"""Of which patches are taken, and how many from each."""
READ_AT_ONCE = 2**22
"""Numbers of the images that are read together."""
AT_ONCE = 16 * 28 * 28
"""Places that a core looks at together: more do not fit in its cache."""
CORES = 8
"""At most so many, since their memory adds up."""
NUM_FEATURES = NUMBER * GRID**2


@dataclass(frozen=True)
class Patches:
    """Those that images are compared with, once whitened (Coates, Lee & Ng 2011, section 3; random ones serve as well).

    In kernels: Thiry et al. 2021, section 2.
    """

    mean: Tensor
    """float [Q] of patches of variance 1, Q = C * PATCH^2."""
    whiten: Tensor
    """float [Q, Q]."""
    shown: Tensor
    """float [NUMBER, Q], whitened, of length 1."""

    @classmethod
    def of(cls, source: ImageSource) -> "Patches":
        """Patches at random places of some images; always the same of the same images."""
        rng = np.random.default_rng(0)
        some = []
        for images in _shrunk(source, evenly_spaced(source, IMAGES)):
            windows = _padded(images).unfold(2, PATCH, 1).unfold(3, PATCH, 1).movedim(1, 3)  # [B, down, right, C, 6, 6]
            size = (len(images), FROM_EACH)
            down, right = (torch.from_numpy(rng.integers(places, size=size)) for places in windows.shape[1:3])
            some.append(windows[torch.arange(len(images))[:, None], down, right].flatten(2).flatten(0, 1))
        patches = torch.cat(some)
        textured = patches[patches.std(dim=1) > PLAIN]
        patches = textured if len(textured) >= NUMBER else patches
        patches = patches - patches.mean(dim=1, keepdim=True)
        patches = patches / (patches.square().mean(dim=1, keepdim=True) + CONTRAST).sqrt()
        mean = patches.mean(dim=0)
        variances, directions = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        whiten = directions / (variances.clamp(min=0) + WHITE).sqrt() @ directions.T
        chosen = torch.from_numpy(rng.choice(len(patches), NUMBER, replace=len(patches) < NUMBER))
        return cls(mean, whiten, F.normalize((patches[chosen] - mean) @ whiten, dim=1))

    def features(self, source: ImageSource) -> np.ndarray:
        """Square roots of how similar each cell of an image is to each patch.

        Float32 [N, NUM_FEATURES], of length 1, or of 0 where nothing is similar.
        """
        features, done = np.empty((len(source), NUM_FEATURES), np.float32), 0
        for images in _shrunk(source, np.arange(len(source))):
            for part in images.split(max(1, AT_ONCE * min(CORES, torch.get_num_threads()) // images[0, 0].numel())):
                cells = F.adaptive_avg_pool2d(self._similar(part), GRID).flatten(1)
                features[done : done + len(part)] = F.normalize(cells.sqrt(), dim=1).numpy()
                done += len(part)
        return features

    def _similar(self, images: Tensor) -> Tensor:
        """By how much the cosine is above ``ALIKE``: float [B, C, H, W] to [B, NUMBER, H + 1, W + 1]."""
        channels, size = images.shape[1], len(self.mean)
        padded = _padded(images)
        average = torch.full((1, channels, PATCH, PATCH), 1 / size)
        # All is linear in the pixels but two lengths, by which it is divided: of the patch, and of the whitened one.
        linear = self.whiten - self.whiten.mean(dim=0)  # takes a patch's own mean from it first
        kernels = [of.reshape(-1, channels, PATCH, PATCH) for of in (linear.T, self.shown @ linear.T)]
        variance = F.conv2d(padded.square(), average) - F.conv2d(padded, average).square()
        contrast = (variance.clamp(min=0) + CONTRAST).sqrt()
        off = self.mean @ self.whiten
        white = F.conv2d(padded, kernels[0]) - contrast * off[:, None, None]
        length = white.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
        similar = F.conv2d(padded, kernels[1])
        similar.addcmul_(contrast, (self.shown @ off)[:, None, None], value=-1)
        return similar.sub_(ALIKE * length).clamp_(min=0).div_(length)


def _shrunk(source: ImageSource, rows: np.ndarray) -> Iterator[Tensor]:
    """Images float [B, C, H, W] in [0, 1], H and W at most ``SIDE``, a batch at a time."""
    height, width = (min(SIDE, side) for side in source.shape[1:])
    batch = max(1, READ_AT_ONCE // math.prod(source.shape))
    for start in range(0, len(rows), batch):
        images = source.read(rows[start : start + batch]).float() / 255
        yield images if images.shape[2:] == (height, width) else F.adaptive_avg_pool2d(images, (height, width))


def _padded(images: Tensor) -> Tensor:
    return F.pad(images, (PATCH // 2,) * 4)
