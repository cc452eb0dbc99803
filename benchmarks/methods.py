"""Macro-F1 with 1,000 labels after five minutes of pretraining by each method, on the tutorial's network.

Each run may take ``BUDGET`` seconds of wall time, what it compiles included; how many epochs fit is measured before.
One that takes longer is done again with fewer.
The probe learns from the tutorial's first 1,000 labels and chooses C or k by cross-validation on them; test labels
are read once a row. The weights stay in ``runs/methods``, for ``benchmarks.scores``.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import f1_score

from benchmarks.harness import ResultFile
from fewlabels._internal.environment import machine
from fewlabels._internal.files import write_json
from fewlabels._internal.tensors import load_exactly, read_weights
from fewlabels.augment.recipes import RECIPES
from fewlabels.backbones.inference import outputs
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.source import ArraySource, evenly_spaced
from fewlabels.features.probes import knn_probe, logistic_probe
from fewlabels.ssl.methods import METHODS, Method
from fewlabels.ssl.metrics import rankme
from fewlabels.ssl.pretrain import Engine, Pretraining, PretrainSettings, build_method
from fewlabels.training.callbacks import Observer
from fewlabels.training.precision import fastest_precision

BUDGET = 300.0
PLANNED = 230.0
"""Seconds of steps that are planned, since something is compiled first, and the machine's speed drifts."""
SEEDS = (0, 1, 2)
LABELS = 1000
RANKED = 2048
"""Training images whose features' rank is taken."""
RUNS = Path("runs/methods")


def pretrained(method: str, seed: int, folder: Path, source: ArraySource, known: int | None = None) -> dict[str, Any]:
    """Leave in the folder the weights after as many epochs as fit into the budget; their number, and seconds.

    With a ``known`` number of epochs, which have fitted before, they are done whatever the clock says.
    """
    file = folder / "taken.json"
    if file.is_file():
        taken: dict[str, Any] = json.loads(file.read_text())
        return taken
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    views, engine = RECIPES["gray-small"], Engine(checkpoint_seconds=3600)
    precision = fastest_precision("cpu")
    tried = PretrainSettings(method, 20, precision=precision)
    epochs = known or Pretraining(source, views, tried, folder, seed, Observer(""), engine).epochs_in(PLANNED)
    while True:
        shutil.rmtree(folder)
        folder.mkdir()
        settings = PretrainSettings(method, epochs, precision=precision)
        began = time.perf_counter()
        Pretraining(source, views, settings, folder, seed, Observer(""), engine).go()
        seconds = round(time.perf_counter() - began, 1)
        taken = {"epochs": epochs, "pretrain_seconds": seconds, "precision": precision, "cpu": machine()["cpu"]}
        if known or seconds <= BUDGET:
            write_json(file, taken)
            return taken
        epochs = min(epochs - 1, int(epochs * BUDGET / seconds))


def finished(method: str, seed: int, folder: Path) -> Method:
    """A method with the weights that a run left in its folder."""
    network = build_method(PretrainSettings(method, 1), 1, seed)
    load_exactly(network, read_weights(folder / "method.safetensors")[0], folder)
    return network


def measured(method: str, seed: int) -> dict[str, object]:
    """One row; method "untrained" is the network as it is drawn."""
    splits = fashion_mnist()
    folder = RUNS / f"{method}-{seed}"
    if method == "untrained":
        backbone = build_method(PretrainSettings("simclr", 1), 1, seed).backbone
        taken: dict[str, Any] = {"epochs": 0, "pretrain_seconds": 0.0}
    else:
        taken = pretrained(method, seed, folder, splits.train)
        backbone = finished(method, seed, folder).backbone
    labelled = splits.train.first_k(LABELS)
    features, test = outputs(backbone, labelled), outputs(backbone, splits.test)
    ranked = outputs(backbone, splits.train.subset(evenly_spaced(splits.train, RANKED)))
    row: dict[str, object] = {"method": method, "seed": seed, "labels": LABELS, **taken}
    row["rankme"] = round(rankme(torch.from_numpy(ranked)), 1)
    for probe in (logistic_probe(features, labelled.labels), knn_probe(features, labelled.labels)):
        name = {"logistic": "probe", "knn": "knn"}[probe.kind]
        row |= {
            f"{name}_macro_f1": round(f1_score(splits.test.labels, probe.estimator.predict(test), average="macro"), 4),
            f"{name}_cv_macro_f1": round(probe.cv_macro_f1, 4),
            f"{name}_chosen": probe.chosen,
        }
    return row


def main() -> None:
    """Measure what has no row yet; with method names as arguments, of those alone."""
    file = ResultFile("methods", "python -m benchmarks.methods", keys=("method", "seed"))
    for seed in SEEDS:
        for method in ("untrained", *METHODS):
            if file.has(method=method, seed=seed) or (sys.argv[1:] and method not in sys.argv[1:]):
                continue
            began = time.perf_counter()
            row = measured(method, seed)
            file.add({**row, "seconds": round(time.perf_counter() - began, 1)})
            print(row, flush=True)


if __name__ == "__main__":
    main()
