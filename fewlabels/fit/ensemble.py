"""Out-of-fold predictions, and several learners combined: a log-linear opinion pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from fewlabels.fit.calibration import class_frequency_offsets, mask_absent_classes
from fewlabels.fit.config import CalibrationConfig
from fewlabels.fit.data import LabeledPool, Split
from fewlabels.fit.learners import Learner


@dataclass(frozen=True)
class OpinionPool:
    """Weights of a log-linear opinion pool: ``softmax(sum_e w_e * logits_e + t * offsets)``."""

    weights: Mapping[str, float]
    """w_e >= 0 by learner."""
    frequency_weight: float
    """t, from 0 to 1: of the class-frequency offsets (logit adjustment)."""

    def combine(self, logits: Mapping[str, np.ndarray], offsets: np.ndarray) -> np.ndarray:
        """Combined logits float32 [N, K] of those of each learner in ``used``, float [N, K]."""
        total = sum((self.weights[name] * logits[name] for name in self.used), self.frequency_weight * offsets)
        combined: np.ndarray = total.astype(np.float32)
        return combined

    @property
    def used(self) -> list[str]:
        """The learners with a non-zero weight."""
        return [name for name, weight in self.weights.items() if weight > 0]


@dataclass(frozen=True)
class OutOfFold:
    """Logits of models that have not seen the labels of the images that they hold out."""

    pool: LabeledPool
    splits: Sequence[Split]
    held_out: np.ndarray
    """float32 [M, K]: of each held-out label, split by split."""
    rows: np.ndarray
    """int64 [R]: further rows of the source that the model of every split predicts."""
    others: Sequence[np.ndarray]
    """float32 [R, K] by split: logits of these rows."""
    weights: OpinionPool = field(default_factory=lambda: OpinionPool({}, 0.0))
    """Fitted to all held-out labels; how the logits were combined, for the final models."""

    @property
    def positions(self) -> np.ndarray:
        """int64 [M]: positions of the held-out labels in ``pool.labelled``."""
        return np.concatenate([split.held_out for split in self.splits])

    @property
    def labels(self) -> np.ndarray:
        """int64 [M]: the held-out labels."""
        labels: np.ndarray = self.pool.labels[self.positions]
        return labels

    @property
    def groups(self) -> np.ndarray | None:
        """int64 [M]: groups of the held-out labels; None: each image is its own group."""
        return None if self.pool.groups is None else self.pool.groups[self.positions]

    @property
    def correct(self) -> np.ndarray:
        """Bool [M]: whether each held-out label was predicted."""
        correct: np.ndarray = self.held_out.argmax(axis=1) == self.labels
        return correct

    def of_rows(self, rows: np.ndarray) -> list[np.ndarray]:
        """Logits float32 [Q, K] of some of ``rows``, by split."""
        places = np.searchsorted(self.rows, rows)
        return [logits[places] for logits in self.others]


def cross_val_predict_logits(
    learner: Learner, pool: LabeledPool, splits: Sequence[Split], rows: np.ndarray, seconds: float
) -> OutOfFold:
    """Fit the learner on each split; predict what the split holds out, and further rows.

    Args:
        learner: see there.
        pool: images and labels.
        splits: see there.
        rows: int64 [R], ascending.
        seconds: for the training on each split.
    """
    held_out, others = [], []
    for split in splits:
        wanted = np.concatenate([pool.labelled[split.held_out], rows])
        logits = mask_absent_classes(learner.predict_logits(pool, split, seconds, wanted), pool.labels)
        held_out.append(logits[: len(split.held_out)])
        others.append(logits[len(split.held_out) :])
    return OutOfFold(pool, splits, np.concatenate(held_out), rows, others)


def combine(members: Mapping[str, OutOfFold], config: CalibrationConfig = CalibrationConfig()) -> OutOfFold:
    """Members combined by weights that are fitted to held-out labels; with one member, its calibration.

    The predictions of a split are weighted by what the other splits hold out, so that its own labels also evaluate the
    weights. A single split is large enough for both.
    """
    first = next(iter(members.values()))
    offsets = class_frequency_offsets(first.pool.labels, first.pool.num_classes)
    split_of = np.repeat(np.arange(len(first.splits)), [len(split.held_out) for split in first.splits])

    def fitted_to(rows: np.ndarray) -> OpinionPool:
        known = first.pool.classes
        logits = {name: member.held_out[rows][:, known] for name, member in members.items()}
        return fit_opinion_pool(logits, np.searchsorted(known, first.labels[rows]), offsets[known], config)

    everything = fitted_to(np.ones(len(split_of), bool))
    numbers = range(len(first.splits))
    by_split = [everything if len(numbers) == 1 else fitted_to(split_of != number) for number in numbers]
    held_out = [
        by_split[number].combine({name: m.held_out[split_of == number] for name, m in members.items()}, offsets)
        for number in numbers
    ]
    rows = first.rows
    for member in members.values():
        rows = np.intersect1d(rows, member.rows)
    others = [
        by_split[number].combine({name: m.of_rows(rows)[number] for name, m in members.items()}, offsets)
        for number in numbers
    ]
    return OutOfFold(first.pool, first.splits, np.concatenate(held_out), rows, others, everything)


def fit_opinion_pool(
    logits: Mapping[str, np.ndarray],
    labels: np.ndarray,
    offsets: np.ndarray,
    config: CalibrationConfig = CalibrationConfig(),
) -> OpinionPool:
    """The weights with the highest likelihood of the labels, each class weighted alike.

    A logarithmic opinion pool (Genest & Zidek 1986, section 3) with the logits adjusted for class frequencies (Menon et
    al. 2021, eq. 9); with one learner it is temperature scaling, w = 1 / T (Guo et al. 2017, section 4.2). One image
    with a uniform label is added, so that a few labels that are all predicted do not make it certain.

    Args:
        logits: float [M, K] by learner, of images that the learner was not trained on.
        labels: int64 [M].
        offsets: float [K], as of :func:`~fewlabels.fit.calibration.class_frequency_offsets`.
        config: see there.

    >>> logits = np.array([[4.0, 0.0], [0.0, 4.0]] * 200)  # confident, and right three times in four
    >>> labels = np.array([0, 1] * 150 + [1, 0] * 50)
    >>> weight = fit_opinion_pool({"one": logits}, labels, np.zeros(2)).weights["one"]
    >>> round(float(1 / (1 + np.exp(-4 * weight))), 2)
    0.75
    """
    first = next(iter(logits.values()))
    num_images, num_classes = first.shape
    scales = np.array([*(max(float(each.std()), 1e-12) for each in logits.values()), 1.0])
    scaled = [each / scale for each, scale in zip(logits.values(), scales, strict=False)]
    stacked = np.stack([*scaled, np.broadcast_to(offsets, first.shape)]).astype(np.float64)
    rows, counts = np.arange(num_images), np.bincount(labels, minlength=num_classes)
    sample_weights = num_images / np.count_nonzero(counts) / counts[labels]

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        log_probabilities = log_softmax(np.tensordot(weights, stacked, 1), axis=1)
        residuals = np.exp(log_probabilities)
        residuals[rows, labels] -= 1
        uniform = np.exp(log_probabilities) - 1 / num_classes
        gradient = np.tensordot(stacked, residuals * sample_weights[:, None], 2)
        gradient += np.tensordot(stacked, uniform, 2) / num_images
        return -float(sample_weights @ log_probabilities[rows, labels] + log_probabilities.mean()), gradient

    equal = np.full(len(logits), 1 / len(logits))
    bounds = [(0, config.max_weight)] * len(logits) + [(0, 1)]
    found = minimize(loss_and_gradient, np.append(equal, 0), jac=True, method="L-BFGS-B", bounds=bounds).x
    if found[:-1].sum() <= config.min_total_weight:  # where all are more wrong than right, none counts for much
        found[:-1] = equal * config.min_total_weight
    weights = (found / scales)[:-1].tolist()
    return OpinionPool(dict(zip(logits, weights, strict=True)), float(found[-1]))
