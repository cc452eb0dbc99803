"""Projectors and predictors: small networks on top of a backbone."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int], normalised: bool = False) -> nn.Sequential:
    """Make linear layers with batch norm and ReLU between them: float [B, sizes[0]] to [B, sizes[-1]].

    Args:
        sizes: widths from input to output, at least two.
        normalised: end in a batch norm without learned scale and shift.
    """
    layers: list[nn.Module] = []
    for inner, outer in pairwise(sizes[:-1]):
        layers += [nn.Linear(inner, outer, bias=False), nn.BatchNorm1d(outer), nn.ReLU()]
    layers.append(nn.Linear(sizes[-2], sizes[-1], bias=not normalised))
    if normalised:
        layers.append(nn.BatchNorm1d(sizes[-1], affine=False))
    return nn.Sequential(*layers)
