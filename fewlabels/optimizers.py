"""Optimizers by name, LARS, which torch does not have, and the schedule of the learning rate."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer


@dataclass(frozen=True)
class OptimizerSettings:
    """Name, peak learning rate, momentum (of SGD and LARS) and weight decay (L2; decoupled in AdamW)."""

    name: Literal["sgd", "lars", "adamw"]
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0

    def build(self, params: Iterable[Any]) -> Optimizer:
        """The optimizer for these parameters or parameter groups."""
        if self.name == "lars":
            return LARS(params, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        # One pass over the weights instead of four. Not for mps in every torch that we take.
        fused = not torch.backends.mps.is_available()
        if self.name == "adamw":
            return AdamW(params, lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        return SGD(params, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=fused)


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman & Ginsburg 2017, algorithm 1).

    For weights w with gradient g: ``trust = eta |w| / (|g| + decay |w|)``,
    ``v <- momentum v + lr trust (g + decay w)``, ``w <- w - v``.
    A group with ``adapt=False`` (biases, batch norm) uses trust 1; so does a layer whose
    weights or gradient are all zero.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "adapt": True}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                trust: float | torch.Tensor = 1.0
                if group["adapt"]:
                    w_norm, g_norm = w.norm(), w.grad.norm()
                    ratio = group["eta"] * w_norm / (g_norm + group["weight_decay"] * w_norm)
                    trust = torch.where((w_norm > 0) & (g_norm > 0), ratio, torch.ones_like(ratio))
                update = (w.grad + group["weight_decay"] * w) * (group["lr"] * trust)
                state = self.state[w]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(w)
                velocity = state["velocity"].mul_(group["momentum"]).add_(update)
                w.sub_(velocity)
        return loss


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """Factor of the peak rate at a step from 0: a straight rise, then half a cosine (Loshchilov & Hutter 2017).

    >>> [round(cosine_with_warmup(step, 6, 2), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_rate(optimizer: Optimizer, factor: float, scale: float = 1.0) -> None:
    """Set every group's learning rate to its peak, times ``factor`` unless it has ``constant_lr``, times ``scale``."""
    for group in optimizer.param_groups:
        peak = group.setdefault("initial_lr", group["lr"])
        group["lr"] = peak * (1 if group.get("constant_lr") else factor) * scale


def without_decay(module: nn.Module) -> list[dict[str, Any]]:
    """Two groups: weights, and biases with batch-norm parameters, which get no decay and no LARS scaling.

    What is not trained is in neither.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0, "adapt": False}]
