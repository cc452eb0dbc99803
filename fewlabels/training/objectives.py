"""What trainings minimise: a loss on labels, on a network's own predictions, on soft targets."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels._internal.seeding import seed_from
from fewlabels.augment.cutmix import cutmix
from fewlabels.data.order import Stream
from fewlabels.data.source import ArraySource, evenly_spaced
from fewlabels.training.pairs import Views


@dataclass(frozen=True)
class LabelLossConfig:
    """Batches of labelled images."""

    batch_size: int = 64  # not tuned
    label_smoothing: float = 0.1  # Szegedy et al. 2016, section 7


@dataclass(frozen=True)
class SelfTrainingLossConfig:
    """SoftMatch (Chen et al. 2023) with distribution alignment and CutMix."""

    batch_size: int = 192  # unlabelled images per step; not tuned
    unlabelled_weight: float = 2.0  # of their loss; on Fashion-MNIST (dev/trials.md)
    n_sigma: float = 2.0  # SoftMatch, section 4.1
    ema: float = 0.99  # of confidence statistics; SoftMatch has 0.999 over 100 times as many steps; not tuned
    min_log_prior: float = math.log(1e-4)  # least log-probability added to the teacher's logits; not tuned
    eval_interval: int = 50  # steps between evaluations on held-out labels; by cost
    max_eval_images: int = 500  # by cost
    min_drop: float = 0.02  # fall of held-out accuracy that is reported, if also two standard errors; not tuned
    min_coverage: float = 0.2  # mean weight of unlabelled images below which it is reported; not tuned


class Objective(nn.Module):
    """The loss of a training. What it remembers from step to step is in buffers, so that it is checkpointed."""

    images_per_step: int

    def forward(self, network: nn.Module, average: nn.Module, step: int) -> Tensor:
        """The loss of a step, a scalar.

        Args:
            network: the network that is trained, in training mode.
            average: its running average, in evaluation mode.
            step: from 0; images and views are a function of it and the objective's seed.
        """
        raise NotImplementedError

    def status(self) -> str:
        """What the progress line shows; empty for nothing."""
        return ""

    def warning(self) -> str:
        """What the user should know about a finished training; empty for nothing."""
        return ""


class LabelLoss(Objective):
    """Cross-entropy on random views of labelled images: half of a batch weak views, half strong ones.

    Args:
        source: the images.
        rows: int64 [M], the labelled ones.
        labels: int64 [M], their classes; each class is drawn as often as any other.
        weak: views that change little.
        strong: views that change much.
        config: batch size and label smoothing.
        seed: of order and views.
        device: where.
    """

    def __init__(
        self,
        source: ArraySource,
        rows: np.ndarray,
        labels: np.ndarray,
        weak: Views,
        strong: Views,
        config: LabelLossConfig,
        seed: int,
        device: torch.device = torch.device("cpu"),
    ) -> None:
        super().__init__()
        self.source, self.weak, self.strong = source, weak, strong
        self.config, self.seed, self.device = config, seed, device
        self.images_per_step = config.batch_size
        self._rows = Stream([rows[labels == cls] for cls in np.unique(labels)], config.batch_size, seed, "labelled")
        self._labels = torch.from_numpy(source.labels)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Views float [B, C, H, W] and labels int64 [B]."""
        # Classes take turns in a batch; in one order throughout, some of 64 classes would always be weak views.
        order = 1 if seed_from(self.seed, "halves", step) % 2 else -1
        rows = torch.from_numpy(self._rows.at(step)[::order].copy())
        images = self.source.read(rows).to(self.device)
        weak, strong = images.tensor_split(2)
        views = [self.weak(weak, (self.seed, "labelled", step)), self.strong(strong, (self.seed, "labelled too", step))]
        return torch.cat(views), self._labels[rows].to(self.device)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits [B, K]."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)

    def forward(self, network: nn.Module, average: nn.Module, step: int) -> Tensor:
        """See :class:`Objective`."""
        images, labels = self.batch(step)
        return self.cross_entropy(network(channels_last(images)), labels)


class SelfTrainingLoss(Objective):
    """Labels, and the average network's predictions for weak views as targets of strong views mixed by CutMix.

    Consistency as in FixMatch (Sohn et al. 2020), with the running average as the teacher (Tarvainen & Valpola 2017),
    soft targets, and SoftMatch's weights (Chen et al. 2023, eq. 4 to 7): 1 above the mean confidence, below it a
    Gaussian of the distance. Distribution alignment is ReMixMatch's (Berthelot et al. 2020, section 3.1), towards a
    prior that need not be uniform.

    Args:
        labelled: the loss on the labels, with its views.
        rows: int64, the images that are used without a label.
        held_out: int64, images whose labels evaluate the average network on the way.
        prior: float [K], class prior of the unlabelled images.
        config: see there.
        log_prior: float [N, K], log-probabilities of the source's images by other models, whose errors differ; added
            to the average network's logits. None: nothing is added.
    """

    mean: Tensor
    variance: Tensor
    prediction_mean: Tensor
    """Running mean probability of each class."""
    class_fractions: Tensor
    """Running fraction of each class among the most likely ones."""
    coverage: Tensor
    """Running mean of the weights."""
    prior: Tensor
    best: Tensor
    """Highest accuracy of an evaluation on held-out labels."""
    last: Tensor
    """Accuracy of the last evaluation."""

    def __init__(
        self,
        labelled: LabelLoss,
        rows: np.ndarray,
        held_out: np.ndarray,
        prior: np.ndarray,
        config: SelfTrainingLossConfig = SelfTrainingLossConfig(),
        log_prior: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.labelled, self.config = labelled, config
        self._log_prior = None if log_prior is None else torch.from_numpy(log_prior).float().clamp(config.min_log_prior)
        self.images_per_step = labelled.images_per_step + config.batch_size
        self._rows = Stream([rows], config.batch_size, labelled.seed, "unlabelled")
        self._held_out = held_out[evenly_spaced(held_out, config.max_eval_images)] if len(held_out) else held_out
        num_classes = len(prior)
        self.register_buffer("prior", torch.from_numpy(prior).float(), persistent=False)
        self.register_buffer("mean", torch.tensor(1 / num_classes))
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("prediction_mean", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("class_fractions", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("coverage", torch.tensor(1.0))
        self.register_buffer("best", torch.tensor(0.0))
        self.register_buffer("last", torch.tensor(0.0))

    def forward(self, network: nn.Module, average: nn.Module, step: int) -> Tensor:
        """See :class:`Objective`."""
        if step % self.config.eval_interval == 0 and len(self._held_out):
            self._evaluate(average)
        images, labels = self.labelled.batch(step)
        rows = torch.from_numpy(self._rows.at(step))
        unlabelled = self.labelled.source.read(rows).to(images.device)
        key = (self.labelled.seed, "unlabelled", step)
        with torch.no_grad():
            logits = average(channels_last(self.labelled.weak(unlabelled, (*key, "weak")))).float()
            if self._log_prior is not None:
                logits = logits + self._log_prior[rows].to(logits.device)
            targets, weights = self.targets(logits)
            weighted = weights[:, None] * targets
            mixed, partners, kept = cutmix(self.labelled.strong(unlabelled, (*key, "strong")), (*key, "mixed"))
            weighted = torch.lerp(weighted[partners], weighted, kept[:, None])
        # One batch, so that batch norm sees both alike.
        logits = network(channels_last(torch.cat([images, mixed]))).float()
        of_labelled, of_unlabelled = logits.split([len(images), len(mixed)])
        consistency = F.cross_entropy(of_unlabelled, weighted)
        return self.labelled.cross_entropy(of_labelled, labels) + self.config.unlabelled_weight * consistency

    @torch.no_grad()
    def targets(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Targets [B, K] and weights [B] from logits of weak views; updates the running statistics."""
        step = 1 - self.config.ema
        plain = logits.float().softmax(dim=1)
        self.prediction_mean.lerp_(plain.mean(dim=0), step)
        aligned = plain * (self.prior / self.prediction_mean.clamp(min=1e-6))
        aligned = aligned / aligned.sum(dim=1, keepdim=True)
        confidence, predicted = aligned.max(dim=1)
        self.mean.lerp_(confidence.mean(), step)
        self.variance.lerp_(confidence.var(), step)
        below = (confidence - self.mean).clamp(max=0)
        weights = torch.exp(-(below.square()) / (2 * self.variance.clamp(min=1e-9) / self.config.n_sigma**2))
        self.coverage.lerp_(weights.mean(), step)
        self.class_fractions.lerp_(F.one_hot(predicted, len(self.prior)).float().mean(dim=0), step)
        return aligned, weights

    @torch.no_grad()
    def _evaluate(self, average: nn.Module) -> None:
        source = self.labelled.source
        logits = average(channels_last(source.read(self._held_out).to(self.prior.device).float() / 255))
        correct = logits.argmax(dim=1).cpu() == torch.from_numpy(source.labels[self._held_out])
        self.last.copy_(correct.float().mean())
        self.best.copy_(torch.maximum(self.best, self.last))

    def status(self) -> str:
        """Coverage, the smallest and the largest class among the predictions, and accuracy on held-out labels."""
        smallest, largest = self.class_fractions.min(), self.class_fractions.max()
        line = f"coverage {self.coverage:.0%}, classes {smallest:.1%} to {largest:.1%}"
        return line + (f", held-out accuracy {self.last:.1%}" if len(self._held_out) else "")

    def warning(self) -> str:
        """About a late drop of held-out accuracy (google-research/fixmatch#60), or a low coverage."""
        lines = []
        error = math.sqrt(self.best * (1 - self.best) / max(1, len(self._held_out)))
        if self.best - self.last > max(self.config.min_drop, 2 * error):
            lines.append(
                f"held-out accuracy fell from {self.best:.1%} to {self.last:.1%} during training; more labels, or a "
                "smaller budget, may help"
            )
        if self.coverage < self.config.min_coverage:
            lines.append(f"only {self.coverage:.0%} of the unlabelled images were predicted with enough confidence")
        return "; ".join(lines)


class DistillationLoss(Objective):
    """Cross-entropy to soft targets (Hinton et al. 2015).

    Args:
        source: the images.
        view: random views of them.
        rows: int64 [R] of the source.
        targets: float [R, K], their class probabilities.
        batch_size: images per step.
        seed: of order and views.
    """

    def __init__(
        self, source: ArraySource, view: Views, rows: np.ndarray, targets: np.ndarray, batch_size: int, seed: int
    ) -> None:
        super().__init__()
        self.source, self.view, self.rows, self.seed = source, view, rows, seed
        self.images_per_step = batch_size
        self.register_buffer("targets", torch.from_numpy(targets).float(), persistent=False)
        self._positions = Stream([np.arange(len(rows))], batch_size, seed, "distilled")

    targets: Tensor

    def forward(self, network: nn.Module, average: nn.Module, step: int) -> Tensor:
        """See :class:`Objective`."""
        positions = self._positions.at(step)
        images = self.source.read(self.rows[positions]).to(self.targets.device)
        logits = network(channels_last(self.view(images, (self.seed, "distilled", step)))).float()
        return F.cross_entropy(logits, self.targets[positions])


def smoothed_labels(labels: np.ndarray, num_classes: int, smoothing: float) -> np.ndarray:
    """Labels int64 [N] as targets float64 [N, K], a fraction of each spread over all classes.

    >>> smoothed_labels(np.array([1]), 2, 0.5).tolist()
    [[0.25, 0.75]]
    """
    targets = np.full((len(labels), num_classes), smoothing / num_classes)
    targets[np.arange(len(labels)), labels] += 1 - smoothing
    return targets


def channels_last(images: Tensor) -> Tensor:
    """The same images [B, C, H, W] in the memory layout that convolutions are fastest with."""
    return images.contiguous(memory_format=torch.channels_last)
