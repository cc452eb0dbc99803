"""What each component of a fit gives: macro-F1 on development images with it and without it.

Three data sets, three draws of labels each. Development images are held out from training: Fashion-MNIST's last 10,000
training images, 1,000 of ELPV, 797 digits. They stand among the unlabelled images, and only this file reads their
labels. Components that act before a network is trained are compared by the ensemble of kernel ridge and label
spreading, whose predictions a student would be trained on. ``mirror averaging``, ``student`` and ``teacher`` are
compared by finished fits. For the corrections inside the interval of the expected score, ``error_with`` and
``error_without`` are distances from the truth in points, and ``covers_...`` says whether the interval holds it.

    python -m benchmarks.ablations

A component that gave less than 0.3 points everywhere is gone from the code; its rows are of the commit before.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, f1_score

from benchmarks.default_fit import data_file
from benchmarks.harness import ResultFile
from fewlabels.data.dataset import open_dataset
from fewlabels.data.source import UNLABELLED, ArraySource, balanced_indices
from fewlabels.features.extractor import FeatureConfig, Features
from fewlabels.features.kernel_ridge import fit_kernel_ridge
from fewlabels.features.label_spreading import spread_labels
from fewlabels.fit.calibration import class_frequency_offsets
from fewlabels.fit.data import LabeledPool, Split, all_labels, make_splits
from fewlabels.fit.ensemble import OutOfFold, combine
from fewlabels.fit.label_shift import adjust_logits, estimate_class_prior, prior_offsets, shrunk_em_prior
from fewlabels.fit.performance import expected_macro_f1

KEYS = ("component", "data", "labels", "draw")
DRAWS = (0, 1, 2)
FEW = (("fashion-mnist", 100), ("elpv", 100), ("digits", 50))
MORE = (("fashion-mnist", 1000), ("elpv", 400), ("digits", 200))
SAMPLE = 2000
"""Unlabelled images that estimate the class prior."""
LONG_TAIL = 10
"""Times as many labels of the first class as of the last, for the component that corrects class frequencies."""


@cache
def images(name: str) -> tuple[ArraySource, np.ndarray]:
    """Training and development images as one source with all labels, and the rows of the development images."""
    found = open_dataset(str(data_file(name)), say=lambda line: None)
    assert found.test is not None  # the files name one
    pixels = np.concatenate([found.train.images, found.test.images])
    labels = np.concatenate([found.train.labels, found.test.labels])
    return ArraySource(pixels, labels, found.train.class_names), len(found.train) + np.arange(len(found.test))


@cache
def features(name: str, config: FeatureConfig) -> Features:
    """Features of all images of a data set."""
    return Features(images(name)[0], config)


@dataclass(frozen=True)
class Case:
    """One draw of labels, and what is predicted from it."""

    data: str
    labels: int
    draw: int
    config: FeatureConfig = FeatureConfig()
    tail: bool = False

    @cached_property
    def pool(self) -> LabeledPool:
        """The labels of the draw; all other images, the development images among them, are unlabelled."""
        source, development = images(self.data)
        train = source.labels.copy()
        train[development] = UNLABELLED
        rows = balanced_indices(train, self.labels, self.draw)
        if self.tail:
            rows = np.concatenate([self._tail_of(rows, train, cls) for cls in range(len(source.class_names))])
        return LabeledPool.from_source(source.mask_labels(rows))

    def _tail_of(self, rows: np.ndarray, labels: np.ndarray, cls: int) -> np.ndarray:
        """Fewer labels from class to class, as 1 to 1 / ``LONG_TAIL``."""
        own, last = rows[labels[rows] == cls], len(images(self.data)[0].class_names) - 1
        kept: np.ndarray = own[: max(2, round(len(own) * LONG_TAIL ** (-cls / last)))]
        return kept

    @cached_property
    def splits(self) -> list[Split]:
        """The folds."""
        return make_splits(self.pool.labels, None, self.draw)

    def predictions(self, split: Split) -> dict[str, np.ndarray]:
        """Logits [N, K] of all images by learners that were fitted on the split's labels."""
        pool, known = self.pool, features(self.data, self.config)
        rows, labels = pool.labelled[split.train], pool.labels[split.train]
        ridge, everything = fit_kernel_ridge(known.of(rows), labels, pool.num_classes), np.arange(len(pool.source))
        kernel = np.concatenate([ridge.scores(known.of(part)) for part in known.parts(everything)])
        return {"kernel": kernel, "label-spreading": spread_labels(known.graph, rows, labels, pool.num_classes)}

    @cached_property
    def final(self) -> dict[str, np.ndarray]:
        """Logits [N, K] by learners that were fitted on all labels."""
        return self.predictions(all_labels(self.pool))

    @cached_property
    def sample(self) -> np.ndarray:
        """Rows of unlabelled images that estimate the class prior."""
        rows = self.pool.unlabelled
        return rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)]

    @cached_property
    def out_of_fold(self) -> dict[str, OutOfFold]:
        """Of each learner."""
        found = [self.predictions(split) for split in self.splits]
        made = {}
        for name in found[0]:
            held_out = [
                logits[name][self.pool.labelled[split.held_out]]
                for logits, split in zip(found, self.splits, strict=True)
            ]
            others = [logits[name][self.sample] for logits in found]
            made[name] = OutOfFold(self.pool, self.splits, np.concatenate(held_out), self.sample, others)
        return made

    @cached_property
    def ensemble(self) -> OutOfFold:
        """Both learners combined."""
        return combine(self.out_of_fold)

    def combined(self, oof: OutOfFold, frequency: bool = True) -> np.ndarray:
        """Logits [N, K] of all images, combined as the out-of-fold predictions were."""
        offsets = class_frequency_offsets(self.pool.labels, self.pool.num_classes)
        return oof.weights.combine(self.final, offsets if frequency else 0 * offsets)

    def score(self, logits: np.ndarray) -> float:
        """Macro-F1 on the development images."""
        source, development = images(self.data)
        predicted = logits[development].argmax(axis=1)
        return float(f1_score(source.labels[development], predicted, average="macro"))


def prior_by(case: Case, rule: str) -> np.ndarray:
    """The ensemble's logits, corrected to the class prior by a rule: none, em or rule."""
    logits, oof = case.combined(case.ensemble), case.ensemble
    probabilities = [softmax(each, axis=1) for each in oof.others]
    if rule == "none":
        return logits
    if rule == "em":
        uniform = np.full(case.pool.num_classes, 1 / case.pool.num_classes)
        offsets = prior_offsets(shrunk_em_prior(probabilities, uniform), logits[case.sample])
        corrected: np.ndarray = logits + offsets
        return corrected
    estimate = estimate_class_prior(probabilities, softmax(oof.held_out, axis=1), oof.labels, few_labels=True)
    return adjust_logits(logits, estimate, logits[case.sample])


def prior_correction_by_em(case: Case) -> tuple[float, float]:
    """Expectation maximisation against no correction."""
    return case.score(prior_by(case, "em")), case.score(prior_by(case, "none"))


def few_label_regime(case: Case) -> tuple[float, float]:
    """Uniform unless the mean prediction says otherwise, against expectation maximisation."""
    return case.score(prior_by(case, "rule")), case.score(prior_by(case, "em"))


def uniform_prior_correction(case: Case) -> tuple[float, float]:
    """Uniform unless the mean prediction says otherwise, against no correction."""
    return case.score(prior_by(case, "rule")), case.score(prior_by(case, "none"))


def graph_smoothed_features(case: Case) -> tuple[float, float]:
    """Kernel ridge on features averaged over neighbours, or on an image's own; label spreading as always."""
    plain = replace(case, config=replace(case.config, smoothing_steps=(0,)))
    return case.score(case.combined(case.ensemble)), plain.score(plain.combined(plain.ensemble))


def patch_features(case: Case) -> tuple[float, float]:
    """Similarity to patches beside gradients."""
    plain = replace(case, config=replace(case.config, patches=False))
    return case.score(case.combined(case.ensemble)), plain.score(plain.combined(plain.ensemble))


def ensemble(case: Case) -> tuple[float, float]:
    """The ensemble, or the learner with the better held-out score."""
    alone = {name: combine({name: oof}) for name, oof in case.out_of_fold.items()}
    best = max(alone, key=lambda name: float(alone[name].correct.mean()))
    return case.score(case.combined(case.ensemble)), case.score(case.combined(alone[best]))


def label_spreading(case: Case) -> tuple[float, float]:
    """Kernel ridge and label spreading together, or kernel ridge alone."""
    alone = combine({"kernel": case.out_of_fold["kernel"]})
    return case.score(case.combined(case.ensemble)), case.score(case.combined(alone))


def class_frequency_adjustment(case: Case) -> tuple[float, float]:
    """On labels with a long tail."""
    uneven = replace(case, tail=True)
    return (
        uneven.score(uneven.combined(uneven.ensemble)),
        uneven.score(uneven.combined(uneven.ensemble, frequency=False)),
    )


COMPONENTS: dict[str, tuple[Callable[[Case], tuple[float, float]], tuple[tuple[str, int], ...]]] = {
    "prior correction by expectation maximisation": (prior_correction_by_em, FEW + MORE),
    "few-label regime of the prior correction": (few_label_regime, FEW),
    "uniform prior correction": (uniform_prior_correction, FEW + MORE),
    "graph-smoothed features": (graph_smoothed_features, FEW + MORE),
    "patch features": (patch_features, FEW + MORE),
    "ensemble": (ensemble, FEW + MORE),
    "label spreading": (label_spreading, FEW + MORE),
    "class-frequency adjustment": (class_frequency_adjustment, MORE),
}
"""By name: macro-F1 with and without, and the settings."""
CORRECTIONS: dict[str, dict[str, Any]] = {
    "interval: more labels": {"train_fraction": 1.0},
    "interval: another seed": {"seed_deviation": 0.0},
    "interval: optimism of the choice": {"selection": 1.0},
}


def interval_row(case: Case, correction: str) -> dict[str, Any]:
    """The estimate of the ensemble's score with all corrections and without one, against the truth."""
    from fewlabels.fit.config import PerformanceConfig

    oof, (source, development) = case.ensemble, images(case.data)
    confusion = confusion_matrix(oof.labels, oof.held_out.argmax(axis=1), labels=range(case.pool.num_classes))
    prior = np.bincount(source.labels[development], minlength=case.pool.num_classes) / len(development)
    truth = case.score(case.combined(oof))
    row: dict[str, Any] = {}
    for name, left_out in (("with", {}), ("without", CORRECTIONS[correction])):
        config = PerformanceConfig()
        config = replace(config, seed_deviation=left_out.get("seed_deviation", config.seed_deviation))
        fraction = (2 / 3) ** left_out.get("selection", config.selection_exponent)
        fraction = left_out.get("train_fraction", fraction)
        found = expected_macro_f1(confusion, prior, case.draw, len(development), fraction, config=config)
        row[f"error_{name}"] = round(100 * (found.macro_f1 - truth), 2)
        row[f"covers_{name}"] = bool(found.low <= truth <= found.high)
    return row


def rows() -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Keys of a row, and what measures it."""
    for component, (compare, settings) in COMPONENTS.items():
        for data, labels in settings:
            for draw in DRAWS:
                key = dict(zip(KEYS, (component, data, labels, draw), strict=True))

                def measure(case: Case = Case(data, labels, draw), compare: Any = compare) -> dict[str, Any]:
                    with_it, without = compare(case)
                    return {"macro_f1_with": round(with_it, 4), "macro_f1_without": round(without, 4)}

                yield key, measure
    for correction in CORRECTIONS:
        for data, labels in FEW + MORE:
            for draw in DRAWS:
                key = dict(zip(KEYS, (correction, data, labels, draw), strict=True))
                yield key, partial(interval_row, Case(data, labels, draw), correction)


def main() -> None:
    """Measure what has no row yet."""
    file = ResultFile("ablations", "python -m benchmarks.ablations", keys=KEYS)
    # Data set by data set, since the features of one fill much memory.
    for key, measure in sorted(rows(), key=lambda row: str(row[0]["data"])):
        if not file.has(**key):
            began = time.perf_counter()
            row = {**key, "seed": key["draw"], **measure(), "seconds": round(time.perf_counter() - began, 1)}
            file.add(row | {"cpu": file.head["machine"]["cpu"]})
            print(row, flush=True)


if __name__ == "__main__":
    main()
