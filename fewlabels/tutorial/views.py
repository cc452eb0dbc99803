"""Views of the tutorial: RandAugment, drawn once for a whole batch."""

from functools import cache

from torch import Tensor
from torchvision.transforms import RandAugment

from fewlabels._internal.seeding import seeded


@cache
def _policy(num_ops: int) -> RandAugment:
    return RandAugment(num_ops=num_ops)


def randaugment(images: Tensor, key: tuple[int | str, ...], first_row: int = 0, num_ops: int = 5) -> Tensor:
    """Augment a batch by RandAugment (Cubuk et al. 2020), drawn once for the whole batch as in the tutorial.

    Args:
        images: uint8 [B, C, H, W] with C = 1 or 3.
        key: seed of the random operations.
        first_row: has no effect, because all images share one policy.
        num_ops: number of operations, applied in sequence.

    Returns:
        float32 [B, C, H, W] in [0, 1].
    """
    with seeded(*key):
        augmented: Tensor = _policy(num_ops)(images)
    return augmented.float() / 255
