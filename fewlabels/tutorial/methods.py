"""Settings of the pretraining methods: the tutorial's, and the paper's where the tutorial has none."""

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
"""SimSiam as in the tutorial: no projector, and a predictor with one batch norm."""

SIMCLR = SimCLRSettings(optimizer=OptimizerSettings("lars", lr=1.2, weight_decay=1e-6))
"""SimCLR as in its paper for small images (Chen et al. 2020, appendices B.6 and B.9): learning rate 0.075 sqrt(256)."""

ARTICLE_METHODS: dict[str, Any] = {"simsiam": SIMSIAM, "simclr": SIMCLR}
"""Settings by the name of the method."""
