"""CutMix (Yun et al. 2019): a box of another image is pasted into each."""

import numpy as np
import torch
from torch import Tensor

from fewlabels._internal.seeding import uniform
from fewlabels.augment.geometry import pixel_box
from fewlabels.augment.photometric import boxes


def cutmix(images: Tensor, key: tuple[int | str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Paste a box of another image of the batch into each; the box has the image's proportions (section 3.1, eq. 2).

    The box's share of the area is uniform in [0, 1], and it lies inside of the image.

    Args:
        images: float [B, C, H, W].
        key: what the random numbers depend on, such as (seed, step).

    Returns:
        Mixed images float [B, C, H, W]; int64 [B], whose box it is; float32 [B], the share of its own pixels that each
        keeps.
    """
    count, _, height, width = images.shape
    u = uniform(count, 4, *key)
    partners = torch.from_numpy(np.argsort(u[:, 3])).to(images.device)
    box = pixel_box(height, width, share=u[:, 0], ratio=1.0, top=u[:, 1], left=u[:, 2])
    inside = boxes(images, *(torch.from_numpy(side).float().to(images.device) for side in box))
    mixed = torch.where(inside, images[partners], images)
    kept = torch.from_numpy(1 - box[2] * box[3] / (height * width)).float().to(images.device)
    return mixed, partners, kept
