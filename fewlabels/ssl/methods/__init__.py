"""Pretraining methods. To add one, write a module and add a line to ``METHODS``."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fewlabels.ssl.methods.barlow_twins import BarlowTwins, BarlowTwinsSettings
from fewlabels.ssl.methods.base import Method, MethodOutput
from fewlabels.ssl.methods.byol import BYOL, BYOLSettings
from fewlabels.ssl.methods.moco import MoCoV2, MoCoV2Settings, MoCoV3, MoCoV3Settings
from fewlabels.ssl.methods.simclr import SimCLR, SimCLRSettings
from fewlabels.ssl.methods.simsiam import SimSiam, SimSiamSettings
from fewlabels.ssl.methods.vicreg import VICReg, VICRegSettings


class MethodEntry(NamedTuple):
    """A method: its constructor and its default settings."""

    build: Callable[..., Method]
    settings: Any


METHODS: dict[str, MethodEntry] = {
    "simclr": MethodEntry(SimCLR, SimCLRSettings()),
    "simsiam": MethodEntry(SimSiam, SimSiamSettings()),
    "byol": MethodEntry(BYOL, BYOLSettings()),
    "mocov2": MethodEntry(MoCoV2, MoCoV2Settings()),
    "mocov3": MethodEntry(MoCoV3, MoCoV3Settings()),
    "vicreg": MethodEntry(VICReg, VICRegSettings()),
    "barlow-twins": MethodEntry(BarlowTwins, BarlowTwinsSettings()),
}
"""Pretraining methods by the name that ``--method`` takes."""

__all__ = ["METHODS", "Method", "MethodEntry", "MethodOutput"]
