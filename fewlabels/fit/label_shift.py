"""The class prior of images without a label, and logits corrected to it (label shift)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from fewlabels.fit.config import PriorConfig


@dataclass(frozen=True)
class PriorEstimate:
    """The class prior of the unlabelled images."""

    prior: np.ndarray
    """float64 [K], summing to 1; 0 for a class without labels."""
    corrects: bool
    """Whether predictions are corrected to it."""


def label_frequencies(labels: np.ndarray, num_classes: int) -> PriorEstimate:
    """The prior where unlabelled images say nothing of it: the frequencies of the labels."""
    return PriorEstimate(np.bincount(labels, minlength=num_classes) / len(labels), False)


def estimate_class_prior(
    fold_probabilities: Sequence[np.ndarray],
    held_out_probabilities: np.ndarray,
    labels: np.ndarray,
    few_labels: bool,
    design_effect: float = 1.0,
    config: PriorConfig = PriorConfig(),
) -> PriorEstimate:
    """The class prior of unlabelled images from calibrated predictions of models trained with balanced classes.

    With many labels it is found by expectation maximisation, shrunk towards uniform. With few that is unstable: the
    prior is then uniform, and predictions are corrected to it, unless the mean prediction is farther from uniform than
    chance explains; then it is the mean prediction, and predictions stay as they are. A single hold-out cannot tell
    how far the predictions vary with the labels, so nothing is corrected.

    Args:
        fold_probabilities: float [R, K] of each fold's model, of the same unlabelled images.
        held_out_probabilities: float [M, K], each by a model that has not seen the label.
        labels: int64 [M], their classes in 0..K-1.
        few_labels: whether labels are few (``ScheduleConfig.few_labels_per_class``).
        design_effect: how many labelled images tell as much as one independent image.
        config: see there.
    """
    num_classes = held_out_probabilities.shape[1]
    uniform = np.full(num_classes, 1 / num_classes)
    corrects = len(fold_probabilities) > 1
    if not few_labels:
        return PriorEstimate(shrunk_em_prior(fold_probabilities, uniform, config), corrects)
    mean_prediction = np.mean(fold_probabilities, axis=0)
    if is_not_uniform(mean_prediction, held_out_probabilities, labels, design_effect, config):
        prior = mean_prediction.mean(axis=0, dtype=np.float64)
        return PriorEstimate(prior / prior.sum(), False)
    return PriorEstimate(uniform, corrects)


def shrunk_em_prior(
    fold_probabilities: Sequence[np.ndarray], trained_prior: np.ndarray, config: PriorConfig = PriorConfig()
) -> np.ndarray:
    """The prior by expectation maximisation (Saerens, Latinne & Decaestecker 2002, eq. 2.9), shrunk by its noise.

    Where labels are few the estimate of each fold is far off. The mean of their logarithms is drawn towards that of
    ``trained_prior`` by the fraction of its distance that chance explains (empirical Bayes, Efron & Morris 1973):
    chance of a fold's labels (the jackknife, Efron 1982) and of the images. For a single fold the first is unknown.

    Args:
        fold_probabilities: float [R, K] each, calibrated, of the same images.
        trained_prior: float [K], above 0: the class frequencies in the training batches.
        config: see there.

    Returns:
        float64 [K], summing to 1.

    >>> certain = np.array([[0.9, 0.1]] * 300 + [[0.1, 0.9]] * 700)
    >>> shrunk_em_prior([certain], np.array([0.5, 0.5])).round(2)
    array([0.25, 0.75])
    """
    estimates = np.log([_em_prior(of_fold, trained_prior, config) for of_fold in fold_probabilities])
    shifts = estimates - np.log(trained_prior)
    shifts -= shifts.mean(axis=1, keepdims=True)
    mean, folds = shifts.mean(axis=0), len(fold_probabilities)
    label_variance = (folds - 1) / folds * np.square(shifts - mean).sum()
    image_variance = (np.exp(-estimates.mean(axis=0)) - 1).sum() / len(fold_probabilities[0])
    distance = np.square(mean).sum()
    kept = max(0.0, 1 - (label_variance + image_variance) / distance) if distance > 0 else 0.0
    prior: np.ndarray = softmax(np.log(trained_prior) + kept * mean)
    return prior


def _em_prior(probabilities: np.ndarray, trained_prior: np.ndarray, config: PriorConfig) -> np.ndarray:
    prior = trained_prior
    for _ in range(config.iterations):
        weighted = probabilities * (prior / trained_prior)
        prior = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
    prior = np.maximum(prior, config.min_fraction / len(prior))
    bounded: np.ndarray = prior / prior.sum()
    return bounded


def is_not_uniform(
    predictions: np.ndarray,
    held_out: np.ndarray,
    labels: np.ndarray,
    design_effect: float = 1.0,
    config: PriorConfig = PriorConfig(),
) -> bool:
    """Whether the mean prediction is much farther from uniform than chance explains.

    Chance is that of the images and that of the labels by which the predictions were calibrated: the variance of the
    mean held-out prediction, each class weighted alike (stratified sampling, Cochran 1977, section 5.4). A class held
    out once shows no variance and is given that of the others; if all are, that of all labels together.

    Args:
        predictions: float [R, K], calibrated probabilities of unlabelled images.
        held_out: float [M, K], calibrated probabilities of labelled images, by models that have not seen the label.
        labels: int64 [M], their classes.
        design_effect: how many labelled images tell as much as one independent image.
        config: see there.

    >>> unsure = np.tile([[0.9, 0.1], [0.3, 0.7], [0.7, 0.3], [0.1, 0.9]], (2, 1))
    >>> predictions = [np.tile([share, 1 - share], (100, 1)) for share in (0.5, 0.6, 0.8)]
    >>> [is_not_uniform(each, unsure, np.array([0, 0, 1, 1] * 2)) for each in predictions]
    [False, False, True]
    """
    num_classes = predictions.shape[1]
    by_class = [rows for cls in np.unique(labels) if len(rows := held_out[labels == cls]) > 1]
    if not by_class and len(held_out) < 2:
        return False
    variances = [rows.var(axis=0, ddof=1).sum() / len(rows) for rows in by_class]
    variances = variances or [held_out.var(axis=0, ddof=1).sum()]
    label_variance = float(np.mean(variances)) / num_classes * design_effect
    image_variance = float(predictions.var(axis=0).sum()) / len(predictions)
    distance = np.square(predictions.mean(axis=0) - 1 / num_classes).sum()
    return bool(distance > config.critical_ratio * (label_variance + image_variance))


def prior_offsets(prior: np.ndarray, logits: np.ndarray, iterations: int = PriorConfig.iterations) -> np.ndarray:
    """What to add to each class's logits so that the mean probability is the prior: [K], the logits' dtype.

    Args:
        prior: float [K]; a class of 0 keeps its logits.
        logits: float [N, K].
        iterations: of the fixed-point iteration.
    """
    known, offsets = prior > 0, np.zeros(len(prior), logits.dtype)
    for _ in range(iterations):
        mean = softmax(logits + offsets, axis=1).mean(axis=0)
        offsets[known] += np.log(prior[known] / np.maximum(mean[known], 1e-12))
    return offsets


def adjust_logits(logits: np.ndarray, estimate: PriorEstimate, reference: np.ndarray) -> np.ndarray:
    """Logits [N, K] corrected so that the mean probability of the reference images, logits [R, K], is the prior.

    Returned unchanged where the estimate does not correct, or there is no reference image.
    """
    if not estimate.corrects or not len(reference):
        return logits
    adjusted: np.ndarray = logits + prior_offsets(estimate.prior, reference)
    return adjusted
