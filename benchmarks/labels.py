"""What labels buy: macro-F1 by strategy, backbone, number of labels and time.

Three groups of fits of the real Fashion-MNIST, each by ``fewlabels.fit.fit``, whose every choice is made on the labels
it is given; the test labels are read once a row.

Strategies but the supervised one start from five minutes of pretraining, except those of ``main``.

Minutes are counted, not clocked, so that a row does not depend on what else the machine does: a step counts with what
it takes when nothing else runs (``costs.json``), on two cores for ``main``, on one for the others, however many it had.
How long it took by the clock is in the row as ``seconds``.

- ``main``: the first 1,000 labels, or 100 of them; the supervised baseline, and all that more time can buy.
- ``curve``: 20 to 60,000 labels, three draws of each, at most three minutes a fit.
- the names of ``HARD``: few labels of some classes, none of one, and images of no class among the unlabelled.
"""

import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import ResultFile
from benchmarks.methods import RUNS, pretrained
from fewlabels._internal.seeding import seed_from
from fewlabels.augment.recipes import fit_views
from fewlabels.backbones.inference import outputs
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.source import UNLABELLED, ArraySource, balanced_indices
from fewlabels.fit.config import FitConfig
from fewlabels.fit.costs import measured_costs
from fewlabels.fit.data import LabeledPool
from fewlabels.fit.pipeline import run_fit
from fewlabels.fit.schedule import CostModel
from fewlabels.metrics.classification import evaluate
from fewlabels.ssl.recipes import DEFAULT_PRESET
from fewlabels.training.callbacks import Observer
from fewlabels.training.precision import fastest_precision
from fewlabels.training.threads import computing_with

SEEDS = (0, 1, 2)
LABELS = (20, 100, 1000, 10_000, 60_000)
HARD = ("long tail", "one label in a class", "a class without labels", "foreign images")
MAIN = (
    ("supervised", "article", 1000, 10),
    ("selftrain", "article", 1000, 20),
    ("selftrain", "small", 1000, 30),
    ("supervised", "article", 100, 10),
    ("selftrain", "article", 100, 30),
)
"""Strategy, backbone, labels and minutes."""
CURVE = ("supervised", "probe", "finetune", "selftrain")
KEYS = ("group", "strategy", "backbone", "labels", "minutes", "draw", "seed")
PLACE = Path("runs/labels")
CORES = 2
"""Of the machine that the rows of ``main`` are for."""
TRIALS, APART = 12, 5.0
"""Of each cost, and seconds between them: a machine may be slow for minutes."""


def rows_to_do() -> list[dict[str, Any]]:
    """The keys of all rows, the most wanted first; a seed is a draw of labels, too, but for the tutorial's 1,000."""
    rows: list[tuple[Any, ...]] = [("main", *of, "first" if of[2] == 1000 else s, s) for of in MAIN for s in SEEDS]
    rows += [("curve", of, "article", labels, 3, s, s) for s in SEEDS for labels in LABELS for of in CURVE]
    rows += [(case, of, "article", 1000, 5, s, s) for case in HARD for s in SEEDS for of in ("supervised", "selftrain")]
    return [dict(zip(KEYS, row, strict=True)) for row in rows]


def labelled(train: ArraySource, group: str, labels: int, draw: int | str) -> ArraySource:
    """The training images with the labels that a row may use."""
    if draw == "first":
        return train.mask_labels(np.arange(labels))
    assert isinstance(draw, int)
    classes = len(train.class_names)
    rows = balanced_indices(train.labels, labels, draw)
    rng = np.random.default_rng(seed_from(draw, group))
    by_class = [rng.permutation(rows[train.labels[rows] == cls]) for cls in range(classes)]
    if group == "long tail":  # 1:100 from the first class to the last
        many = len(by_class[0])
        by_class = [of[: max(1, round(many * 0.01 ** (cls / (classes - 1))))] for cls, of in enumerate(by_class)]
    elif group == "one label in a class":
        by_class[6] = by_class[6][:1]
    elif group == "a class without labels":
        by_class[8] = by_class[8][:0]
    shown = train.mask_labels(np.concatenate(by_class))
    if group != "foreign images":
        return shown
    # A fifth of the unlabelled images are noise that was never a garment.
    noise = rng.choice(np.flatnonzero(shown.labels == UNLABELLED), size=len(train) // 5, replace=False)
    images = shown.images.copy()
    images[noise] = rng.integers(0, 256, images[noise].shape, dtype=np.uint8)
    return ArraySource(images, shown.labels, shown.class_names, shown.name)


def weights(seed: int) -> Path:
    """Of a backbone pretrained for five minutes, by ``benchmarks.methods`` or now; no label was used."""
    method = DEFAULT_PRESET.settings.method
    folder = RUNS / f"{method}-{seed}"
    row = ResultFile("methods", "python -m benchmarks.methods", ("method", "seed")).find(method=method, seed=seed)
    pretrained(method, seed, folder, fashion_mnist().train, None if row is None else row["epochs"])
    return folder / "backbone.safetensors"


def threads_of(key: dict[str, Any]) -> int:
    """That a row's time is counted for, however many compute it."""
    return CORES if key["group"] == "main" else 1


def costs(backbone: str, threads: int) -> CostModel:
    """The least of many trials, since other work only slows a machine down."""
    precision = fastest_precision("cpu")
    key = {"backbone": backbone, "threads": threads, "precision": precision}
    file = ResultFile("costs", "python -m benchmarks.labels", keys=tuple(key))
    if not file.has(**key):
        shape, tried = fashion_mnist().train.shape, []
        for _ in range(TRIALS):
            with computing_with(threads):
                config = FitConfig(backbone=backbone)
                tried.append(asdict(measured_costs(config, shape, fit_views(1)[1], torch.device("cpu"), precision)))
            time.sleep(APART)
        least = {name: float(f"{min(each[name] for each in tried):.3g}") for name in tried[0] if name != "clock"}
        file.add(key | least)
    row = file.find(**key)
    assert row is not None  # it was added
    return CostModel(clock=False, **{name: row[name] for name in row.keys() - {*key, "date", "commit"}})


def measured(key: dict[str, Any]) -> dict[str, Any]:
    """One row."""
    splits = fashion_mnist()
    pool = LabeledPool.from_source(labelled(splits.train, key["group"], key["labels"], key["draw"]))
    fresh = key["strategy"] == "supervised" or key["group"] == "main"
    start = None if fresh else str(weights(key["seed"]))
    config = FitConfig(key["strategy"], 60.0 * key["minutes"], key["backbone"], init_from=start)
    folder = PLACE / "-".join(str(key[name]) for name in KEYS)
    counted, views = costs(key["backbone"], threads_of(key)), fit_views(1)
    began = time.perf_counter()
    result = run_fit(pool, config, views, folder, key["seed"], Observer, test_images=len(splits.test), costs=counted)
    seconds = round(time.perf_counter() - began, 1)
    tested = evaluate(outputs(result.network, splits.test), splits.test)
    row = {**key, "labelled": len(pool.labelled), "macro_f1": round(tested.macro_f1, 4)}
    row |= {"ece": round(tested.calibration_error, 4), "chosen": result.strategy}
    if result.estimate is not None:
        names = ("estimate", "estimate_low", "estimate_high")
        row |= {name: round(value, 4) for name, value in zip(names, result.estimate, strict=True)}
    row["tried"] = {name: round(score.macro_f1, 4) for name, score in result.candidates.items()}
    shutil.rmtree(folder)
    return {**row, "counted": True, "seconds": seconds, "threads": threads_of(key)}


def main() -> None:
    """Measure what has no row yet; with names of groups or seeds as arguments, of those alone."""
    file = ResultFile("labels", "python -m benchmarks.labels", keys=KEYS)
    seeds = [int(word) for word in sys.argv[1:] if word.isdigit()] or SEEDS
    groups = [word for word in sys.argv[1:] if not word.isdigit()]
    for key in rows_to_do():
        if file.has(**key) or key["seed"] not in seeds or (groups and key["group"] not in groups):
            continue
        with computing_with(threads_of(key)):
            row = measured(key)
        file.add(row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
