"""What labels are worth: a strategy's macro-F1 as the number of labels that supervised training needs for it."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np


def labels_needed(curve: Mapping[int, float], macro_f1: float) -> float:
    """Labels at which a curve of macro-F1 by labels reaches a figure; inf where it does not, its first where it begins.

    Between two points it is a line over the logarithm of the labels.

    >>> round(labels_needed({100: 0.7, 1000: 0.8, 10_000: 0.9}, 0.85))
    3162
    """
    labels = sorted(curve)
    if macro_f1 <= curve[labels[0]]:
        return labels[0]
    for fewer, more in pairwise(labels):
        if curve[fewer] < macro_f1 <= curve[more]:
            share = (macro_f1 - curve[fewer]) / (curve[more] - curve[fewer])
            return float(np.exp(np.log(fewer) + share * np.log(more / fewer)))
    return float("inf")
