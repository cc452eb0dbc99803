"""Pretraining methods. A new one is one file and one line here."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fewlabels.methods.base import Method, MethodOutput
from fewlabels.methods.simclr import SimCLR, SimCLRSettings
from fewlabels.methods.simsiam import SimSiam, SimSiamSettings


class MethodEntry(NamedTuple):
    """How to build a method, and its default settings."""

    build: Callable[..., Method]
    settings: Any


METHODS: dict[str, MethodEntry] = {
    "simsiam": MethodEntry(SimSiam, SimSiamSettings()),
    "simclr": MethodEntry(SimCLR, SimCLRSettings()),
}

__all__ = ["METHODS", "Method", "MethodEntry", "MethodOutput"]
