"""CutMix (Yun et al. 2019): paste a box of another image into each image."""

import numpy as np
import torch
from torch import Tensor

from fewlabels._internal.seeding import uniform
from fewlabels.augment.geometry import pixel_box
from fewlabels.augment.photometric import boxes


def cutmix(images: Tensor, key: tuple[int | str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Paste a box of another image of the batch into each image (section 3.1, eq. 2).

    The box lies inside of the image and has its aspect ratio. Its fraction of the area is uniform in [0, 1].

    Args:
        images: float [B, C, H, W].
        key: of the random numbers, such as (seed, step).

    Returns:
        Mixed images, float [B, C, H, W]; int64 [B], the row of the image that each box comes from; float32 [B], the
        fraction of its own pixels that each image keeps.
    """
    count, _, height, width = images.shape
    u = uniform(count, 4, *key)
    partners = torch.from_numpy(np.argsort(u[:, 3])).to(images.device)
    box = pixel_box(height, width, area=u[:, 0], ratio=1.0, top=u[:, 1], left=u[:, 2])
    inside = boxes(images, *(torch.from_numpy(side).float().to(images.device) for side in box))
    mixed = torch.where(inside, images[partners], images)
    own_fraction = torch.from_numpy(1 - box[2] * box[3] / (height * width)).float().to(images.device)
    return mixed, partners, own_fraction
