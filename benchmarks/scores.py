"""Label-free scores of pretraining runs, and the macro-F1 of a linear probe with 1,000 labels that they should rank.

There are two groups of runs. ``finished`` are those of ``benchmarks.methods``, with weights in ``runs/methods``.
``short`` are runs of three methods with several learning rates and view recipes, as ``--method auto`` compares.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.metrics import f1_score

from benchmarks.harness import ResultFile
from benchmarks.methods import LABELS, RUNS, load_finished
from fewlabels.augment.recipes import RECIPES, Recipe
from fewlabels.backbones.inference import outputs
from fewlabels.data.fashion_mnist import Splits, fashion_mnist
from fewlabels.features.probes import logistic_probe
from fewlabels.ssl.methods import METHODS, Method
from fewlabels.ssl.pretrain import ComputeConfig, PretrainSettings, pretrain
from fewlabels.ssl.scores import label_free_scores
from fewlabels.training.callbacks import Observer

SHORT_EPOCHS = 2
"""Epochs of a short run. Not tuned."""
SHORT_METHODS = ("simclr", "vicreg", "simsiam")
RATES = (0.1, 1 / 3, 1.0, 3.0)
"""Factors of the method's default learning rate."""
VIEWS: dict[str, Any] = {
    "gray-small": RECIPES["gray-small"],
    "randaugment": RECIPES["randaugment"],
    "shifts and gamma": Recipe(translate=0.1, gamma=0.5),
    "small crops": Recipe(crop_area=(0.1, 0.5), flip=0.5),
}
SHORT_RUNS = [*((rate, "gray-small") for rate in RATES), *((1.0, views) for views in VIEWS if views != "gray-small")]
"""Learning-rate factor and view recipe of each short run."""


def scores_row(method: Method, name: str, seed: int, views: Any, splits: Splits) -> dict[str, Any]:
    """Return label-free scores and the macro-F1 of a linear probe; test labels are read once."""
    began = time.perf_counter()
    scores = label_free_scores(method, splits.train, views, seed)
    seconds = time.perf_counter() - began
    labelled = splits.train.first_k(LABELS)
    probe = logistic_probe(outputs(method.backbone, labelled), labelled.labels)
    predicted = probe.estimator.predict(outputs(method.backbone, splits.test))
    row = {
        "method": name,
        "seed": seed,
        "probe_macro_f1": round(f1_score(splits.test.labels, predicted, average="macro"), 4),
    }
    row |= {"probe_cv_macro_f1": round(probe.cv_macro_f1, 4), "score_seconds": round(seconds, 1)}
    return {**row, "scores": {score: round(value, 4) for score, value in scores.items()}}


def short_run(name: str, rate: float, views: str, seed: int, splits: Splits) -> Method:
    """Pretrain for ``SHORT_EPOCHS``."""
    settings = PretrainSettings(name, SHORT_EPOCHS)
    settings = replace(settings, lr=rate * settings.of_method.optimizer.lr)
    with tempfile.TemporaryDirectory() as folder:
        compute = ComputeConfig(tune=False, checkpoint_seconds=3600, on_collapse="warn")
        return pretrain(splits.train, VIEWS[views], settings, Path(folder), seed, Observer(name), compute)


def main() -> None:
    """Measure the runs that have no row yet."""
    file = ResultFile("scores", "python -m benchmarks.scores", keys=("group", "method", "seed", "rate", "views"))
    splits = fashion_mnist()
    todo: list[dict[str, Any]] = [
        {"group": "finished", "method": name, "seed": seed, "rate": 1.0, "views": "gray-small"}
        for seed in (0, 1, 2)
        for name in METHODS
        if (RUNS / f"{name}-{seed}" / "method.safetensors").is_file()
    ]
    todo += [
        {"group": "short", "method": name, "seed": 0, "rate": rate, "views": views}
        for name in SHORT_METHODS
        for rate, views in SHORT_RUNS
    ]
    for key in todo:
        if file.has(**key):
            continue
        began = time.perf_counter()
        name, seed, views = key["method"], key["seed"], key["views"]
        if key["group"] == "finished":
            trained = load_finished(name, seed, RUNS / f"{name}-{seed}")
        else:
            trained = short_run(name, key["rate"], views, seed, splits)
        row = {**scores_row(trained, name, seed, VIEWS[views], splits), **key}
        file.add({**row, "seconds": round(time.perf_counter() - began, 1)})
        print(row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
