"""Optimizers by name, LARS and Muon, which torch lacks or has for matrices alone, and the learning rate's schedule."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
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


class Muon(Optimizer):
    """Momentum whose step is made orthogonal, for hidden layers; Adam for groups with ``orthogonal=False``.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon): for weights W [O, I] with gradient G,
    ``M <- momentum M + G``, ``W <- W (1 - lr decay) - lr sqrt(max(1, O / I)) orthogonal(G + momentum M)``.
    A convolution's weights [O, I, h, w] are a matrix [O, I h w].
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": betas, "orthogonal": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    step = (self._turned if group["orthogonal"] else self._adam)(w, w.grad, group)
                    w.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"])
        return loss

    def _turned(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state, keep = self.state[w], group["momentum"]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(w)
        matrix = (grad + keep * state["momentum"].mul_(keep).add_(grad)).flatten(1)
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        step: Tensor = scale * orthogonal(matrix).reshape(w.shape)
        return step

    def _adam(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        """Kingma & Ba 2015, algorithm 1; its decay apart (Loshchilov & Hutter 2019)."""
        state, (first, second) = self.state[w], group["betas"]
        if "count" not in state:
            state.update(count=torch.zeros(()), mean=torch.zeros_like(w), square=torch.zeros_like(w))
        state["count"] += 1
        state["mean"].lerp_(grad, 1 - first)
        state["square"].lerp_(grad.square(), 1 - second)
        size = (state["square"] / (1 - second ** state["count"])).sqrt() + 1e-8
        step: Tensor = state["mean"] / (1 - first ** state["count"]) / size
        return step


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Of Jordan et al.: singular values from 0.01 to 1 end near 1 in few rounds, not exactly at it."""


def orthogonal(matrix: Tensor, rounds: int = 3) -> Tensor:
    """About U V' of the matrix's singular value decomposition U S V'; [O, I], in single precision."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(rounds):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    result: Tensor = x.T if tall else x
    return result


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


def hidden_and_rest(module: nn.Module, hidden_lr: float, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for :class:`Muon`: its own steps for convolutions and matrices between others, Adam's for what is left.

    That is the first layer, the last one, norms and biases.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    layers = [p for p in trained if p.ndim in (2, 4)]
    hidden = {id(p) for p in layers[1:-1]}
    plain = {"orthogonal": False, "lr": lr}
    return [
        {"params": layers[1:-1], "lr": hidden_lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim > 1 and id(p) not in hidden], "weight_decay": weight_decay, **plain},
        {"params": [p for p in trained if p.ndim <= 1], **plain},
    ]


def without_decay(module: nn.Module) -> list[dict[str, Any]]:
    """Two groups: weights, and biases with batch-norm parameters, which get no decay and no LARS scaling.

    What is not trained is in neither.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0, "adapt": False}]
