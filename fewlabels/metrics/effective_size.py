"""How many independent images a sample tells as much as, and weights that change its class frequencies."""

import numpy as np


def design_effect(correct: np.ndarray, groups: np.ndarray | None) -> float:
    """How many grouped images tell as much as one independent image (Kish 1965, section 8.2); at least 1.

    Args:
        correct: [N], whether each was predicted correctly.
        groups: int64 [N]; None: each image is its own group.

    >>> correct = np.array([1, 1, 1, 0, 0, 0])  # each patient is either right or wrong
    >>> design_effect(correct, np.array([0, 0, 0, 1, 1, 1])), design_effect(correct, None)
    (6.0, 1.0)
    """
    if groups is None:
        return 1.0
    residuals = correct - correct.mean()
    by_group, total = sums_by_group(residuals, groups), float(np.square(residuals).sum())
    number = len(by_group)
    if number < 2 or total == 0:  # nothing shows how alike images of a group are
        return len(correct) / number
    return max(1.0, float(np.square(by_group).sum()) / total * number / (number - 1))


def sums_by_group(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The sum of values [N] in each group, in the groups' order; without groups the values themselves.

    >>> sums_by_group(np.array([1.0, 2.0, 4.0]), np.array([7, 3, 7])).tolist()
    [2.0, 5.0]
    """
    return values if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], values)


def prior_weights(labels: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weights float [N] of held-out labels that give their classes the prior's frequencies.

    Their sum is the effective sample size (Kish 1965, section 11.7).
    """
    counts = np.bincount(labels, minlength=len(prior))
    weights = (prior / np.maximum(counts, 1))[labels]
    scaled: np.ndarray = weights * weights.sum() / (weights @ weights)
    return scaled
