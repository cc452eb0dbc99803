"""What a classifier will reach on images it has not seen, from its out-of-fold predictions."""

from typing import NamedTuple

import numpy as np

from fewlabels._internal.seeding import seed_from

DRAWS, FEWEST_DRAWS = 1000, 100
MOST_RATES = 100_000_000
"""Rates of confusion that are drawn in all: of more than 300 classes in fewer draws, but not below the fewest."""
BEFOREHAND = 2.0
"""Images that each class is given, named right as often as those of all classes are: three that are all right do not
prove everything."""
LEARNING = 0.3
"""The error falls as this power of the number of labels, as kernel ridge showed: powers of 0.07 to 0.35 are common
(Hestness et al. 2017)."""
ANOTHER = 0.04
"""The standard deviation between two trainings that differ by their seeds alone, as a share of score times error, as
trials on hidden training labels showed. What is foretold is another training than the folds'."""
BELIEVED = 0.5
"""How far teachers are believed where a student differs: it knows other things than they."""


class Estimate(NamedTuple):
    """Median of the macro-F1, and its interval of 95%."""

    macro_f1: float
    low: float
    high: float


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Of confusion matrices [..., K, K], true classes in rows; classes that do not occur count 0, as in scikit-learn.

    >>> round(float(macro_f1(np.array([[1, 0], [1, 1]]))), 4)
    0.6667
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    named, true = confusion.sum(axis=-2), confusion.sum(axis=-1)
    scores: np.ndarray = (2 * right / np.maximum(named + true, 1e-12)).mean(axis=-1)
    return scores


def confusion_of(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts [K, K], true classes in rows."""
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def expected_macro_f1(
    confusion: np.ndarray,
    shares: np.ndarray,
    seed: int = 0,
    tested_on: int | None = None,
    learned_from: float = 1.0,
    lost: float = 0.0,
    effect: float = 1.0,
    kept: np.ndarray | None = None,
) -> Estimate:
    """Posterior of the macro-F1, each class's row of the confusion matrix being Dirichlet.

    Args:
        confusion: counts [K, K], true classes in rows, of predictions by networks that had not seen the image.
        shares: float [K], of the classes among the images that are foretold; summing to 1.
        seed: of the draws.
        tested_on: images of the test that is foretold, whose chance is then in the interval too.
        learned_from: the share of all labels that those networks learned from; what the others are worth is foretold.
        lost: by how much the network that is foretold is worse than they.
        effect: how many of the images tell as much as one, as :func:`design_effect` has it.
        kept: bool [K], classes of which no image could be held out; None: all that have none in the confusion.
    """
    rng = np.random.default_rng(seed_from(seed, "estimate"))
    classes, counts = len(confusion), confusion / effect
    right, unseen = np.trace(counts), confusion.sum(axis=1) == 0
    unseen = unseen if kept is None else unseen & kept
    scores = np.empty(int(np.clip(MOST_RATES / classes**2, FEWEST_DRAWS, DRAWS)))
    for draw in range(len(scores)):
        usual = rng.beta(right + 0.5, counts.sum() - right + 0.5)
        gammas = rng.standard_gamma(counts + BEFOREHAND * _alike(usual, classes))
        rates = gammas / gammas.sum(axis=1, keepdims=True)
        if unseen.any():  # these have something in common: they are rare, or of few groups
            rates[unseen] = _alike(usual * rng.random(), classes)[unseen]
        if tested_on is None:
            scores[draw] = macro_f1(rates * shares[:, None])
        else:
            scores[draw] = macro_f1(rng.multinomial(rng.multinomial(tested_on, shares), rates))
    scores += rng.normal(0, ANOTHER, len(scores)) * scores * (1 - scores)
    scores = np.maximum(1 - (1 - scores) * learned_from**LEARNING - lost, 0)
    low, middle, high = np.quantile(scores, [0.025, 0.5, 0.975])
    return Estimate(float(middle), float(low), float(high))


def _alike(right: float, classes: int) -> np.ndarray:
    """Rates of a confusion [K, K] whose classes are all named right so often, and mistaken for each other alike."""
    rates = np.full((classes, classes), (1 - right) / max(1, classes - 1))
    np.fill_diagonal(rates, right)
    return rates


def design_effect(right: np.ndarray, groups: np.ndarray | None) -> float:
    """How many images in groups tell as much as one on its own (Kish 1965, section 8.2); at least 1.

    Args:
        right: [N], whether each was named right.
        groups: int64 [N]; None: each image is its own.

    >>> right = np.array([1, 1, 1, 0, 0, 0])  # each patient is either right or wrong
    >>> design_effect(right, np.array([0, 0, 0, 1, 1, 1])), design_effect(right, None)
    (6.0, 1.0)
    """
    if groups is None:
        return 1.0
    off = right - right.mean()
    of_groups, spread = sums_by_group(off, groups), float(np.square(off).sum())
    number = len(of_groups)
    if number < 2 or spread == 0:  # nothing tells how alike they are
        return len(right) / number
    return max(1.0, float(np.square(of_groups).sum()) / spread * number / (number - 1))


def sums_by_group(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The sum of values [N] in each group, in the groups' order; of no groups the values themselves.

    >>> sums_by_group(np.array([1.0, 2.0, 4.0]), np.array([7, 3, 7])).tolist()
    [2.0, 5.0]
    """
    return values if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], values)


def lost_by(student: np.ndarray, teachers: np.ndarray) -> np.ndarray:
    """What naming other classes than the teachers costs in accuracy, image by image: float [N].

    It is what they hold lost, times ``BELIEVED``.

    Args:
        student: int64 [N], what it names.
        teachers: float [N, K], their calibrated probabilities.

    >>> lost_by(np.array([0, 1]), np.array([[0.6, 0.4], [0.9, 0.1]])).round(2).tolist()  # half of 0 and of 0.8
    [0.0, 0.4]
    """
    lost: np.ndarray = BELIEVED * (teachers.max(axis=1) - teachers[np.arange(len(student)), student])
    return lost


def mean_of_classes(values: np.ndarray, classes: np.ndarray) -> float:
    """The mean over classes of the mean of each.

    >>> mean_of_classes(np.array([0.0, 0.5, 1.0]), np.array([0, 0, 2]))
    0.625
    """
    counts = np.bincount(classes)
    means: np.ndarray = np.bincount(classes, values)[counts > 0] / counts[counts > 0]
    return float(means.mean())
