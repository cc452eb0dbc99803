"""What decides a fit, and what of it is refused."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fewlabels._internal.errors import InputError, refuse_unknown
from fewlabels._internal.tensors import read_weights
from fewlabels.backbones.architectures import make_backbone, refuse_size
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import load_backbone
from fewlabels.data.source import ArraySource

Strategy = Literal["auto", "supervised", "probe", "finetune", "kernel", "propagate", "selftrain"]
LEAST_SIDE = 5
"""Pixels of the longer side. Of less a strided layer sees a single one, and oneDNN's bfloat16 gradients may be nan."""


@dataclass(frozen=True)
class FitSettings:
    """What decides a fit, together with images, labels, views and seed."""

    strategy: Strategy = "auto"
    """Beside it ``supervised`` is always tried, and beside ``selftrain`` all that can be: what is taken is the best on
    labels held out, as :func:`preferred` has it."""
    budget: float = 600.0
    """Seconds."""
    backbone: str = "article"
    teacher: str = "small"
    """The backbone that teaches itself; the classifier's own learns from it."""
    start_from: str | None = None
    """Pretrained weights of the backbone, for probe and finetune."""

    def __post_init__(self) -> None:
        refuse_unknown("strategy", self.strategy, get_args(Strategy))
        if not 0 < self.budget < math.inf:
            raise InputError(f"budget {self.budget:g} s: must be above 0, and have an end.")
        if self.strategy in ("probe", "finetune") and self.start_from is None:
            raise InputError(
                f"strategy {self.strategy}: needs a pretrained backbone. Name its run with --from (start_from)."
            )


def refuse_unsuitable(source: ArraySource, settings: FitSettings) -> None:
    """Refuse backbones and weights that a fit of these images could not use.

    Raises:
        InputError: if a backbone does not take images of this size, or the weights are not its own, or have learned
            from labels.
    """
    channels, height, width = source.shape
    if max(height, width) < LEAST_SIDE:
        raise InputError(f"images of {height}x{width} pixels: the longer side needs {LEAST_SIDE}. Enlarge them first.")
    for backbone in (settings.backbone, settings.teacher):
        refuse_size("images", height, width, backbone, make_backbone(backbone, channels).image_size)
    if settings.start_from is None:
        return
    weights = Path(settings.start_from)
    if not weights.is_file():
        raise InputError(f"{weights}: no such model file. Make a backbone.safetensors with: fewlabels pretrain")
    if read_weights(weights)[1].get("kind") == "classifier":
        raise InputError(
            f"{weights}: a classifier, which has learned from labels that are to be held out here. "
            "Pass a backbone.safetensors written by: fewlabels pretrain"
        )
    load_backbone(Classifier(settings.backbone, ["any"], channels), weights)
