"""Presets of `fewlabels pretrain`: the settings of published papers, by name."""

from typing import NamedTuple

from fewlabels.ssl.methods.moco import MoCoV3Settings
from fewlabels.ssl.methods.simsiam import SimSiamSettings
from fewlabels.ssl.settings import PretrainSettings
from fewlabels.training.optimizers import OptimizerSettings


class Preset(NamedTuple):
    """Settings, and the name of a view recipe; None: the default recipe for the number of channels."""

    settings: PretrainSettings
    views: str | None = None


DEFAULT_PRESET = Preset(PretrainSettings("mocov2", 20))
"""The best of the methods that cannot collapse completely; see benchmarks/results/methods.json."""


PRESETS: dict[str, Preset] = {
    # Chen & He 2021, sections 3 and 4: learning rate 0.05 x 512 / 256, 100 epochs.
    "simsiam-resnet50": Preset(
        PretrainSettings(
            "simsiam",
            100,
            SimSiamSettings(
                projector=(2048, 2048, 2048),
                predictor_hidden=512,
                batch_size=512,
                optimizer=OptimizerSettings("sgd", lr=0.1, weight_decay=1e-4),
            ),
            backbone="timm/resnet50",
        ),
        "imagenet",
    ),
    # Chen, Xie & He 2021, section 5 and appendix A: ViT-S, learning rate 1.5e-4 x 4096 / 256, 300 epochs.
    "mocov3-vit": Preset(
        PretrainSettings(
            "mocov3",
            300,
            MoCoV3Settings(
                hidden=4096,
                out=256,
                projector_layers=3,
                batch_size=4096,
                optimizer=OptimizerSettings("adamw", lr=2.4e-3, weight_decay=0.1),
            ),
            backbone="timm/vit_small_patch16_224",
            warmup_epochs=40,
        ),
        "imagenet",
    ),
}
