"""Number of labels that supervised training needs to reach a given macro-F1."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np


def labels_needed(curve: Mapping[int, float], macro_f1: float) -> float:
    """Return the number of labels at which a learning curve reaches a macro-F1.

    Between two points the curve is linear in the logarithm of the labels.

    Args:
        curve: macro-F1 by number of labels.
        macro_f1: to reach. Below the curve the result is its smallest number of labels, above it infinity.

    >>> round(labels_needed({100: 0.7, 1000: 0.8, 10_000: 0.9}, 0.85))
    3162
    """
    labels = sorted(curve)
    if macro_f1 <= curve[labels[0]]:
        return labels[0]
    for fewer, more in pairwise(labels):
        if curve[fewer] < macro_f1 <= curve[more]:
            fraction = (macro_f1 - curve[fewer]) / (curve[more] - curve[fewer])
            return float(np.exp(np.log(fewer) + fraction * np.log(more / fewer)))
    return float("inf")
