"""What is minimised: from labels, from the network's own predictions, from those of others."""

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
from fewlabels.fit.pool import Pool
from fewlabels.training.pairs import Views
from fewlabels.training.trainer import Objective


@dataclass(frozen=True)
class LabelSettings:
    """Batches of labelled images."""

    batch_size: int = 64
    smoothing: float = 0.1
    """Share of a label that is spread over all classes (Szegedy et al. 2016, section 7)."""
    balanced: bool = True
    """Each class as often as any other, however many labels it has."""


class Labels(Objective):
    """Cross-entropy on random views of the labelled images: half of a batch weak, the other half strong."""

    def __init__(
        self,
        pool: Pool,
        weak: Views,
        strong: Views,
        settings: LabelSettings,
        seed: int,
        device: torch.device = torch.device("cpu"),
    ) -> None:
        super().__init__()
        self.pool, self.weak, self.strong = pool, weak, strong
        self.settings, self.seed, self.device = settings, seed, device
        self.images_a_step = settings.batch_size
        groups = pool.by_class() if settings.balanced else [pool.labelled]
        self._rows = Stream(groups, settings.batch_size, seed, "labelled")
        self._targets = torch.from_numpy(pool.source.labels)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Views float [B, C, H, W] and labels int64 [B]."""
        # Classes take turns; always in the same order, 64 of them would be weak, or strong, for ever.
        turn = 1 if seed_from(self.seed, "halves", step) % 2 else -1
        rows = torch.from_numpy(self._rows.at(step)[::turn].copy())
        images = self.pool.source.read(rows).to(self.device)
        weak, strong = images.tensor_split(2)
        views = [self.weak(weak, (self.seed, "labelled", step)), self.strong(strong, (self.seed, "labelled too", step))]
        return torch.cat(views), self._targets[rows].to(self.device)

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of logits [B, K]."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.settings.smoothing)

    def forward(self, student: nn.Module, teacher: nn.Module, step: int) -> Tensor:
        """See :class:`Objective`."""
        images, labels = self.batch(step)
        return self.cost(student(_last(images)), labels)


LOOK_EVERY = 50
"""Steps from one look at labels held out to the next."""
LOOKED_AT = 500
"""At most so many of them."""
DROP = 0.02
"""Of the share that is right, from the best look to the last: what is told is larger, and twice the standard error."""
SPARSE = 0.2
"""Coverage below which it is told."""
LEAST_HINT = math.log(1e-4)
"""No image is known so well that nothing could be learned of it."""


@dataclass(frozen=True)
class SelfTrainingSettings:
    """Batches of images without labels."""

    batch_size: int = 192
    weight: float = 2.0
    """Of the loss on them, beside that on the labels."""
    sigmas: float = 2.0
    """Of SoftMatch: how fast the weight of a doubtful prediction falls."""
    memory: float = 0.99
    """Decay of the running mean and variance of the confidence, and of the share of each class."""
    align: bool = True
    """Draw the share of each class among the predictions towards ``prior``."""


class SelfTraining(Objective):
    """Labels, and the teacher's predictions for weak views as targets of strong ones that are mixed by CutMix.

    Consistency as in FixMatch (Sohn et al. 2020), with the running average as the teacher (Tarvainen & Valpola 2017),
    soft targets, and SoftMatch's weights (Chen et al. 2023, eq. 4 to 7): 1 above the mean confidence, below it a
    Gaussian of the distance. Distribution alignment is ReMixMatch's (Berthelot et al. 2020, section 3.1), towards a
    ``prior`` that need not be uniform.

    Args:
        labels: the labelled part, with its views.
        prior: float [K], shares of the classes among the images.
        settings: see there.
        hints: float [N, K], log-probabilities of the source's images by others, whose errors are their own; the
            teacher's logits are added to them. None: the teacher is alone.
    """

    mean: Tensor
    variance: Tensor
    shares: Tensor
    """Running share of each class in the predictions."""
    named: Tensor
    """Running share of each class among the most likely ones."""
    coverage: Tensor
    """Running mean of the weights."""
    prior: Tensor
    best: Tensor
    """Highest share of the pool's held-out labels that the teacher named right at a look."""
    last: Tensor
    """The share at the last look."""

    def __init__(
        self,
        labels: Labels,
        prior: np.ndarray,
        settings: SelfTrainingSettings,
        hints: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.labels, self.settings = labels, settings
        self._hints = None if hints is None else torch.from_numpy(hints).float().clamp(min=LEAST_HINT)
        self.images_a_step = labels.images_a_step + settings.batch_size
        pool = labels.pool
        self._rows = Stream(
            [np.concatenate([pool.unlabelled, pool.labelled])], settings.batch_size, labels.seed, "unlabelled"
        )
        self._looked_at = pool.held[evenly_spaced(pool.held, LOOKED_AT)] if len(pool.held) else pool.held
        classes = len(prior)
        self.register_buffer("prior", torch.from_numpy(prior).float(), persistent=False)
        self.register_buffer("mean", torch.tensor(1 / classes))
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("shares", torch.full((classes,), 1 / classes))
        self.register_buffer("named", torch.full((classes,), 1 / classes))
        self.register_buffer("coverage", torch.tensor(1.0))
        self.register_buffer("best", torch.tensor(0.0))
        self.register_buffer("last", torch.tensor(0.0))

    def forward(self, student: nn.Module, teacher: nn.Module, step: int) -> Tensor:
        """See :class:`Objective`."""
        if step % LOOK_EVERY == 0 and len(self._looked_at):
            self._look(teacher)
        images, labels = self.labels.batch(step)
        rows = torch.from_numpy(self._rows.at(step))
        unlabelled = self.labels.pool.source.read(rows).to(images.device)
        key = (self.labels.seed, "unlabelled", step)
        with torch.no_grad():
            logits = teacher(_last(self.labels.weak(unlabelled, (*key, "weak")))).float()
            if self._hints is not None:
                logits = logits + self._hints[rows].to(logits.device)
            targets, weights = self.targets(logits)
            told = weights[:, None] * targets
            mixed, partners, kept = cutmix(self.labels.strong(unlabelled, (*key, "strong")), (*key, "mixed"))
            told = torch.lerp(told[partners], told, kept[:, None])
        of_labels, others = _together(student, images, mixed)
        consistency = F.cross_entropy(others, told)
        return self.labels.cost(of_labels, labels) + self.settings.weight * consistency

    @torch.no_grad()
    def targets(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Targets [B, K] and weights [B] from the teacher's logits; the running figures take these in."""
        keep = self.settings.memory
        plain = logits.float().softmax(dim=1)
        self.shares.lerp_(plain.mean(dim=0), 1 - keep)
        aligned = plain
        if self.settings.align:
            aligned = plain * (self.prior / self.shares.clamp(min=1e-6))
            aligned = aligned / aligned.sum(dim=1, keepdim=True)
        confidence, named = aligned.max(dim=1)
        self.mean.lerp_(confidence.mean(), 1 - keep)
        self.variance.lerp_(confidence.var(), 1 - keep)
        below = (confidence - self.mean).clamp(max=0)
        weights = torch.exp(-(below.square()) / (2 * self.variance.clamp(min=1e-9) / self.settings.sigmas**2))
        self.coverage.lerp_(weights.mean(), 1 - keep)
        self.named.lerp_(F.one_hot(named, len(self.named)).float().mean(dim=0), 1 - keep)
        return aligned, weights

    @torch.no_grad()
    def _look(self, teacher: nn.Module) -> None:
        source = self.labels.pool.source
        logits = teacher(_last(source.read(self._looked_at).to(self.labels.device).float() / 255))
        right = logits.argmax(dim=1).cpu() == torch.from_numpy(source.labels[self._looked_at])
        self.last.copy_(right.float().mean())
        self.best.copy_(torch.maximum(self.best, self.last))

    def told(self) -> str:
        """Coverage, the smallest and largest class among the predictions, and how many held-out labels are right."""
        told = f"covers {self.coverage:.0%}, classes {self.named.min():.1%} to {self.named.max():.1%}"
        return told + (f", {self.last:.1%} right" if len(self._looked_at) else "")

    def warning(self) -> str:
        """Of a late drop (google-research/fixmatch#60), and of few images that teach."""
        said = []
        error = math.sqrt(self.best * (1 - self.best) / max(1, len(self._looked_at)))
        if self.best - self.last > max(DROP, 2 * error):
            said.append(
                f"{self.last:.1%} of the labels held out are right at the end, {self.best:.1%} were before: a late "
                "drop. More labels, or less time, may help"
            )
        if self.coverage < SPARSE:
            said.append(f"only {self.coverage:.0%} of the images without a label were sure enough to learn from")
        return "; ".join(said)


class Distillation(Objective):
    """Given soft targets (Hinton et al. 2015).

    Labels are among the targets. In a batch of their own a small network learned them by heart, and the others less.

    Args:
        source: the images.
        view: of them.
        rows: int64 [N] of the source.
        targets: float [N, K], their probabilities.
        batch_size: images a step.
        seed: of order and views.
        device: where.
    """

    def __init__(
        self,
        source: ArraySource,
        view: Views,
        rows: np.ndarray,
        targets: np.ndarray,
        batch_size: int,
        seed: int,
        device: torch.device = torch.device("cpu"),
    ) -> None:
        super().__init__()
        self.source, self.view, self.rows, self.seed, self.device = source, view, rows, seed, device
        self.images_a_step = batch_size
        self._targets = torch.from_numpy(targets).float()
        self._places = Stream([np.arange(len(rows))], batch_size, seed, "distilled")

    def forward(self, student: nn.Module, teacher: nn.Module, step: int) -> Tensor:
        """See :class:`Objective`."""
        places = self._places.at(step)
        images = self.source.read(self.rows[places]).to(self.device)
        logits = student(_last(self.view(images, (self.seed, "distilled", step)))).float()
        return F.cross_entropy(logits, self._targets[places].to(self.device))


def smoothed(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """Labels int64 [N] as targets float64 [N, K], a share of each spread over all classes.

    >>> smoothed(np.array([1]), 2, 0.5).tolist()
    [[0.25, 0.75]]
    """
    targets = np.full((len(labels), classes), smoothing / classes)
    targets[np.arange(len(labels)), labels] += 1 - smoothing
    return targets


def _together(student: nn.Module, labelled: Tensor, others: Tensor) -> list[Tensor]:
    """Logits of both, float32, from one batch: batch norm then sees them as one."""
    return list(student(_last(torch.cat([labelled, others]))).float().split([len(labelled), len(others)]))


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
