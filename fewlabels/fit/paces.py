"""What a step takes by count instead of clock, so that a fit is the same wherever and whenever it runs."""

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from fewlabels.fit.arms import Student
from fewlabels.fit.objectives import LabelSettings, SelfTrainingSettings
from fewlabels.models.backbones import make_backbone, refuse_size

RATE = 80e9
"""Floating-point operations a second, as a core of an AMD EPYC with AVX-512 does them in single precision."""
STEP = 0.01
"""Seconds of a step beside them, for views and optimizer."""
TRAINED, ASKED = 3, 6
"""Forward passes that a training image costs, and one that a finished network is asked of, in six views."""


def counted_paces(backbone: str, teacher: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """Seconds a step of each arm, and of an ``image`` that a network is asked of, for :class:`~fewlabels.fit.fit.Fit`.

    Args:
        backbone: of the classifier.
        teacher: the backbone that teaches itself.
        shape: (C, H, W) of the images.

    Raises:
        InputError: if a backbone is unknown or does not take images of this size.
    """
    own, teachers = (_operations(name, shape) / RATE for name in (backbone, teacher))
    labels, others = LabelSettings().batch_size, SelfTrainingSettings().batch_size
    of_labels = STEP + TRAINED * labels * own
    return {
        "supervised": of_labels,
        "finetune": of_labels,
        "selftrain": STEP + (TRAINED * (labels + others) + others) * teachers,  # it asks itself of the others first
        "student": STEP + TRAINED * Student.batch_size * own,
        "image": ASKED * own,
    }


@cache
def _operations(name: str, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one image's features."""
    channels, height, width = shape
    backbone = make_backbone(name, channels).eval()
    refuse_size("images", height, width, name, backbone.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(torch.zeros(1, *shape))
    return int(counter.get_total_flops())
