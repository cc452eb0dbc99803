"""The loop that all strategies with gradients share."""

import copy
import io
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from fewlabels._internal.seeding import seed_from
from fewlabels._internal.tensors import load_exactly, weights_bytes
from fewlabels.training.callbacks import Observer
from fewlabels.training.checkpoints import newest_checkpoint, write_checkpoint
from fewlabels.training.interrupts import stop_wish
from fewlabels.training.optimizers import (
    Muon,
    OptimizerSettings,
    cosine_with_warmup,
    hidden_and_rest,
    set_rate,
    without_decay,
)
from fewlabels.training.precision import Precision

Tensors = tuple[Tensor, ...] | list[Tensor]

WARM_UP, TIMED = 2, 4
"""Steps of a trial before the clock runs, and while it does."""


class Objective(nn.Module):
    """What a step minimises. What it remembers from step to step are buffers, so that they are checkpointed."""

    images_a_step: int

    def forward(self, student: nn.Module, teacher: nn.Module, step: int) -> Tensor:
        """The loss of a step, a scalar.

        Args:
            student: the network that is trained, in training mode.
            teacher: its running average, in evaluation mode.
            step: images and views are a function of it and the objective's seed.
        """
        raise NotImplementedError

    def told(self) -> str:
        """What the progress line shows of it; often nothing."""
        return ""

    def warning(self) -> str:
        """What the user should know of a training that has ended; often nothing."""
        return ""


@dataclass(frozen=True)
class LoopSettings:
    """AdamW or Muon with a short warm-up and half a cosine."""

    lr: float = 2e-3
    muon: float = 0.0
    """Muon's learning rate of hidden layers, AdamW's being that of the others; 0: AdamW for all."""
    weight_decay: float = 0.02
    warmup: float = 0.05
    """Share of the steps."""
    ema: float = 0.998
    """Decay of the running average, which is the result; lower in the first steps."""
    checkpoint_seconds: float = 60.0


class Loop:
    """One training of a network by an objective; :meth:`run` gives its running average.

    Args:
        network: trained in place.
        objective: see there.
        settings: see there.
        steps: how many.
        seed: of dropout.
        groups: parameter groups of AdamW; None: all parameters, norms and biases without decay.
        device: where.
        precision: of what is computed; weights are in single precision.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        settings: LoopSettings,
        steps: int,
        seed: int,
        groups: list[dict[str, Any]] | None = None,
        device: torch.device = torch.device("cpu"),
        precision: Precision = "32-true",
    ) -> None:
        self.settings, self.steps, self.seed, self.device = settings, steps, seed, device
        self._at_most = steps
        self.until: float | None = None
        """When it is to end, by :func:`time.perf_counter`; None: when it has done its steps."""
        self.half = precision == "bf16-mixed"
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.objective = objective.to(device)
        self.optimizer = self._optimizer(groups)
        self.average = AveragedModel(network, multi_avg_fn=self._follow, use_buffers=True).eval()

    def _optimizer(self, groups: list[dict[str, Any]] | None) -> Optimizer:
        lr, decay = self.settings.lr, self.settings.weight_decay
        if self.settings.muon:
            return Muon(hidden_and_rest(self.network, self.settings.muon, lr, decay))
        return OptimizerSettings("adamw", lr, weight_decay=decay).build(groups or without_decay(self.network))

    def run(self, observer: Observer, folder: Path | None = None) -> nn.Module:
        """Train to the end; returns the running average in evaluation mode, on its device.

        With a folder it is saved there every minute, and goes on from where it was stopped. Where it is said when it is
        to end, it is seen on the way how many steps it does: at least half of those that were planned.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM; what was reached is saved.
        """
        step = first = self._restored(folder, observer)
        planned, look_at = self.steps, first + -(-(self.steps - first) // 4)
        began, saved = time.perf_counter(), time.monotonic()
        with observer.watch(self.steps, self.objective.images_a_step, first), stop_wish() as wish:
            while step < self.steps:
                observer.step(step + 1, self.step(step), self.objective.told())
                step += 1
                due = time.monotonic() - saved >= self.settings.checkpoint_seconds and step < self.steps
                if folder is not None and (wish.asked or due):
                    self._save(folder, step, observer)
                    saved = time.monotonic()
                if wish.asked:
                    raise KeyboardInterrupt
                if self.until is not None and look_at <= step < self.steps:
                    now = time.perf_counter()
                    in_time = step + (self.until - now) / (now - began) * (step - first)
                    self.steps = max(step + 1, planned // 2, int(min(in_time, self._at_most)))
                    look_at = step + -(-(self.steps - step) // 3)
                    observer.expect(self.steps)
        network: nn.Module = self.average.module
        return network.eval()

    def step(self, step: int) -> float:
        """One step of the optimizer; returns its loss."""
        torch.manual_seed(seed_from(self.seed, "dropout", step))
        set_rate(self.optimizer, cosine_with_warmup(step, self.steps, round(self.settings.warmup * self.steps)))
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            loss = self.objective(self.network, self.average.module, step)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return float(loss.item())

    def seconds_a_step(self) -> float:
        """Of a few steps, timed; what they learn is forgotten."""
        parts: list[Any] = [*self._modules().values(), self.optimizer]
        kept = [copy.deepcopy(part.state_dict()) for part in parts]
        for step in range(WARM_UP + TIMED):
            if step == WARM_UP:
                began = time.perf_counter()
            self.step(step)
        seconds = (time.perf_counter() - began) / TIMED
        for part, state in zip(parts, kept, strict=True):
            part.load_state_dict(state)
        return seconds

    def _follow(self, slow: Tensors, fast: Tensors, seen: Tensor | int) -> None:
        if not slow[0].is_floating_point():
            for old, new in zip(slow, fast, strict=True):
                old.copy_(new)
            return
        kept = min(self.settings.ema, (1 + int(seen)) / (10 + int(seen)))
        torch._foreach_lerp_(slow, fast, 1 - kept)

    def _modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds beside the optimizer."""
        return {"network": self.network, "average": self.average, "objective": self.objective}

    def _save(self, folder: Path, step: int, observer: Observer) -> None:
        buffer = io.BytesIO()
        rest = {"optimizer": self.optimizer.state_dict(), "observer": observer.state(), "steps": self.steps}
        torch.save(rest, buffer)
        files = {
            f"{name}.safetensors": weights_bytes(module, {"kind": name}) for name, module in self._modules().items()
        }
        write_checkpoint(folder, step, {**files, "rest.pt": buffer.getvalue()})

    def _restored(self, folder: Path | None, observer: Observer) -> int:
        """The first step to do."""
        found = newest_checkpoint(folder, observer.say) if folder is not None else None
        if found is None or folder is None:
            return 0
        step, files = found
        for name, module in self._modules().items():
            load_exactly(module, load(files[f"{name}.safetensors"]), folder)
        rest = torch.load(io.BytesIO(files["rest.pt"]), weights_only=True, map_location=self.device)
        self.optimizer.load_state_dict(rest["optimizer"])
        observer.restore(step, rest["observer"])
        self.steps = rest["steps"]  # they may have been planned anew since it began
        return step
