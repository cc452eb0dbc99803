"""The pretraining methods at the tutorial's settings, and where it gives none, at their paper's."""

from typing import Any

from fewlabels.ssl.methods.simclr import SimCLRSettings
from fewlabels.ssl.methods.simsiam import SimSiamSettings
from fewlabels.training.optimizers import OptimizerSettings

SIMSIAM = SimSiamSettings(
    projector=(),
    predictor_hidden=64,
    predictor_constant_lr=False,
    optimizer=OptimizerSettings("sgd", lr=1e-4, weight_decay=1e-5),
)
"""The tutorial's: no projector, and a predictor with one batch norm."""

SIMCLR = SimCLRSettings(optimizer=OptimizerSettings("lars", lr=1.2, weight_decay=1e-6))
"""Its paper's for small images (appendix B.6, B.9): square-root rate 0.075 sqrt(256)."""

ARTICLE_METHODS: dict[str, Any] = {"simsiam": SIMSIAM, "simclr": SIMCLR}
