"""Cost models: counted from numbers of operations, or measured on this machine."""

import time

import numpy as np
import torch

from fewlabels.backbones.architectures import forward_operations
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import seconds_per_image, seconds_per_training_image
from fewlabels.data.source import ArraySource
from fewlabels.features.extractor import Features, counted_seconds_per_image
from fewlabels.features.kernel_ridge import KernelRidge
from fewlabels.fit.config import FitConfig
from fewlabels.fit.schedule import CostModel
from fewlabels.training.pairs import Views
from fewlabels.training.precision import Precision


def counted_costs(config: FitConfig, shape: tuple[int, int, int]) -> CostModel:
    """Costs that are the same wherever and whenever a fit runs, from numbers of operations.

    Args:
        config: of the fit.
        shape: (C, H, W) of the images.

    Raises:
        InputError: if a backbone is unknown or does not take images of this size.
    """
    speed, factor = config.costs.operations_per_second, config.costs.training_factor
    own, teacher = (forward_operations(name, shape) / speed for name in (config.backbone, config.teacher_backbone))
    features = counted_seconds_per_image(shape, config.features, speed) + (own if config.init_from else 0.0)
    kernel_value = 2 * config.features.dimensions() / speed
    return _cost_model(config, False, (factor * own, own), (factor * teacher, teacher), features, kernel_value)


def measured_costs(
    config: FitConfig, shape: tuple[int, int, int], strong: Views, device: torch.device, precision: Precision
) -> CostModel:
    """Costs on this machine, here and now, by a trial of about a second on random images.

    Args:
        config: of the fit.
        shape: (C, H, W) of the images.
        strong: the views that networks are trained on.
        device: where.
        precision: of the computation.

    Raises:
        InputError: if a backbone is unknown or does not take images of this size.
    """
    number, rng = config.costs.trial_images, np.random.default_rng(0)
    source = ArraySource(rng.integers(0, 256, (number, *shape), dtype=np.uint8), None, ["a", "b"])
    images, half = source.read(slice(None)).to(device), precision == "bf16-mixed"

    def network_seconds(backbone: str) -> tuple[float, float]:
        network = Classifier(backbone, source.class_names, shape[0]).to(device).to(memory_format=torch.channels_last)
        training = seconds_per_training_image(network, images, lambda batch: strong(batch, (0, "costs")), half)
        return training, seconds_per_image(network, source, half)

    own = network_seconds(config.backbone)
    teacher = own if config.teacher_backbone == config.backbone else network_seconds(config.teacher_backbone)
    extractor = Features(source, config.features, graph=False)
    extractor.own(source.subset(slice(1)))  # fits components and patches
    began = time.perf_counter()
    extractor.own(source)
    features = (time.perf_counter() - began) / number + (own[1] if config.init_from else 0.0)
    vectors = rng.normal(size=(8 * number, config.features.dimensions())).astype(np.float32)
    ridge = KernelRidge(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 1.0, np.zeros((8 * number, 2)))
    began = time.perf_counter()
    ridge.scores(ridge.train_features)
    kernel_value = (time.perf_counter() - began) / len(vectors) ** 2
    return _cost_model(config, True, own, teacher, features, kernel_value)


def _cost_model(
    config: FitConfig,
    clock: bool,
    own: tuple[float, float],
    teacher: tuple[float, float],
    feature_image: float,
    kernel_value: float,
) -> CostModel:
    """Costs from those of an image, for the classifier's network and the teacher's: trained on, and predicted."""
    cost, labels, unlabelled = config.costs, config.self_training.labels, config.self_training.loss
    both = labels.batch_size + unlabelled.batch_size
    return CostModel(
        clock=clock,
        supervised_step=cost.step_seconds + config.supervised.loss.batch_size * own[0],
        # The average network predicts the unlabelled images first.
        self_training_step=cost.step_seconds + both * teacher[0] + unlabelled.batch_size * teacher[1],
        student_image=own[0],
        step=cost.step_seconds,
        predict_image=own[1],
        teacher_predict_image=teacher[1],
        feature_image=feature_image,
        kernel_value=kernel_value,
        neighbour_value=cost.neighbour_factor * kernel_value,
        smoothed_image=cost.smoothing_factor * kernel_value,
    )
