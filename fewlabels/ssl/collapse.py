"""Has it collapsed? A guard that looks at a few figures, names what is wrong, its likely cause, and what to change.

No label is read. The thresholds were set on runs whose seeds are not those of ``benchmarks/results/collapse.json``.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.ssl.metrics import alignment, dead_share, encoded, rankme, spread, uniformity
from fewlabels.training.distributed import processes

LOOK_EVERY = 25
"""Steps between looks."""
LOOKED_AT = 256
"""Images of the fixed batch."""
ALIGNED = 64
"""Of them, those whose second view is looked at as well: alignment is shown and decides nothing."""
FIRST_VERDICT = 100
"""Steps before which nothing but divergence is judged: running statistics and a queue take so long to fill."""
KEPT_READINGS = 200

UNIFORMITY_COMPLETE = -0.5
UNIFORMITY_DIMENSIONAL = -1.6
RANK_SHARE_DIMENSIONAL = 0.16
"""Together with that uniformity; by itself, ``RANK_SHARE``."""
RANK_SHARE = 0.03
"""Of what the rank of the batch's projections could be."""
DEAD_SHARE = 0.25
GROWTH = 4.0
"""Of the length of the backbone's weights from one look to the next."""
ALIKE = 0.05
"""Of the variance of an untrained network's features: what the views of one image have of it."""
BATCH_SHARE = 0.5
"""Of the variance of projections: what comes from which images share a batch."""
CONTRAST = 2.0
"""Of 255: mean deviation of a pixel between images."""
MOMENTUM = 0.9

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
    "images": ("the images hardly differ", "Look for constant or duplicate images"),
    "views": ("both views of an image are nearly the same to the network", "Choose stronger ones with --views"),
    "batch": ("a batch has too few images for batch norm", "Choose a larger --batch-size, or a smaller --accumulate"),
    "predictor": ("the predictor has no weights to train", "Give the method a predictor"),
    "stop-gradient": ("a gradient reaches the backbone through the target", "Detach the target in the loss"),
    "momentum": ("the slow copy follows too fast", f"Choose a momentum of {MOMENTUM} or more"),
    "learning rate": ("the learning rate is too high", "Choose a tenth of it: --lr {tenth:.2g}"),
}
"""What each cause means, and the change to try."""


@dataclass(frozen=True)
class Reading:
    """The figures after a step, of the fixed batch's projections but for the loss."""

    step: int
    loss: float
    """Mean since the last look."""
    spread: float
    rank: float
    """RankMe."""
    rank_share: float
    """Of what it could be at most: min(images, width)."""
    alignment: float
    uniformity: float
    dead: float
    """Share of the backbone's features that are the same for all images."""
    weights: float
    """Length of the backbone's weights."""


@dataclass(frozen=True)
class Verdict:
    """What is wrong, its likely cause, and one line that says both with the change to try."""

    kind: Kind
    cause: Cause
    step: int
    line: str
    lost: bool = False
    """Nothing can be computed any more."""

    def __str__(self) -> str:
        return self.line


def judged(readings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run with these readings was long enough to be judged for more than divergence: that takes two looks."""
    return any(reading["step"] >= FIRST_VERDICT + LOOK_EVERY for reading in readings)


class Guard:
    """Looks at the two views of a fixed batch, in evaluation mode; training is not touched.

    Args:
        images: uint8 [N, C, H, W].
        views: what makes a float view [N, C, H', W'] of them, given 0 or 1.
        batch_size: images that batch norm sees together in training.
        lr: peak learning rate, to name a lower one.
    """

    def __init__(self, images: Tensor, views: Callable[[Tensor, int], Tensor], batch_size: int, lr: float) -> None:
        self.images, self.batch_size, self.lr = images, batch_size, lr
        self.x0, self.x1 = views(images, 0), views(images, 1)
        self.readings: list[Reading] = []
        self.suspected = False
        """Whether the last look was bad."""
        self.sound = False
        """Whether the last look and the one before it were good, and the run is old enough to be judged."""
        self._losses: list[float] = []
        self._weights = math.nan
        # No more images than a training step has in memory.
        self._at_once = max(1, batch_size // processes())

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs, as JSON."""
        readings = [asdict(reading) for reading in self.readings]
        return {
            "readings": readings,
            "suspected": self.suspected,
            "losses": list(self._losses),
            "weights": self._weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where an earlier start, or an earlier step, was."""
        self.readings = [Reading(**reading) for reading in state["readings"]]
        self.suspected, self._losses, self._weights = state["suspected"], list(state["losses"]), state["weights"]

    def before(self, method: Any) -> Verdict | None:
        """What images, views and batch size let expect, seen through the network as it was drawn."""
        self._weights = _length(method.backbone)
        distinct = len(self.images.flatten(1).unique(dim=0)) / len(self.images)
        contrast = float(self.images.float().std(dim=0).mean())
        if len(self.images) > 1 and (distinct < 0.5 or contrast < CONTRAST):
            figures = f"{distinct:.0%} of {len(self.images)} images are distinct, a pixel differs by {contrast:.1f}/255"
            return self._verdict("images too much alike", "images", 0, figures)
        alike = _share_of_variance(*(encoded(method, x, self._at_once)[0] for x in (self.x0, self.x1)))
        if alike < ALIKE:
            figures = f"they differ by {alike:.2%} of what different images differ by"
            return self._verdict("views too weak", "views", 0, figures)
        # With several processes batch norm would have to be computed by all.
        if processes() == 1 and self.batch_size <= len(self.images) // 2:
            noise = self._batch_noise(method)
            if noise > BATCH_SHARE:
                figures = f"{noise:.0%} of a projection's variance comes from which images share its batch"
                return self._verdict("batch too small", "batch", 0, figures)
        return None

    def looks_at(self, step: int) -> bool:
        """Whether it is time to, after this step."""
        return step % LOOK_EVERY == 0

    def look(self, method: Any, step: int, losses: list[float]) -> Verdict | None:
        """Take the losses up to a step; where it is time to, read the figures and judge them."""
        self._losses += losses
        if not self.looks_at(step) and all(map(math.isfinite, losses)):
            return None
        loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        reading = self._read(method, step, loss)
        kind = self._judged(reading)
        self._weights = reading.weights
        self.readings.append(reading)
        if len(self.readings) > KEPT_READINGS:
            self.readings = self.readings[::2]
        # One bad look may be noise, unless nothing can be computed any more.
        certain = kind == "divergence" or (kind is not None and self.suspected)
        self.sound = step >= FIRST_VERDICT and kind is None and not self.suspected
        self.suspected = kind is not None
        if kind is None or not certain:
            return None
        figures = (
            f"loss {loss:.3g}, uniformity {reading.uniformity:.2f}, effective rank {reading.rank:.1f} "
            f"({reading.rank_share:.0%}), dead features {reading.dead:.0%}"
        )
        lost = not math.isfinite(reading.loss + reading.uniformity)
        return self._verdict(kind, self._cause(method), step, figures, lost)

    def figures(self) -> dict[str, float]:
        """Those of the last look, by name; the loss is told elsewhere."""
        return {name: value for name, value in asdict(self.readings[-1]).items() if name not in ("step", "loss")}

    def _read(self, method: Any, step: int, loss: float) -> Reading:
        (h, z0), (_, z1) = (encoded(method, x, self._at_once) for x in (self.x0, self.x1[:ALIGNED]))
        weights = _length(method.backbone)
        if not all(bool(torch.isfinite(each).all()) for each in (h, z0, z1)):
            return Reading(step, loss, *[math.nan] * 7)
        rank = rankme(z0)
        share = rank / min(z0.shape)
        figures = (spread(z0), rank, share, alignment(z0[:ALIGNED], z1), uniformity(z0), dead_share(h), weights)
        return Reading(step, loss, *figures)

    def _judged(self, reading: Reading) -> Kind | None:
        if not math.isfinite(reading.loss + reading.uniformity) or reading.weights > GROWTH * self._weights:
            return "divergence"
        if reading.step < FIRST_VERDICT:
            return None
        if reading.uniformity > UNIFORMITY_COMPLETE:
            return "complete collapse"
        if reading.dead > DEAD_SHARE:
            return "dead units"
        narrow = reading.rank_share < RANK_SHARE_DIMENSIONAL and reading.uniformity > UNIFORMITY_DIMENSIONAL
        return "dimensional collapse" if narrow or reading.rank_share < RANK_SHARE else None

    def _cause(self, method: Any) -> Cause:
        """The first fault that can be shown; where there is none, the rate is left."""
        predictor = getattr(method, "predictor", None)
        if predictor is not None:
            if not any(parameter.requires_grad for parameter in predictor.parameters()):
                return "predictor"
            if processes() == 1 and self._leaks(method):  # its loss may ask something of the other processes
                return "stop-gradient"
        return "momentum" if getattr(method, "momentum", 1.0) < MOMENTUM else "learning rate"

    def _verdict(self, kind: Kind, cause: Cause, step: int, figures: str, lost: bool = False) -> Verdict:
        meaning, change = CAUSES[cause]
        when = f"at step {step:,}" if step else "before the first step"
        line = f"{kind} {when}: {figures}. Likely cause: {meaning}. {change.format(tenth=self.lr / 10)}."
        return Verdict(kind, cause, step, line, lost)

    @torch.no_grad()
    def _batch_noise(self, method: Any) -> float:
        """Share of the projections' variance that changes when the images are put into other batches."""
        encoder = copy.deepcopy(nn.Sequential(method.backbone, method.projector)).eval()
        for module in encoder.modules():
            module.train(isinstance(module, _BatchNorm))  # dropout is noise of another kind
        x = self.x0.to(next(encoder.parameters()).dtype)
        drawn = torch.Generator().manual_seed(0)
        each = []
        for _ in range(2):
            order = torch.randperm(len(x) // self.batch_size * self.batch_size, generator=drawn)
            z = torch.cat([encoder(x[rows]) for rows in order.split(self.batch_size)])
            each.append(z[order.argsort()])
        return _share_of_variance(*each)

    def _leaks(self, method: Any) -> bool:
        """Whether a gradient reaches the backbone on another way than through the predictor."""
        trial = copy.deepcopy(method).eval()
        trial.predictor.register_forward_pre_hook(lambda _, inputs: tuple(each.detach() for each in inputs))
        dtype = next(trial.backbone.parameters()).dtype
        with torch.enable_grad():
            few = min(32, self._at_once)
            loss = trial(self.x0[:few].to(dtype), self.x1[:few].to(dtype)).loss
            weights = [w for w in trial.backbone.parameters() if w.requires_grad]
            if not loss.requires_grad:
                return False
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        return any(gradient is not None for gradient in gradients)


def _share_of_variance(first: Tensor, second: Tensor) -> float:
    """How much two features [N, D] of the same images differ, as a share of how much images do."""
    return float((first - second).square().mean() / (2 * first.var(dim=0).mean()).clamp(min=1e-30))


def _length(module: nn.Module) -> float:
    return float(torch.stack([p.detach().float().square().sum() for p in module.parameters()]).sum().sqrt())
