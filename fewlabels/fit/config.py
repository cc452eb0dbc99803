"""Every tunable of a fit, each with its source: a paper, a file of this repository, its cost, or "not tuned"."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from fewlabels._internal.errors import InputError, refuse_unknown
from fewlabels.features.extractor import FeatureConfig
from fewlabels.features.kernel_ridge import KernelConfig
from fewlabels.features.label_spreading import LabelSpreadingConfig
from fewlabels.training.objectives import LabelLossConfig, SelfTrainingLossConfig
from fewlabels.training.trainer import OptimizerConfig

Strategy = Literal["auto", "supervised", "probe", "finetune", "kernel", "label-spreading", "selftrain"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
NETWORK_STRATEGIES = ("supervised", "probe", "finetune")
"""They train a network on labels alone; the other strategies need images without a label."""


@dataclass(frozen=True)
class SplitConfig:
    """How labels are held out."""

    folds: int = 3  # not tuned
    many_labels: int = 5000  # above, a tenth is held out once: its accuracy has a standard error below 2.3 points
    holdout_parts: int = 10
    max_holdout_fraction: float = 0.2  # of a single hold-out, where groups cannot be divided into tenths; not tuned


@dataclass(frozen=True)
class SupervisedConfig:
    """Training of a randomly initialised network on labels."""

    loss: LabelLossConfig = LabelLossConfig()
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-3)  # rate: on Fashion-MNIST (dev/trials.md)
    max_steps: int = 20_000  # nothing is gained after it on Fashion-MNIST (benchmarks/results/labels.json)


@dataclass(frozen=True)
class FineTuneConfig:
    """Training of a pretrained network, linear head first (Kumar et al. 2022, section 4)."""

    loss: LabelLossConfig = LabelLossConfig()
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-3)  # not tuned
    layer_decay: float = 0.7  # learning rate of a layer relative to the one above it; not tuned
    max_steps: int = 2000  # not tuned


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Training of the teacher on labels and on its own predictions."""

    labels: LabelLossConfig = LabelLossConfig()
    loss: SelfTrainingLossConfig = SelfTrainingLossConfig()
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-3, muon_lr=0.02)  # Muon's rate: Jordan et al. 2024
    min_steps: int = 150  # fewer teach less than the ensemble knows; not tuned
    max_steps: int = 20_000  # not tuned


@dataclass(frozen=True)
class DistillationConfig:
    """Training of the student on soft targets (Hinton et al. 2015)."""

    optimizer: OptimizerConfig = OptimizerConfig(lr=4e-3, muon_lr=0.02, ema=0.999)  # on Fashion-MNIST (dev/trials.md)
    label_smoothing: float = 0.1  # of the labelled images among the targets; Szegedy et al. 2016, section 7
    max_batch_size: int = 512  # not tuned
    min_batch_size: int = 64  # not tuned
    steps_per_epoch: int = 16  # at least, by a smaller batch; not tuned
    min_steps: int = 300  # with fewer, training on labels for as long is as good; not tuned
    max_steps: int = 20_000  # not tuned
    max_heldback_images: int = 2000  # unlabelled images that compare the student with its targets; not tuned
    heldback_fraction: float = 0.1  # at most so much of the unlabelled images; not tuned

    def batch_size(self, images: int) -> int:
        """Images per step: fewer where an epoch would have too few steps.

        >>> [DistillationConfig().batch_size(images) for images in (50_000, 1600, 300)]
        [512, 100, 64]
        """
        return min(self.max_batch_size, max(self.min_batch_size, images // self.steps_per_epoch))


@dataclass(frozen=True)
class CalibrationConfig:
    """Ensemble weights and temperatures."""

    temperatures: tuple[float, float] = (0.05, 20.0)  # range that is searched; numerical
    max_weight: float = 100.0  # of a member whose logits have a standard deviation of 1; numerical
    min_total_weight: float = 0.05  # of all members; numerical
    confidence_without_holdout: float = 0.7  # mean confidence of targets where no label can be held out; not tuned


@dataclass(frozen=True)
class PriorConfig:
    """The class prior of the unlabelled images."""

    max_images: int = 2000  # that estimate it: its standard error is then about a point; by cost
    iterations: int = 100  # of expectation maximisation; numerical
    min_fraction: float = 0.1  # least prior of a class, relative to a uniform one; not tuned
    critical_ratio: float = 3.0  # squared distance from uniform, in variances, that is not chance (dev/trials.md)


@dataclass(frozen=True)
class PerformanceConfig:
    """The expected macro-F1 and its interval."""

    draws: int = 1000
    min_draws: int = 100
    max_rates: int = 100_000_000  # confusion rates that are drawn in all; by cost
    prior_images: float = 2.0  # pseudo-counts of each class; not tuned
    learning_exponent: float = 0.3  # error falls as this power of the labels (Hestness et al. 2017: 0.07 to 0.35)
    seed_deviation: float = 0.04  # between two seeds, as a fraction of score times error (dev/trials.md)
    selection_exponent: float = 0.5  # of the training fraction, against the optimism of choosing the best; not tuned
    disagreement_loss: float = 0.5  # of a student's disagreements with its targets, which count as errors; not tuned


@dataclass(frozen=True)
class ScheduleConfig:
    """How the budget is divided. Weights are relative, and were tuned on Fashion-MNIST alone (dev/trials.md)."""

    supervised_trials: float = 3.0  # on all splits together
    finetune_trials: float = 3.0
    self_training_trials: float = 6.0
    refit: float = 1.0  # of an ensemble member that is trained in steps, on all labels
    teacher: float = 24.0
    student: float = 4.0  # after the teacher
    final: float = 6.0  # the last training where there is no teacher
    max_feature_fraction: float = 0.5  # of the budget that features may take; not tuned
    min_unlabelled: int = 200  # images without a label from which on they are used; not tuned
    few_labels_per_class: int = 50  # up to it labels are spread, and networks not in the ensemble (dev/trials.md)
    max_graph_images: int = 200_000  # up to which neighbours are searched: time grows with the square; by cost
    min_final_fraction: float = 0.25  # of its time that a last training gets, however late it begins; not tuned
    reserve_fraction: float = 0.02  # of the budget, for ensemble weights, calibration and files; not tuned


@dataclass(frozen=True)
class CostConfig:
    """What work takes on one core of an AMD EPYC with AVX-512: for schedules that do not depend on the machine."""

    operations_per_second: float = 80e9  # floating point, single precision
    step_seconds: float = 0.01  # of a training step beside its images
    training_factor: float = 3.0  # forward passes that a training image costs
    neighbour_factor: float = 0.25  # a distance between two images, in kernel values
    smoothing_factor: float = 5000.0  # averaging an image's features over its neighbours, in kernel values
    trial_images: int = 64  # that measure this machine


@dataclass(frozen=True)
class FitConfig:
    """All that decides a fit, together with images, labels, views and seed.

    Raises:
        InputError: if the strategy is unknown, the budget is not a positive time, or a strategy lacks its weights.
    """

    strategy: Strategy = "auto"
    """``auto`` ships the best of all candidates on held-out labels; every other strategy ships what it names."""
    budget: float = 600.0
    """Seconds."""
    backbone: str = "article"
    """Architecture of the classifier."""
    teacher_backbone: str = "small"
    """Architecture that self-training trains; the classifier is distilled from it."""
    init_from: str | None = None
    """A safetensors file with pretrained weights of ``backbone``, for ``probe`` and ``finetune``."""
    min_image_side: int = 5  # pixels of the longer side: with fewer a strided layer sees a single pixel
    features: FeatureConfig = FeatureConfig()
    splits: SplitConfig = SplitConfig()
    supervised: SupervisedConfig = SupervisedConfig()
    finetune: FineTuneConfig = FineTuneConfig()
    kernel: KernelConfig = KernelConfig()
    label_spreading: LabelSpreadingConfig = LabelSpreadingConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    distillation: DistillationConfig = DistillationConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    prior: PriorConfig = PriorConfig()
    performance: PerformanceConfig = PerformanceConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    costs: CostConfig = CostConfig()

    def __post_init__(self) -> None:
        refuse_unknown("strategy", self.strategy, STRATEGIES)
        if not 0 < self.budget < math.inf:
            raise InputError(f"budget {self.budget:g} s: must be above 0 and finite.")
        if self.strategy in ("probe", "finetune") and self.init_from is None:
            raise InputError(f"strategy {self.strategy}: needs a pretrained backbone. Name its run with --from.")
