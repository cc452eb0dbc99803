"""Macro-F1 with labels of images that ``fewlabels suggest`` selects, and with equally many random labels.

The pool is 10,000 random training images of Fashion-MNIST. ``first_batch`` or chance selects the first 100 labels. In
each round kernel ridge on oriented gradients is fitted to all labels so far, and ``next_batch`` or chance selects more.
The score is that of kernel ridge on the 10,000 test images. The selection method was chosen on training images
(docs/finding.md).
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from benchmarks.harness import ResultFile
from fewlabels._internal.seeding import seed_from
from fewlabels.active.suggest import first_batch, next_batch
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.features.hog import gradient_features
from fewlabels.features.kernel_ridge import fit_kernel_ridge

LABELS = (100, 200, 400, 700, 1000)
SEEDS = (0, 1, 2, 3, 4, 5)
POOL_IMAGES = 10_000
"""Images to select from. Not tuned."""
SELECTIONS = ("random", "suggest")
"""Ways to select labels: at random, or as ``fewlabels suggest``."""
KEYS = ("what", "labels", "seed")


def curve(
    what: str, pool: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of labels.

    Args:
        what: ``suggest`` or ``random``.
        pool: float32 [N, F], features of the images to select from.
        labels: int64 [N]; only labels of selected images are read.
        test: float32 [M, F].
        test_labels: int64 [M].
        seed: of all random draws.
    """
    classes = int(labels.max()) + 1
    selected = np.empty(0, np.int64)
    both = np.concatenate([pool, test])
    rng = np.random.default_rng(seed_from(seed, "random"))
    probabilities = np.empty(0)
    for number in LABELS:
        began = time.perf_counter()
        others, batch = np.setdiff1d(np.arange(len(pool)), selected), number - len(selected)
        if what == "random":
            new = rng.choice(len(others), batch, replace=False)
        elif not len(selected):
            new = first_batch(pool, batch, seed).rows
        else:
            new = next_batch(pool[others], probabilities[others], batch, seed).rows
        selected = np.concatenate([selected, others[new]])
        scores = fit_kernel_ridge(both[selected], labels[selected], classes).scores(both)
        probabilities = as_probabilities(scores[: len(pool)])
        macro_f1 = f1_score(test_labels, scores[len(pool) :].argmax(axis=1), average="macro")
        seconds = round(time.perf_counter() - began, 1)
        yield {"what": what, "labels": number, "seed": seed, "macro_f1": round(macro_f1, 4), "seconds": seconds}


def as_probabilities(scores: np.ndarray) -> np.ndarray:
    """Convert scores of ridge regression on one-hot labels minus 1/K to probabilities [N, K].

    Scores plus 1/K estimate probabilities. Values below 0.001 become 0.001, and rows are divided by their sum.

    >>> as_probabilities(np.array([[0.5, -0.5]], np.float32)).round(3)
    array([[0.999, 0.001]], dtype=float32)
    """
    positive = np.maximum(scores + 1 / scores.shape[1], 1e-3)
    probabilities: np.ndarray = positive / positive.sum(axis=1, keepdims=True)
    return probabilities


def main() -> None:
    """Measure the curves that are not complete."""
    file = ResultFile("suggest", "python -m benchmarks.suggest", keys=KEYS)
    todo = [
        (seed, what)
        for seed in SEEDS
        for what in SELECTIONS
        if not all(file.has(what=what, labels=number, seed=seed) for number in LABELS)
    ]
    if not todo:
        return
    splits = fashion_mnist()
    test = gradient_features(splits.test)
    for seed, what in todo:
        drawn = np.random.default_rng(seed_from(seed, "pool")).choice(len(splits.train), POOL_IMAGES, replace=False)
        source = splits.train.subset(np.sort(drawn))
        for row in curve(what, gradient_features(source), source.labels, test, splits.test.labels, seed):
            file.add(row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
