"""The macro-F1 that a classifier is expected to reach on new images, with an interval, from held-out predictions."""

from typing import NamedTuple

import numpy as np

from fewlabels._internal.seeding import seed_from
from fewlabels.fit.config import PerformanceConfig


class Estimate(NamedTuple):
    """Median of the expected macro-F1, and its 95% interval."""

    macro_f1: float
    low: float
    high: float


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Macro-F1 of confusion matrices [..., K, K], true classes in rows; an absent class counts 0, as in scikit-learn.

    >>> round(float(macro_f1(np.array([[1, 0], [1, 1]]))), 4)
    0.6667
    """
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    predicted, true = confusion.sum(axis=-2), confusion.sum(axis=-1)
    scores: np.ndarray = (2 * correct / np.maximum(predicted + true, 1e-12)).mean(axis=-1)
    return scores


def expected_macro_f1(
    confusion: np.ndarray,
    prior: np.ndarray,
    seed: int = 0,
    test_images: int | None = None,
    train_fraction: float = 1.0,
    loss: float = 0.0,
    design_effect: float = 1.0,
    not_held_out: np.ndarray | None = None,
    config: PerformanceConfig = PerformanceConfig(),
) -> Estimate:
    """Posterior of the macro-F1, each class's row of the confusion matrix being Dirichlet.

    Args:
        confusion: counts [K, K], true classes in rows, of predictions by models that have not seen the label.
        prior: float [K], class prior of the new images, summing to 1.
        seed: of the draws.
        test_images: number of images of a test whose score is estimated; its sampling error is then included.
        train_fraction: fraction of the labels that those models were trained on; the final model has them all.
        loss: by how much the final model is worse than they are, in macro-F1.
        design_effect: how many held-out images tell as much as one independent image.
        not_held_out: bool [K], classes of which no image could be held out; None: those without a count.
        config: see there.
    """
    rng = np.random.default_rng(seed_from(seed, "estimate"))
    num_classes, counts = len(confusion), confusion / design_effect
    correct, unseen = np.trace(counts), confusion.sum(axis=1) == 0
    unseen = unseen if not_held_out is None else unseen & not_held_out
    scores = np.empty(int(np.clip(config.max_rates / num_classes**2, config.min_draws, config.draws)))
    for draw in range(len(scores)):
        accuracy = rng.beta(correct + 0.5, counts.sum() - correct + 0.5)
        gammas = rng.standard_gamma(counts + config.prior_images * _equal_rates(accuracy, num_classes))
        rates = gammas / gammas.sum(axis=1, keepdims=True)
        if unseen.any():  # such classes are rare, or of few groups: anything up to the mean accuracy is possible
            rates[unseen] = _equal_rates(accuracy * rng.random(), num_classes)[unseen]
        if test_images is None:
            scores[draw] = macro_f1(rates * prior[:, None])
        else:
            scores[draw] = macro_f1(rng.multinomial(rng.multinomial(test_images, prior), rates))
    scores += rng.normal(0, config.seed_deviation, len(scores)) * scores * (1 - scores)
    scores = np.maximum(1 - (1 - scores) * train_fraction**config.learning_exponent - loss, 0)
    low, middle, high = np.quantile(scores, [0.025, 0.5, 0.975])
    return Estimate(float(middle), float(low), float(high))


def _equal_rates(accuracy: float, num_classes: int) -> np.ndarray:
    """Confusion rates [K, K] of one accuracy for every class, errors spread evenly."""
    rates = np.full((num_classes, num_classes), (1 - accuracy) / max(1, num_classes - 1))
    np.fill_diagonal(rates, accuracy)
    return rates


def expected_accuracy(correct: np.ndarray, weights: np.ndarray) -> float:
    """Weighted accuracy, with one correct and one wrong image added (Laplace's rule of succession)."""
    return float((correct @ weights + 1) / (weights.sum() + 2))


def disagreement_losses(
    student: np.ndarray, targets: np.ndarray, config: PerformanceConfig = PerformanceConfig()
) -> np.ndarray:
    """The accuracy that a student is expected to lose on each image by predicting another class: float [N].

    Args:
        student: int64 [N], the classes that it predicts.
        targets: float [N, K], calibrated probabilities that it was trained on, or would have been.
        config: see there.

    >>> disagreement_losses(np.array([0, 1]), np.array([[0.6, 0.4], [0.9, 0.1]])).round(2).tolist()
    [0.0, 0.4]
    """
    lost = targets.max(axis=1) - targets[np.arange(len(student)), student]
    losses: np.ndarray = config.disagreement_loss * lost
    return losses


def mean_over_classes(values: np.ndarray, classes: np.ndarray) -> float:
    """The mean over classes of each class's mean value.

    >>> mean_over_classes(np.array([0.0, 0.5, 1.0]), np.array([0, 0, 2]))
    0.625
    """
    counts = np.bincount(classes)
    means: np.ndarray = np.bincount(classes, values)[counts > 0] / counts[counts > 0]
    return float(means.mean())
