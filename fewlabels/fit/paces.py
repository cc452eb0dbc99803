"""What a plan counts with instead of a clock, so that a fit is the same however busy the machine is.

By name: ``supervised``, ``finetune``, ``selftrain`` and ``student``, seconds a step; ``image`` and ``teacher``, seconds
a view that the classifier's network or the teacher's is asked of; ``features``, seconds an image; ``kernel``, seconds
an image and label.
"""

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fewlabels.backbones.architectures import make_backbone, refuse_size
from fewlabels.backbones.inference import TRIED, seconds_an_image, tried_images
from fewlabels.data.source import ArraySource
from fewlabels.features import hog as gradients
from fewlabels.features import patches
from fewlabels.features.extractor import DIMENSIONS, Features, kept
from fewlabels.fit.arms import Lab, NetworkArm, SelfTrain, Student, Supervised
from fewlabels.fit.kernel import KernelRidge
from fewlabels.fit.objectives import LabelSettings, SelfTrainingSettings
from fewlabels.fit.pool import Pool

RATE = 80e9
"""Floating-point operations a second, as a core of an AMD EPYC with AVX-512 does them in single precision."""
STEP = 0.01
"""Seconds of a step beside them, for views and optimizer."""
TRAINED = 3
"""Forward passes that a training image costs."""
PIXEL = 0.25e-6
"""Seconds that a pixel of the gradient features takes."""
PLACE = 0.4e-6
"""Seconds that a place compared with patches takes, beside operations."""


def counted_paces(backbone: str, teacher: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """Paces for :class:`~fewlabels.fit.fit.Fit` that are the same wherever and whenever it runs.

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
    channels, height, width = shape
    pixels, side = channels * patches.PATCH**2, patches.SIDE
    compared = min(height, side) * min(width, side) * (PLACE + 2 * pixels * (patches.NUMBER + pixels) / RATE)
    shortened = 2 * (gradients.num_features(channels) + patches.NUM_FEATURES) * DIMENSIONS / RATE
    return {
        "supervised": of_labels,
        "finetune": of_labels,
        "selftrain": STEP + (TRAINED * (labels + others) + others) * teachers,  # it asks itself of the others first
        "student": STEP + TRAINED * Student.batch_size * own,
        "image": own,
        "teacher": teachers,
        "features": channels * height * width * PIXEL + compared + shortened,
        "kernel": 2 * kept(TRIED) / RATE,
    }


def measured_paces(lab: Lab, pool: Pool, backbone: str, teacher: str) -> dict[str, float]:
    """Paces by a trial of each, here and now.

    Args:
        lab: what it would be trained with.
        pool: images, and some labels.
        backbone: of the classifier.
        teacher: the backbone that teaches itself.
    """
    classes = len(pool.source.class_names)
    said = np.full((len(pool.source), classes), 1 / classes)
    arms: list[NetworkArm] = [Supervised(lab, backbone)]
    if len(pool.unlabelled):
        arms.append(SelfTrain(lab, teacher, said[0], {"trial": np.log(said)}))
        arms.append(Student(lab, backbone, pool.unlabelled, said[pool.unlabelled]))
    paces = {arm.name: arm.loop(pool, "trial").seconds_a_step() for arm in arms}
    paces["finetune"] = paces["supervised"]  # whose steps it has
    half = lab.precision == "bf16-mixed"
    for name, of in (("image", backbone), ("teacher", teacher)):
        network = lab.fresh(of, pool, "trial").to(memory_format=torch.channels_last)  # as they are read back
        paces[name] = seconds_an_image(network, pool.source, half)
    return paces | features_paces(pool.source)


def features_paces(source: ArraySource) -> dict[str, float]:
    """Those of ``features`` and ``kernel``, by a trial of some images."""
    some = source.subset(tried_images(source))
    vectors = np.random.default_rng(0).normal(size=(TRIED, kept(TRIED))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ridge = KernelRidge(vectors, 1.0, np.zeros((TRIED, 2)))
    features = Features(some, None)
    features.made(some.subset(slice(1)))
    ridge.scores(vectors)
    return {
        "features": _seconds(lambda: features.made(some)) / len(some),
        "kernel": _seconds(lambda: ridge.scores(vectors)) / TRIED**2,
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@cache
def _operations(name: str, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one image's features."""
    channels, height, width = shape
    backbone = make_backbone(name, channels).eval()
    refuse_size("images", height, width, name, backbone.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(torch.zeros(1, *shape))
    return int(counter.get_total_flops())
