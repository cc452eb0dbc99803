"""The one training loop: pretraining, supervised training, self-training and distillation all run on it."""

import copy
import io
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
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
from fewlabels.training.distributed import rank
from fewlabels.training.interrupts import stop_request
from fewlabels.training.objectives import Objective
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

WARM_UP_STEPS, TIMED_STEPS = 2, 4
"""Steps of :meth:`NetworkTrainer.seconds_per_step` before the clock runs, and while it runs."""
FIRST_REPLAN = 10
"""Steps after which a training with a deadline first measures its speed; then after each third of what is left."""


class Trainer(ABC):
    """One training: optimizer steps that are observed, checkpointed, stopped between two steps and resumed exactly.

    A subclass says what a step does (:meth:`update`), what a checkpoint holds (:meth:`modules`, :meth:`state`), and may
    look at what was reached (:meth:`report`). Whatever a step draws at random must be a function of the step's number.

    Args:
        observer: shows progress, and keeps the loss curve.
        folder: for checkpoints, from the newest of which :meth:`steps` resumes; None: none are written.
        checkpoint_seconds: between two checkpoints.
    """

    optimizer: Optimizer
    total_steps: int
    images_per_step: int
    saves_first_step = False
    """Whether there is a checkpoint before the first step."""
    saves_last_step = False
    """Whether there is one after the last step."""

    def __init__(self, observer: Observer, folder: Path | None, checkpoint_seconds: float) -> None:
        self.observer, self.folder, self.checkpoint_seconds = observer, folder, checkpoint_seconds

    @abstractmethod
    def update(self, step: int) -> Tensor:
        """Do one optimizer step; returns its loss, a scalar."""

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """The modules that a checkpoint holds, by file name."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What else a checkpoint holds, as JSON."""

    @abstractmethod
    def restore_state(self, state: dict[str, Any], step: int) -> None:
        """Take up what :meth:`state` gave at this step.

        Raises:
            InputError: if it is of another training.
        """

    @property
    def device(self) -> torch.device:
        """Where the modules are."""
        return next(next(iter(self.modules().values())).parameters()).device

    def begin(self) -> int:
        """Get ready; returns the first step to do: 0, or that of the newest checkpoint."""
        found = self.find_checkpoint()
        return 0 if found is None else self.restore(*found)

    def must_report(self, step: int) -> bool:
        """Whether :meth:`report` is due after so many steps."""
        return True

    def report(self, losses: list[Tensor], step: int) -> int | None:
        """Look at the losses up to a step; returns the step to go back to, or None to go on."""
        for number, loss in enumerate(losses, step - len(losses) + 1):
            self.observer.step(number, float(loss))
        return None

    def agree(self, *flags: bool) -> list[bool]:
        """Each flag, if it is up in any process; with one process the flags themselves."""
        return list(flags)

    def steps(self) -> Iterator[int]:
        """The loop; gives the number of each step that is done.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM; what was reached is saved.
        """
        step = self.begin()
        losses: list[Tensor] = []
        saved = time.monotonic()
        with self.observer.watch(self.total_steps, self.images_per_step, step), stop_request() as request:
            if step == 0 and self.saves_first_step:
                self.save(0)
            while step < self.total_steps:
                losses.append(self.update(step))
                step += 1
                if self.must_report(step) or step == self.total_steps:
                    rewound = self.report(losses, step)
                    losses = []
                    if rewound is not None:
                        step = rewound
                        continue
                    overdue = time.monotonic() - saved >= self.checkpoint_seconds and step < self.total_steps
                    stop, save = self.agree(request.received, overdue)
                    if stop or save or (self.saves_last_step and step == self.total_steps):
                        self.save(step)
                        saved = time.monotonic()
                    if stop and step < self.total_steps:
                        raise KeyboardInterrupt(f"step {step:,} of {self.total_steps:,}")
                yield step

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        if self.folder is not None:
            write_checkpoint(self.folder, step, self.checkpoint_files())

    def checkpoint_files(self) -> dict[str, bytes]:
        """The files of a checkpoint and their content."""
        buffer = io.BytesIO()
        torch.save(self.optimizer.state_dict(), buffer)
        files = {
            f"{name}.safetensors": weights_bytes(module, {"kind": name}) for name, module in self.modules().items()
        }
        state = {**self.state(), "observer": self.observer.state()}
        return {**files, "optimizer.pt": buffer.getvalue(), "state.json": json.dumps(state).encode()}

    def find_checkpoint(self) -> tuple[int, dict[str, bytes]] | None:
        """Step and files of the newest whole checkpoint."""
        return None if self.folder is None else newest_checkpoint(self.folder, self.observer.say)

    def restore(self, step: int, files: dict[str, bytes]) -> int:
        """Take up a checkpoint; returns its step."""
        state = json.loads(files["state.json"])
        self.restore_state(state, step)
        assert self.folder is not None  # the files come from there
        for name, module in self.modules().items():
            load_exactly(module, load(files[f"{name}.safetensors"]), self.folder)
        optimizer = torch.load(io.BytesIO(files["optimizer.pt"]), weights_only=True, map_location=self.device)
        self.optimizer.load_state_dict(optimizer)
        self.observer.restore(step, state["observer"])
        return step


def seed_dropout(seed: int, step: int) -> None:
    """Seed torch's generators on every device, so that dropout is a function of seed, step and process."""
    torch.manual_seed(seed_from(seed, "dropout", step, rank()))


def running_average(module: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers, in evaluation mode.

    Its decay is ``min(decay, (1 + n) / (10 + n))`` after n steps, so that the first weights are soon forgotten.
    """

    def follow(averages: Tensors, weights: Tensors, steps: Tensor | int) -> None:
        if not averages[0].is_floating_point():
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)
            return
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + int(steps)) / (10 + int(steps))))

    return AveragedModel(module, multi_avg_fn=follow, use_buffers=True).eval()


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Muon with a linear warm-up, then half a cosine."""

    lr: float = 2e-3
    muon_lr: float = 0.0
    """Muon's learning rate for hidden layers, AdamW's being that of the others; 0: AdamW for all."""
    weight_decay: float = 0.02
    warmup: float = 0.05
    """Fraction of the steps."""
    ema: float = 0.998
    """Decay of the running average, which is the result."""
    checkpoint_seconds: float = 60.0


class NetworkTrainer(Trainer):
    """Training of a network by an objective; :meth:`run` gives its running average.

    Args:
        network: trained in place.
        objective: gives the loss.
        config: optimizer, schedule of its rate, running average.
        total_steps: how many.
        seed: of dropout.
        observer: shows progress.
        folder: for checkpoints; None: none.
        groups: parameter groups of AdamW; None: all parameters, norms and biases without decay.
        device: where.
        precision: of the computation; weights are in single precision.
        seconds: the time that the training has, from when it begins; ``total_steps`` then follows the measured speed.
            None: exactly ``total_steps`` are done.
        max_steps: that the clock may raise ``total_steps`` to.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        config: OptimizerConfig,
        total_steps: int,
        seed: int,
        observer: Observer,
        folder: Path | None = None,
        groups: list[dict[str, Any]] | None = None,
        device: torch.device = torch.device("cpu"),
        precision: Precision = "32-true",
        seconds: float | None = None,
        max_steps: int | None = None,
    ) -> None:
        super().__init__(observer, folder, config.checkpoint_seconds)
        self.config, self.total_steps, self.seed = config, total_steps, seed
        self.seconds, self.max_steps = seconds, max_steps or total_steps
        self.half = precision == "bf16-mixed"
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.objective = objective.to(device)
        self.images_per_step = objective.images_per_step
        self.optimizer = self._make_optimizer(groups)
        self.average = running_average(network, config.ema)
        self._first_step, self._next_look, self._began = 0, FIRST_REPLAN, math.inf

    def _make_optimizer(self, groups: list[dict[str, Any]] | None) -> Optimizer:
        lr, decay = self.config.lr, self.config.weight_decay
        if self.config.muon_lr:
            return Muon(hidden_and_rest(self.network, self.config.muon_lr, lr, decay))
        return OptimizerSettings("adamw", lr, weight_decay=decay).build(groups or without_decay(self.network))

    def run(self) -> nn.Module:
        """Train to the end; returns the running average in evaluation mode, on its device.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM; what was reached is saved.
        """
        for _ in self.steps():
            pass
        average: nn.Module = self.average.module
        return average.eval()

    def begin(self) -> int:
        first = super().begin()
        self._first_step, self._next_look, self._began = first, first + FIRST_REPLAN, time.perf_counter()
        return first

    def update(self, step: int) -> Tensor:
        seed_dropout(self.seed, step)
        set_rate(
            self.optimizer, cosine_with_warmup(step, self.total_steps, round(self.config.warmup * self.total_steps))
        )
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            loss: Tensor = self.objective(self.network, self.average.module, step)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return loss.detach()

    def report(self, losses: list[Tensor], step: int) -> int | None:
        for number, loss in enumerate(losses, step - len(losses) + 1):
            self.observer.step(number, float(loss), self.objective.status())
        self._follow_clock(step)
        return None

    def _follow_clock(self, step: int) -> None:
        """Plan as many steps as the time that is left is enough for."""
        if self.seconds is None or step < self._next_look or step >= self.total_steps:
            return
        elapsed = time.perf_counter() - self._began
        speed = (step - self._first_step) / elapsed
        in_time = step + int(speed * (self.seconds - elapsed))
        self.total_steps = max(step + 1, min(in_time, self.max_steps))
        self._next_look = step + max(FIRST_REPLAN, -(-(self.total_steps - step) // 3))
        self.observer.expect(self.total_steps)

    def seconds_per_step(self) -> float:
        """The time of a step, from a few; what they learn is forgotten."""
        parts: list[Any] = [*self.modules().values(), self.optimizer]
        before = [copy.deepcopy(part.state_dict()) for part in parts]
        for step in range(WARM_UP_STEPS + TIMED_STEPS):
            if step == WARM_UP_STEPS:
                began = time.perf_counter()
            self.update(step).item()
        seconds = (time.perf_counter() - began) / TIMED_STEPS
        for part, state in zip(parts, before, strict=True):
            part.load_state_dict(state)
        return seconds

    def modules(self) -> dict[str, nn.Module]:
        return {"network": self.network, "average": self.average, "objective": self.objective}

    def state(self) -> dict[str, Any]:
        return {"total_steps": self.total_steps}

    def restore_state(self, state: dict[str, Any], step: int) -> None:
        self.total_steps = int(state["total_steps"])
