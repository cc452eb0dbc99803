"""The confidence from which on enough predictions are correct (selective classification)."""

import numpy as np

PRECISIONS = tuple(f"{percent / 100:.2f}" for percent in range(50, 100))
"""The precisions that may be asked for."""
NEVER = 1.01
"""A threshold above every probability: the precision is not reached."""


def selective_thresholds(
    confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    """For each precision of ``PRECISIONS``, the least confidence such that the predictions at or above it reach it.

    One correct and one wrong prediction are added, so that a few correct ones do not promise everything.

    Args:
        confidence: float [N], of held-out images.
        correct: bool [N], whether their class was predicted.
        weights: float [N]; None: 1 each.

    Returns:
        The threshold by precision; above 1 where the precision is not reached.

    >>> selective_thresholds(np.array([0.9, 0.9, 0.9, 0.4]), np.array([True, True, True, False]))["0.80"]
    0.9
    """
    order = np.argsort(-confidence, kind="stable")
    weights = np.ones(len(order)) if weights is None else weights[order]
    precision = (np.cumsum(correct[order] * weights) + 1) / (np.cumsum(weights) + 2)
    last_of_equals = np.append(np.diff(confidence[order]) != 0, True)
    thresholds = {}
    for wanted in PRECISIONS:
        enough = np.flatnonzero((precision >= float(wanted)) & last_of_equals)
        thresholds[wanted] = round(float(confidence[order][enough[-1]]), 4) if len(enough) else NEVER
    return thresholds


def transfer_thresholds(
    thresholds: dict[str, float], source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    """Thresholds of one model carried over to another, so that each accepts the same fraction of images.

    Args:
        thresholds: of the model whose held-out confidence is ``source``.
        source: float [N], its confidence.
        target: float [M], the other model's confidence in images that it was not trained on.
        weights: float [N], of the source's images; None: 1 each.

    >>> transfer_thresholds({"0.90": 0.8}, np.array([0.9, 0.8, 0.6, 0.5]), np.array([0.99, 0.97, 0.95, 0.93]))
    {'0.90': 0.97}
    """
    weights = np.ones(len(source)) if weights is None else weights
    carried = {}
    for precision, threshold in thresholds.items():
        accepted = weights[source >= threshold].sum() / weights.sum()
        count = round(accepted * len(target))
        carried[precision] = round(float(np.sort(target)[-count]), 4) if count and threshold <= 1 else NEVER
    return carried
