"""A collapse monitor for pretraining: it checks label-free metrics and names the problem, its likely cause and a fix.

The monitor reads no label. Thresholds without another source were set on runs of Fashion-MNIST. Those runs have other
seeds than the runs in ``benchmarks/results/collapse.json``.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.ssl.metrics import (
    alignment,
    dead_fraction,
    features_and_projections,
    normalized_std,
    rankme,
    uniformity,
)
from fewlabels.training.distributed import world_size

CHECK_INTERVAL = 25
"""Steps between two checks. ``benchmarks/results/guard_cost.json`` has the cost of a check."""
MONITOR_IMAGES = 256
"""Images of the fixed batch that every check uses. Not tuned."""
ALIGNMENT_IMAGES = 64
"""Images of the fixed batch whose second view is encoded too, for alignment. Fewer images make a check cheaper."""
MIN_STEPS = 100
"""Steps before which only divergence is reported: batch-norm statistics and a queue need that many to fill."""
MAX_HISTORY = 200
"""Checks that are stored; beyond it, every second one is dropped."""

COMPLETE_COLLAPSE_UNIFORMITY = -0.5
"""Uniformity above which all projections point in nearly one direction."""
DIMENSIONAL_COLLAPSE_UNIFORMITY = -1.6
"""Uniformity above which a rank below ``DIMENSIONAL_COLLAPSE_RANK`` counts as dimensional collapse."""
DIMENSIONAL_COLLAPSE_RANK = 0.16
"""Effective rank, as a fraction of its maximum; see ``DIMENSIONAL_COLLAPSE_UNIFORMITY``."""
MIN_RANK_FRACTION = 0.03
"""Effective rank, as a fraction of its maximum, below which any uniformity counts as dimensional collapse."""
MAX_DEAD_FRACTION = 0.25
"""Fraction of dead features above which a run is reported."""
MAX_WEIGHT_GROWTH = 4.0
"""Factor by which the norm of the backbone's weights may grow from one check to the next."""
MIN_VIEW_VARIANCE = 0.05
"""Variance between two views of an image over the variance between images; below it, views are too weak.

Both are variances of the untrained network's features.
"""
MAX_BATCH_VARIANCE = 0.5
"""Fraction of the variance of projections that may come from the choice of images in a batch."""
MIN_CONTRAST = 2.0
"""Mean standard deviation of a pixel over images, in units of 1/255, below which images are too much alike."""
MIN_MOMENTUM = 0.9
"""Momentum of a momentum encoder below which it is named as the cause of a collapse."""

Kind = Literal[
    "complete collapse",
    "dimensional collapse",
    "dead units",
    "divergence",
    "views too weak",
    "images too much alike",
    "batch too small",
]
Cause = Literal["images", "views", "batch", "predictor", "stop-gradient", "momentum", "learning rate"]

CAUSES: dict[Cause, tuple[str, str]] = {
    "images": ("the images are nearly identical", "Check for constant or duplicate images"),
    "views": ("the network hardly distinguishes two views of an image", "Choose stronger ones with --views"),
    "batch": ("a batch has too few images for batch norm", "Choose a larger --batch-size, or a smaller --accumulate"),
    "predictor": ("the predictor has no weights to train", "Give the method a predictor"),
    "stop-gradient": ("a gradient reaches the backbone through the target", "Detach the target in the loss"),
    "momentum": ("the momentum encoder changes too fast", f"Choose a momentum of {MIN_MOMENTUM} or more"),
    "learning rate": ("the learning rate is too high", "Choose a tenth of it: --lr {tenth:.2g}"),
}
"""For each cause an explanation and a fix to try."""


@dataclass(frozen=True)
class Metrics:
    """The metrics of one check, computed on the fixed batch, and the loss. Field names are keys of saved JSON."""

    step: int
    loss: float
    """Mean since the last check."""
    spread: float
    """:func:`~fewlabels.ssl.metrics.normalized_std` of the projections."""
    rank: float
    """RankMe of the projections."""
    rank_share: float
    """``rank`` over its maximum, min(images, width)."""
    alignment: float
    uniformity: float
    dead: float
    """Fraction of the backbone's features that hardly differ between images."""
    weights: float
    """Euclidean norm of the backbone's weights."""


@dataclass(frozen=True)
class CollapseVerdict:
    """A problem, its likely cause, and one line that describes both and a fix to try."""

    kind: Kind
    cause: Cause
    step: int
    line: str
    is_fatal: bool = False
    """True if the loss or a metric is not finite, so that training cannot continue."""

    def __str__(self) -> str:
        return self.line


def evaluate_history(history: Sequence[Mapping[str, Any]]) -> bool:
    """True if a run with these metrics was long enough to detect a collapse, for which the monitor needs two checks."""
    return any(metrics["step"] >= MIN_STEPS + CHECK_INTERVAL for metrics in history)


class CollapseMonitor:
    """Checks two views of a fixed batch in evaluation mode; the training is not affected.

    Args:
        images: uint8 [N, C, H, W].
        views: makes a float view [N, C, H', W'] of the images; its second argument is the view's number, 0 or 1.
        batch_size: images per batch of batch norm in training.
        lr: peak learning rate, from which a lower one is suggested.
    """

    def __init__(self, images: Tensor, views: Callable[[Tensor, int], Tensor], batch_size: int, lr: float) -> None:
        self.images, self.batch_size, self.lr = images, batch_size, lr
        self.x0, self.x1 = views(images, 0), views(images, 1)
        self.history: list[Metrics] = []
        self.pending = False
        """Whether the last check found a problem, which the next one has to confirm."""
        self.healthy = False
        """Whether the last two checks found no problem and the run has ``MIN_STEPS`` steps."""
        self._losses: list[float] = []
        self._weight_norm = math.nan
        # No more images than a training step has in memory.
        self._encode_batch = max(1, batch_size // world_size())

    def state(self) -> dict[str, Any]:
        """The state as JSON, for :meth:`restore`."""
        history = [asdict(metrics) for metrics in self.history]
        return {
            "readings": history,
            "suspected": self.pending,
            "losses": list(self._losses),
            "weights": self._weight_norm,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a result of :meth:`state`."""
        self.history = [Metrics(**metrics) for metrics in state["readings"]]
        self.pending, self._losses, self._weight_norm = state["suspected"], list(state["losses"]), state["weights"]

    def check_before_training(self, method: Any) -> CollapseVerdict | None:
        """Check images, views and batch size with the untrained network; None if there is no problem."""
        self._weight_norm = _weight_norm(method.backbone)
        distinct = len(self.images.flatten(1).unique(dim=0)) / len(self.images)
        contrast = float(self.images.float().std(dim=0).mean())
        if len(self.images) > 1 and (distinct < 0.5 or contrast < MIN_CONTRAST):
            figures = f"{distinct:.0%} of {len(self.images)} images are distinct, a pixel differs by {contrast:.1f}/255"
            return self._verdict("images too much alike", "images", 0, figures)
        features = [features_and_projections(method, x, self._encode_batch)[0] for x in (self.x0, self.x1)]
        between_views = _variance_fraction(*features)
        if between_views < MIN_VIEW_VARIANCE:
            figures = f"two views of an image differ by {between_views:.2%} of the variance between images"
            return self._verdict("views too weak", "views", 0, figures)
        # With several processes, all of them would have to compute the batch norm.
        if world_size() == 1 and self.batch_size <= len(self.images) // 2:
            from_batch = self._batch_variance(method)
            if from_batch > MAX_BATCH_VARIANCE:
                figures = f"{from_batch:.0%} of the variance of projections comes from the images that share a batch"
                return self._verdict("batch too small", "batch", 0, figures)
        return None

    def is_due(self, step: int) -> bool:
        """True if the monitor checks after this step."""
        return step % CHECK_INTERVAL == 0

    def check(self, method: Any, step: int, losses: list[float]) -> CollapseVerdict | None:
        """Record the losses up to a step; evaluate metrics if a check is due or a loss is not finite.

        Returns:
            The verdict if there is one. All but divergence need a problem in two successive checks.
        """
        self._losses += losses
        if not self.is_due(step) and all(map(math.isfinite, losses)):
            return None
        loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        metrics = self._measure(method, step, loss)
        kind = self._diagnose(metrics)
        self._weight_norm = metrics.weights
        self.history.append(metrics)
        if len(self.history) > MAX_HISTORY:
            self.history = self.history[::2]
        # A problem in a single check may be noise, but divergence is not.
        certain = kind == "divergence" or (kind is not None and self.pending)
        self.healthy = step >= MIN_STEPS and kind is None and not self.pending
        self.pending = kind is not None
        if kind is None or not certain:
            return None
        figures = (
            f"loss {loss:.3g}, uniformity {metrics.uniformity:.2f}, effective rank {metrics.rank:.1f} "
            f"({metrics.rank_share:.0%}), dead features {metrics.dead:.0%}"
        )
        is_fatal = not math.isfinite(metrics.loss + metrics.uniformity)
        return self._verdict(kind, self._cause(method), step, figures, is_fatal)

    def latest_metrics(self) -> dict[str, float]:
        """The metrics of the last check by name, without step and loss."""
        return {name: value for name, value in asdict(self.history[-1]).items() if name not in ("step", "loss")}

    def _measure(self, method: Any, step: int, loss: float) -> Metrics:
        views = self.x0, self.x1[:ALIGNMENT_IMAGES]
        (h, z0), (_, z1) = (features_and_projections(method, x, self._encode_batch) for x in views)
        weights = _weight_norm(method.backbone)
        if not all(bool(torch.isfinite(each).all()) for each in (h, z0, z1)):
            return Metrics(step, loss, *[math.nan] * 7)
        rank = rankme(z0)
        return Metrics(
            step=step,
            loss=loss,
            spread=normalized_std(z0),
            rank=rank,
            rank_share=rank / min(z0.shape),
            alignment=alignment(z0[:ALIGNMENT_IMAGES], z1),
            uniformity=uniformity(z0),
            dead=dead_fraction(h),
            weights=weights,
        )

    def _diagnose(self, metrics: Metrics) -> Kind | None:
        growth_limit = MAX_WEIGHT_GROWTH * self._weight_norm
        if not math.isfinite(metrics.loss + metrics.uniformity) or metrics.weights > growth_limit:
            return "divergence"
        if metrics.step < MIN_STEPS:
            return None
        if metrics.uniformity > COMPLETE_COLLAPSE_UNIFORMITY:
            return "complete collapse"
        if metrics.dead > MAX_DEAD_FRACTION:
            return "dead units"
        low_rank = metrics.rank_share < DIMENSIONAL_COLLAPSE_RANK
        narrow = low_rank and metrics.uniformity > DIMENSIONAL_COLLAPSE_UNIFORMITY
        return "dimensional collapse" if narrow or metrics.rank_share < MIN_RANK_FRACTION else None

    def _cause(self, method: Any) -> Cause:
        """The first fault that can be shown, else the learning rate."""
        predictor = getattr(method, "predictor", None)
        if predictor is not None:
            if not any(parameter.requires_grad for parameter in predictor.parameters()):
                return "predictor"
            # With several processes, the loss may wait for the other ones.
            if world_size() == 1 and self._gradient_bypasses_predictor(method):
                return "stop-gradient"
        return "momentum" if getattr(method, "momentum", 1.0) < MIN_MOMENTUM else "learning rate"

    def _verdict(self, kind: Kind, cause: Cause, step: int, figures: str, is_fatal: bool = False) -> CollapseVerdict:
        meaning, fix = CAUSES[cause]
        when = f"at step {step:,}" if step else "before the first step"
        line = f"{kind} {when}: {figures}. Likely cause: {meaning}. {fix.format(tenth=self.lr / 10)}."
        return CollapseVerdict(kind, cause, step, line, is_fatal)

    @torch.no_grad()
    def _batch_variance(self, method: Any) -> float:
        """Fraction of the variance of projections that changes when the images are put into other batches."""
        encoder = copy.deepcopy(nn.Sequential(method.backbone, method.projector)).eval()
        for module in encoder.modules():
            module.train(isinstance(module, _BatchNorm))  # no dropout, whose noise does not depend on the batch
        x = self.x0.to(next(encoder.parameters()).dtype)
        generator = torch.Generator().manual_seed(0)
        projections = []
        for _ in range(2):
            order = torch.randperm(len(x) // self.batch_size * self.batch_size, generator=generator)
            z = torch.cat([encoder(x[rows]) for rows in order.split(self.batch_size)])
            projections.append(z[order.argsort()])
        return _variance_fraction(*projections)

    def _gradient_bypasses_predictor(self, method: Any) -> bool:
        """True if a gradient reaches the backbone other than through the predictor."""
        trial = copy.deepcopy(method).eval()
        trial.predictor.register_forward_pre_hook(lambda _, inputs: tuple(each.detach() for each in inputs))
        dtype = next(trial.backbone.parameters()).dtype
        with torch.enable_grad():
            few = min(32, self._encode_batch)
            loss = trial(self.x0[:few].to(dtype), self.x1[:few].to(dtype)).loss
            weights = [w for w in trial.backbone.parameters() if w.requires_grad]
            if not loss.requires_grad:
                return False
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        return any(gradient is not None for gradient in gradients)


def _variance_fraction(first: Tensor, second: Tensor) -> float:
    """Variance between two features [N, D] of the same image, as a fraction of the variance between images."""
    return float((first - second).square().mean() / (2 * first.var(dim=0).mean()).clamp(min=1e-30))


def _weight_norm(module: nn.Module) -> float:
    return float(torch.stack([p.detach().float().square().sum() for p in module.parameters()]).sum().sqrt())
