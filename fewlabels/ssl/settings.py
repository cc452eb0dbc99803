"""What is decided before pretraining: what decides its result, and what it is computed with."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fewlabels._internal.errors import InputError, refuse_unknown
from fewlabels.ssl.methods import METHODS
from fewlabels.training.precision import Precision


@dataclass(frozen=True)
class PretrainSettings:
    """What decides the result, together with images, views and seed."""

    method: str
    epochs: int
    method_settings: Any = None
    """The method's dataclass of settings; None: its defaults."""
    backbone: str = "article"
    start_from: str | None = None
    """A safetensors file that the backbone's weights are taken from: timm's own, or those of an earlier run."""
    batch_size: int | None = None
    """Images an optimizer step, over all processes; None: the method's own."""
    lr: float | None = None
    """Peak learning rate; None: the method's own."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 0
    accumulate: int = 1
    """Parts that a batch is computed in; batch norm and the negatives of SimCLR see one part."""
    precision: Precision = "32-true"
    ema: float = 0.0
    """Decay of the running average of the backbone that is kept as the result; 0: the last weights are."""
    drop_last: bool = True
    """Leave out the incomplete batch at the end of an epoch."""
    keep_epochs: tuple[int, ...] = ()
    """Epochs after which the weights are also kept for good, in ``epoch-N/``."""

    def __post_init__(self) -> None:
        refuse_unknown("method", self.method, METHODS)
        for name, fits, wanted in (
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch_size", self.batch_size is None or self.batch_size >= 2, "2 or more"),
            ("lr", self.lr is None or 0 < self.lr < math.inf, "above 0"),
            ("warmup_epochs", 0 <= self.warmup_epochs <= self.epochs, "0 or more, and at most the epochs"),
            ("accumulate", self.accumulate >= 1, "1 or more"),
            ("ema", 0 <= self.ema < 1, "0 or more, and less than 1"),
        ):
            if not fits:
                raise InputError(f"{name} {getattr(self, name)}: must be {wanted}.")

    @property
    def of_method(self) -> Any:
        """The method's settings, those given or its defaults."""
        return self.method_settings or METHODS[self.method].settings


@dataclass(frozen=True)
class Engine:
    """What a run is computed with."""

    device: str = "cpu"
    processes: int = 1
    tune: bool = True
    """Choose threads, memory format, prefetching and compilation by a trial; where there is one process."""
    checkpoint_seconds: float = 60.0
    on_collapse: Literal["stop", "warn", "restart"] = "stop"
    """What a verdict of the guard does; restart: back to the last checkpoint with half the learning rate."""

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0:
            raise InputError(f"checkpoint_seconds {self.checkpoint_seconds}: must be 0 or more.")
        if self.device == "mps" and self.processes > 1:
            raise InputError(f"processes {self.processes}: mps works in one process. Leave out --processes.")
        if self.device == "cuda" and self.processes > torch.cuda.device_count():
            raise InputError(f"processes {self.processes}: this machine has {torch.cuda.device_count()} GPUs.")
