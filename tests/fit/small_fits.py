"""Fits of some hundred real images that take seconds: a counted second is a training step."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from fewlabels.augment.recipes import fit_views
from fewlabels.data.source import balanced_indices
from fewlabels.fit.config import FitConfig
from fewlabels.fit.data import LabeledPool
from fewlabels.fit.pipeline import FitResult, run_fit
from fewlabels.fit.schedule import CostModel
from fewlabels.training.callbacks import Observer

COSTS = CostModel(
    clock=False,
    supervised_step=1.0,
    self_training_step=1.0,
    student_image=0.0,
    step=1.0,
    predict_image=0.0,
    teacher_predict_image=0.0,
    feature_image=0.0,
    kernel_value=0.0,
    neighbour_value=0.0,
    smoothed_image=0.0,
)
DEFAULT = FitConfig()
SMALL = replace(
    DEFAULT,
    teacher_backbone="article",
    self_training=replace(DEFAULT.self_training, min_steps=1, loss=replace(DEFAULT.self_training.loss, batch_size=64)),
    distillation=replace(DEFAULT.distillation, min_steps=1, max_batch_size=64),
)
"""A narrow teacher, small batches, and no least number of steps."""


def pool_of(fmnist, labels: int = 100, images: int = 400) -> LabeledPool:
    few = fmnist.train.first_k(images)
    return LabeledPool.from_source(few.mask_labels(balanced_indices(few.labels, labels, 0)))


def fitted(
    pool: LabeledPool, folder: Path, seed: int = 0, config: FitConfig = SMALL, observer=Observer, **options
) -> FitResult:
    """A fit with a budget of so many steps, by default few."""
    config = replace(config, **{"budget": 40.0, **options})
    return run_fit(pool, config, fit_views(1), folder, seed, observer, costs=COSTS)


many = partial(fitted, budget=600.0)
"""A fit whose networks learn something."""
