"""Optimizers by name, LARS and Muon for convolutions, parameter groups and the learning-rate schedule."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer and its hyperparameters."""

    name: Literal["sgd", "lars", "adamw"]
    lr: float
    """Peak learning rate."""
    momentum: float = 0.9
    """Of SGD and LARS; AdamW ignores it."""
    weight_decay: float = 0.0
    """L2 penalty; decoupled in AdamW."""

    def build(self, params: Iterable[Any]) -> Optimizer:
        """Make the optimizer for parameters or parameter groups."""
        if self.name == "lars":
            return LARS(params, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        # Fused: one pass over the weights instead of four. Some supported versions of torch have none for mps.
        fused = not torch.backends.mps.is_available()
        if self.name == "adamw":
            return AdamW(params, lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        return SGD(params, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=fused)


class LARS(Optimizer):
    """LARS, layer-wise adaptive rate scaling (You, Gitman & Ginsburg 2017, algorithm 1).

    For weights w with gradient g: ``trust = eta |w| / (|g| + decay |w|)``,
    ``v <- momentum v + lr trust (g + decay w)``, ``w <- w - v``.
    Trust is 1 for groups with ``adapt=False`` (biases, batch norm), and for weights or gradients that are all zero.
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
        """Update every parameter that has a gradient."""
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
    """Muon: momentum with an orthogonalised step, for hidden layers; Adam for groups with ``orthogonal=False``.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon): for weights W [O, I] with gradient G,
    ``M <- momentum M + G``, ``W <- W (1 - lr decay) - lr sqrt(max(1, O / I)) orthogonal(G + momentum M)``.
    The weights [O, I, h, w] of a convolution are treated as a matrix [O, I h w].
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
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    step = (self._muon_step if group["orthogonal"] else self._adam_step)(w, w.grad, group)
                    w.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"])
        return loss

    def _muon_step(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state, momentum = self.state[w], group["momentum"]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(w)
        matrix = (grad + momentum * state["momentum"].mul_(momentum).add_(grad)).flatten(1)
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        step: Tensor = scale * orthogonal(matrix).reshape(w.shape)
        return step

    def _adam_step(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        """Kingma & Ba 2015, algorithm 1, without the weight decay, which is decoupled (Loshchilov & Hutter 2019)."""
        state, (first, second) = self.state[w], group["betas"]
        if "count" not in state:
            state.update(count=torch.zeros(()), mean=torch.zeros_like(w), square=torch.zeros_like(w))
        state["count"] += 1
        state["mean"].lerp_(grad, 1 - first)
        state["square"].lerp_(grad.square(), 1 - second)
        scale = (state["square"] / (1 - second ** state["count"])).sqrt() + 1e-8
        step: Tensor = state["mean"] / (1 - first ** state["count"]) / scale
        return step


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan et al. 2024: in a few iterations, singular values of 0.01 to 1 become approximately 1."""


def orthogonal(matrix: Tensor, iterations: int = 3) -> Tensor:
    """Approximation of U V' of the singular value decomposition U S V' of a matrix [O, I], in its own precision."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(iterations):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    result: Tensor = x.T if tall else x
    return result


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """Factor of the peak learning rate: a linear warm-up, then half a cosine (Loshchilov & Hutter 2017); steps from 0.

    >>> [round(cosine_with_warmup(step, 6, 2), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_rate(optimizer: Optimizer, factor: float, scale: float = 1.0) -> None:
    """Set the learning rates to peak * factor * scale; a group with ``constant_lr`` ignores ``factor``."""
    for group in optimizer.param_groups:
        peak = group.setdefault("initial_lr", group["lr"])
        group["lr"] = peak * (1 if group.get("constant_lr") else factor) * scale


def hidden_and_rest(module: nn.Module, hidden_lr: float, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for :class:`Muon`: Muon for hidden matrices and convolutions, Adam for all other parameters.

    The others are the first layer, the last layer, norms and biases.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    layers = [p for p in trained if p.ndim in (2, 4)]
    hidden = {id(p) for p in layers[1:-1]}
    adam = {"orthogonal": False, "lr": lr}
    return [
        {"params": layers[1:-1], "lr": hidden_lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim > 1 and id(p) not in hidden], "weight_decay": weight_decay, **adam},
        {"params": [p for p in trained if p.ndim <= 1], **adam},
    ]


def without_decay(module: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups: weights; and biases and norms, without weight decay and without LARS scaling.

    Frozen parameters are in neither group.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0, "adapt": False}]


def layerwise_groups(backbone: nn.Module, head: nn.Module, lr: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups of AdamW with layer-wise learning-rate decay from the head to the first layer.

    A layer is a child module with weights; instead of an ``nn.Sequential`` or an only child, its children are layers.
    Weights outside of child modules, such as position embeddings, have the lowest rate.

    Args:
        backbone: its layers are found as above.
        head: the top layer.
        lr: learning rate of the head.
        decay: factor of the learning rate from a layer to the one below it.
    """
    layers = [*_layers(backbone), head]
    groups = [
        {**group, "lr": lr * decay**depth}
        for depth, layer in enumerate(reversed(layers))
        for group in without_decay(layer)
        if group["params"]
    ]
    grouped = {id(p) for group in groups for p in group["params"]}
    others = [p for p in backbone.parameters() if id(p) not in grouped]
    lowest = {"params": others, "lr": lr * decay ** (len(layers) - 1), "weight_decay": 0.0}
    return [*groups, lowest] if others else groups


def _layers(module: nn.Module) -> list[nn.Module]:
    found = []
    children = list(module.children())
    for child in children:
        opened = isinstance(child, nn.Sequential) or len(children) == 1
        found += _layers(child) if opened and list(child.children()) else [child]
    return [layer for layer in found if any(True for _ in layer.parameters())]
