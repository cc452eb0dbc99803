"""Settings of a pretraining run: what its result depends on, and how it is computed."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fewlabels._internal.errors import InputError, refuse_unknown
from fewlabels.ssl.methods import METHODS
from fewlabels.training.precision import Precision


@dataclass(frozen=True)
class PretrainSettings:
    """All that the result depends on, beside images, views and seed."""

    method: str
    epochs: int
    method_settings: Any = None
    """The method's settings dataclass; None: its defaults."""
    backbone: str = "article"
    start_from: str | None = None
    """A safetensors file with initial weights of the backbone, from timm or an earlier run."""
    batch_size: int | None = None
    """Images per optimizer step, over all processes; None: the method's default."""
    lr: float | None = None
    """Peak learning rate; None: the method's default."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 0
    accumulate: int = 1
    """Parts of a batch for gradient accumulation; batch norm and negatives are within a part."""
    precision: Precision = "32-true"
    ema: float = 0.0
    """Decay of the running average of the backbone, which is the result; 0: the last weights are the result."""
    drop_last: bool = True
    """Leave out the incomplete batch at the end of an epoch."""
    keep_epochs: tuple[int, ...] = ()
    """Epochs after which the weights are also saved, in ``epoch-N/``."""
    max_steps: int | None = None
    """Optimizer steps after which the run ends, however many epochs are left; None: no limit."""

    def __post_init__(self) -> None:
        refuse_unknown("method", self.method, METHODS)
        for name, is_valid, condition in (
            ("epochs", self.epochs >= 1, "1 or more"),
            ("max_steps", self.max_steps is None or self.max_steps >= 1, "1 or more"),
            ("batch_size", self.batch_size is None or self.batch_size >= 2, "2 or more"),
            ("lr", self.lr is None or 0 < self.lr < math.inf, "above 0"),
            ("warmup_epochs", 0 <= self.warmup_epochs <= self.epochs, "0 or more, and at most the epochs"),
            ("accumulate", self.accumulate >= 1, "1 or more"),
            ("ema", 0 <= self.ema < 1, "0 or more, and less than 1"),
        ):
            if not is_valid:
                raise InputError(f"{name} {getattr(self, name)}: must be {condition}.")

    @property
    def of_method(self) -> Any:
        """The method's settings: ``method_settings``, or its defaults."""
        return self.method_settings or METHODS[self.method].settings


@dataclass(frozen=True)
class ComputeConfig:
    """How a run is computed and checkpointed, and what happens after a collapse."""

    device: str = "cpu"
    processes: int = 1
    tune: bool = True
    """Find the fastest threads, memory format, prefetching and compilation in a trial; only with one process."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints."""
    on_collapse: Literal["stop", "warn", "restart"] = "stop"
    """What happens after a collapse; restart: continue from the last healthy checkpoint with half the learning rate."""

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0:
            raise InputError(f"checkpoint_seconds {self.checkpoint_seconds}: must be 0 or more.")
        if self.device == "mps" and self.processes > 1:
            raise InputError(f"processes {self.processes}: mps works in one process. Leave out --processes.")
        if self.device == "cuda" and self.processes > torch.cuda.device_count():
            raise InputError(f"processes {self.processes}: this machine has {torch.cuda.device_count()} GPUs.")
