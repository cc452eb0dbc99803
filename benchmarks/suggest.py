"""Labels that ``fewlabels suggest`` asks for against labels of images drawn at random, at the same number.

The images to choose from are 10,000 of the training images, drawn by seed. The first 100 come from
``first_batch`` or chance; then, between rounds, kernel ridge on oriented gradients learns from all labels so far, and
``next_batch`` or chance asks for more. Macro-F1 is that of the same classifier on the 10,000 test images, which choose
nothing. The way to choose was itself chosen on training images (docs/finding.md).
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
from fewlabels.fit.kernel import kernel_ridge

LABELS = (100, 200, 400, 700, 1000)
SEEDS = (0, 1, 2, 3, 4, 5)
POOL = 10_000
WAYS = ("random", "suggest")
KEYS = ("what", "labels", "seed")


def curve(
    what: str, pool: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows for growing numbers of labels.

    Args:
        what: ``suggest`` or ``random``.
        pool: float32 [N, F], features of the images to choose from.
        labels: int64 [N], of which those are read that are asked for.
        test: float32 [M, F].
        test_labels: int64 [M].
        seed: of all that is drawn.
    """
    classes = int(labels.max()) + 1
    asked = np.empty(0, np.int64)
    both = np.concatenate([pool, test])
    rng = np.random.default_rng(seed_from(seed, "random"))
    probabilities = np.empty(0)
    for number in LABELS:
        began = time.perf_counter()
        others, wanted = np.setdiff1d(np.arange(len(pool)), asked), number - len(asked)
        if what == "random":
            new = rng.choice(len(others), wanted, replace=False)
        elif not len(asked):
            new = first_batch(pool, wanted, seed).rows
        else:
            new = next_batch(pool[others], probabilities[others], wanted, seed).rows
        asked = np.concatenate([asked, others[new]])
        scores = kernel_ridge(both[asked], labels[asked], classes).scores(both)
        probabilities = as_probabilities(scores[: len(pool)])
        macro_f1 = f1_score(test_labels, scores[len(pool) :].argmax(axis=1), average="macro")
        seconds = round(time.perf_counter() - began, 1)
        yield {"what": what, "labels": number, "seed": seed, "macro_f1": round(macro_f1, 4), "seconds": seconds}


def as_probabilities(scores: np.ndarray) -> np.ndarray:
    """Ridge regression on one-hot labels foretells probabilities, less 1/K; some below 0.

    >>> as_probabilities(np.array([[0.5, -0.5]], np.float32)).round(3)
    array([[0.999, 0.001]], dtype=float32)
    """
    likely = np.maximum(scores + 1 / scores.shape[1], 1e-3)
    probabilities: np.ndarray = likely / likely.sum(axis=1, keepdims=True)
    return probabilities


def main() -> None:
    """Measure the curves that have a row missing."""
    file = ResultFile("suggest", "python -m benchmarks.suggest", keys=KEYS)
    todo = [
        (seed, what)
        for seed in SEEDS
        for what in WAYS
        if not all(file.has(what=what, labels=number, seed=seed) for number in LABELS)
    ]
    if not todo:
        return
    splits = fashion_mnist()
    test = gradient_features(splits.test)
    for seed, what in todo:
        drawn = np.random.default_rng(seed_from(seed, "pool")).choice(len(splits.train), POOL, replace=False)
        source = splits.train.subset(np.sort(drawn))
        for row in curve(what, gradient_features(source), source.labels, test, splits.test.labels, seed):
            file.add(row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
