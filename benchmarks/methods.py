"""Macro-F1 of probes on 1,000 labels after at most five minutes of pretraining, by method, on the tutorial's network.

A run takes at most ``MAX_SECONDS`` of wall time, compilation included. A timed trial gives the number of epochs. A run
that takes longer is repeated with fewer epochs. Probes are fitted to the tutorial's first 1,000 labels, with C or k
from cross-validation on them. Test labels are read once per row. ``benchmarks.scores`` reads the weights, which stay in
``runs/methods``.
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
from fewlabels.ssl.pretrain import ComputeConfig, Pretraining, PretrainSettings, build_method
from fewlabels.training.callbacks import Observer
from fewlabels.training.precision import fastest_precision

MAX_SECONDS = 300.0
"""Wall time of a pretraining, at most."""
PLANNED_SECONDS = 230.0
"""Planned time of the steps. The rest is for compilation and for changes of the machine's speed. Not tuned."""
SEEDS = (0, 1, 2)
LABELS = 1000
RANKME_IMAGES = 2048
"""Training images from whose features RankMe is computed. Not tuned."""
RUNS = Path("runs/methods")
"""Folder of the runs."""


def pretrained(method: str, seed: int, folder: Path, source: ArraySource, known: int | None = None) -> dict[str, Any]:
    """Pretrain for at most ``MAX_SECONDS`` and save the weights; return epochs, seconds, precision and processor.

    Args:
        method: of pretraining.
        seed: of the run.
        folder: of the run. If it has a finished run, that one is returned.
        source: the images.
        known: number of epochs that fitted before; the run has as many, however long it takes. None: by a timed trial.
    """
    file = folder / "taken.json"
    if file.is_file():
        about: dict[str, Any] = json.loads(file.read_text())
        return about
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    views, compute = RECIPES["gray-small"], ComputeConfig(checkpoint_seconds=3600)
    precision = fastest_precision("cpu")
    trial = PretrainSettings(method, 20, precision=precision)
    epochs = known or Pretraining(source, views, trial, folder, seed, Observer(""), compute).epochs_in(PLANNED_SECONDS)
    while True:
        shutil.rmtree(folder)
        folder.mkdir()
        settings = PretrainSettings(method, epochs, precision=precision)
        began = time.perf_counter()
        Pretraining(source, views, settings, folder, seed, Observer(""), compute).run()
        seconds = round(time.perf_counter() - began, 1)
        about = {"epochs": epochs, "pretrain_seconds": seconds, "precision": precision, "cpu": machine()["cpu"]}
        if known or seconds <= MAX_SECONDS:
            write_json(file, about)
            return about
        epochs = min(epochs - 1, int(epochs * MAX_SECONDS / seconds))


def load_finished(method: str, seed: int, folder: Path) -> Method:
    """Return a method with the weights that a run has saved in its folder."""
    network = build_method(PretrainSettings(method, 1), 1, seed)
    load_exactly(network, read_weights(folder / "method.safetensors")[0], folder)
    return network


def measure(method: str, seed: int) -> dict[str, object]:
    """Return the row of a method; ``untrained`` is a network with random initial weights."""
    splits = fashion_mnist()
    folder = RUNS / f"{method}-{seed}"
    if method == "untrained":
        backbone = build_method(PretrainSettings("simclr", 1), 1, seed).backbone
        about: dict[str, Any] = {"epochs": 0, "pretrain_seconds": 0.0}
    else:
        about = pretrained(method, seed, folder, splits.train)
        backbone = load_finished(method, seed, folder).backbone
    labelled = splits.train.first_k(LABELS)
    features, test = outputs(backbone, labelled), outputs(backbone, splits.test)
    sample = outputs(backbone, splits.train.subset(evenly_spaced(splits.train, RANKME_IMAGES)))
    row: dict[str, object] = {"method": method, "seed": seed, "labels": LABELS, **about}
    row["rankme"] = round(rankme(torch.from_numpy(sample)), 1)
    for probe in (logistic_probe(features, labelled.labels), knn_probe(features, labelled.labels)):
        name = {"logistic": "probe", "knn": "knn"}[probe.kind]
        row |= {
            f"{name}_macro_f1": round(f1_score(splits.test.labels, probe.estimator.predict(test), average="macro"), 4),
            f"{name}_cv_macro_f1": round(probe.cv_macro_f1, 4),
            f"{name}_chosen": probe.chosen,
        }
    return row


def main() -> None:
    """Measure the methods that have no row yet, or those of them that the command line names."""
    file = ResultFile("methods", "python -m benchmarks.methods", keys=("method", "seed"))
    for seed in SEEDS:
        for method in ("untrained", *METHODS):
            if file.has(method=method, seed=seed) or (sys.argv[1:] and method not in sys.argv[1:]):
                continue
            began = time.perf_counter()
            row = measure(method, seed)
            file.add({**row, "seconds": round(time.perf_counter() - began, 1)})
            print(row, flush=True)


if __name__ == "__main__":
    main()
