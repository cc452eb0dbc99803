"""Optimizers by name, and LARS, which torch does not have."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Optimizer


@dataclass(frozen=True)
class OptimizerSettings:
    """Name, peak learning rate, momentum and L2 weight decay."""

    name: Literal["sgd", "lars"]
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0

    def build(self, params: Iterable[Any]) -> Optimizer:
        """The optimizer for these parameters or parameter groups."""
        kind: type[SGD] | type[LARS] = SGD if self.name == "sgd" else LARS
        return kind(params, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


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


def without_decay(module: nn.Module) -> list[dict[str, Any]]:
    """Two groups: weights, and biases with batch-norm parameters, which get no decay and no LARS scaling."""
    weights = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0, "adapt": False}]
