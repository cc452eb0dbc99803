"""Projectors and predictors: small networks behind a backbone."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


def mlp(sizes: Sequence[int], last: Literal["linear", "norm", "plain norm"] = "linear") -> nn.Sequential:
    """Linear layers with batch norm and ReLU between them: float [B, sizes[0]] to [B, sizes[-1]].

    Args:
        sizes: widths from input to output, 2 or more.
        last: how the output ends: as the linear layer gives it, batch-normalised, or batch-normalised without
            learned scale and shift.
    """
    layers: list[nn.Module] = []
    for inner, outer in pairwise(sizes[:-1]):
        layers += [nn.Linear(inner, outer, bias=False), nn.BatchNorm1d(outer), nn.ReLU()]
    layers.append(nn.Linear(sizes[-2], sizes[-1], bias=last == "linear"))
    if last != "linear":
        layers.append(nn.BatchNorm1d(sizes[-1], affine=last == "norm"))
    return nn.Sequential(*layers)
