"""Pretraining methods. A new one is one file and one line here."""

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
    """How to build a method, and its default settings."""

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

__all__ = ["METHODS", "Method", "MethodEntry", "MethodOutput"]
