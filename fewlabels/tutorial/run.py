"""Run the tutorial's experiments and collect all results that it shows; an interrupted run resumes."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from fewlabels._internal.environment import provenance
from fewlabels._internal.files import write_json
from fewlabels._internal.tensors import load_exactly, read_weights
from fewlabels._internal.umap import umap_projection
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import save_classifier
from fewlabels.data.source import ArraySource
from fewlabels.metrics.classification import evaluate
from fewlabels.ssl.pretrain import ComputeConfig, PretrainSettings, build_method, pretrain
from fewlabels.training.callbacks import Logger, Observer
from fewlabels.training.run_folder import epoch_folder, epoch_state
from fewlabels.tutorial.arms import ArticlePlan, Experiment, train_experiment
from fewlabels.tutorial.methods import ARTICLE_METHODS
from fewlabels.tutorial.summary import claims, simclr_against_simsiam, summarise
from fewlabels.tutorial.views import randaugment


@dataclass(frozen=True)
class ArticleRun:
    """One run of the tutorial in a folder. Finished experiments are read from the folder."""

    folder: Path
    train: ArraySource
    test: ArraySource
    plan: ArticlePlan
    seeds: int
    logger: Logger
    console: Console
    device: torch.device

    def rows(self, on_row: Callable[[dict[str, Any]], None] = lambda row: None) -> list[dict[str, Any]]:
        """Results of every experiment and seed, as JSON; ``on_row`` is called with each as soon as it is measured."""
        rows = []
        for experiment in self.plan.experiments(len(self.train)):
            for seed in range(1 if experiment.once else self.seeds):
                rows.append(self._row(experiment, seed))
                on_row(rows[-1])
        return rows

    def _row(self, experiment: Experiment, seed: int) -> dict[str, Any]:
        """Results of one experiment and seed, from its file or measured and written."""
        name = f"{experiment.name}-seed{seed}"
        # Names of the folder and of the keys "arm" and "decided" are those of earlier versions, whose files are read.
        row_file, weights_file = self.folder / "arms" / f"{name}.json", self.folder / "weights" / f"{name}.safetensors"
        settings = json.loads(json.dumps(asdict(experiment)))
        if row_file.is_file():
            row: dict[str, Any] = json.loads(row_file.read_text())
            if row["decided"] == settings and weights_file.is_file():
                return row
        backbone_file = self.backbone_file(experiment)
        labelled = self.train.first_k(experiment.labels)
        observer = Observer(name, self.logger, self.console)
        model = train_experiment(experiment, labelled, backbone_file, seed, observer, self.device)
        save_classifier(model, weights_file)
        result = evaluate(outputs(model, self.test), self.test)
        row = {
            "arm": experiment.name,
            "title": experiment.title,
            "seed": seed,
            "labels": experiment.labels,
            "epochs": experiment.settings.epochs,
            "pretrain_epochs": experiment.pretrain_epochs,
            "macro_f1": round(result.macro_f1, 4),
            "accuracy": round(result.accuracy, 4),
            "seconds": round(observer.seconds, 1),
            "per_class": result.per_class,
            "report": result.text,
            "curve": {"steps": observer.curve.steps, "values": observer.curve.values},
            "first_predictions": result.predictions[:16].tolist(),
            "decided": settings,
        }
        write_json(row_file, row)
        return row

    def backbone_file(self, experiment: Experiment) -> Path | None:
        """The file with an experiment's pretrained weights, pretrained first if it does not exist; None without."""
        method = experiment.pretrained_by
        if method is None:
            return None
        # The code as printed loads no weights, so any file will do: take that of the shortest pretraining.
        epochs = experiment.pretrain_epochs or self.plan.comparison_epochs
        folder = self.pretraining(method)
        weights = epoch_folder(folder, epochs) / "backbone.safetensors"
        if not weights.is_file():
            wanted = self.pretrain_epochs(method)
            settings = PretrainSettings(
                method,
                wanted[-1],
                ARTICLE_METHODS[method],
                schedule="constant",
                drop_last=False,
                keep_epochs=wanted,
            )
            # Without tuning, because a compiled network gives results that differ in the last digits.
            engine = ComputeConfig(self.device.type, tune=False, on_collapse="warn")
            observer = Observer(f"{method}-pretraining", self.logger, self.console)
            # As in the tutorial, there is one pretraining for all seeds of the head.
            pretrain(self.train, randaugment, settings, folder, 0, observer, engine)
        return weights

    def pretraining(self, method: str) -> Path:
        """The folder of a method's pretraining."""
        return self.folder / "pretraining" / method

    def pretrain_epochs(self, method: str) -> tuple[int, ...]:
        """Epochs after which experiments use a method's weights, in ascending order."""
        experiments = self.plan.experiments(len(self.train))
        return tuple(sorted({each.pretrain_epochs for each in experiments if each.pretrained_by == method} - {0}))

    def pretraining_state(self, method: str) -> dict[str, Any]:
        """Loss curve and seconds of a method's longest pretraining."""
        longest = self.pretrain_epochs(method)[-1]
        return {"epochs": longest, **epoch_state(self.pretraining(method), longest)}


def result(run: ArticleRun, command: str, quick: bool) -> dict[str, Any]:
    """Run all experiments; return and write ``result.json``, from which the report is made."""
    rows = run.rows()
    summaries = summarise(rows)
    states = {method: run.pretraining_state(method) for method in ("simclr", "simsiam")}
    full = next(row for row in rows if row["arm"] == "supervised-60000")
    gathered = {
        "name": "article",
        **provenance(command),
        "quick": quick,
        "few_labels": run.plan.few_labels,
        "num_test": len(run.test),
        "class_names": list(run.test.class_names),
        "claims": claims(summaries, quick),
        "experiments": [{**asdict(summary), "macro_f1_text": summary.macro_f1_text} for summary in summaries],
        "pretrain_seconds": {f"{method}, {s['epochs']} epochs": round(s["seconds"], 1) for method, s in states.items()},
        "rows": rows,
        "curves": _curves(run, rows, states),
        "methods_table": simclr_against_simsiam(summaries, states, len(run.train)),
        "train_grid": _grid(run.train),
        "test_grid": {
            **_grid(run.test),
            "predictions": full["first_predictions"],
            "title": f"{full['title']}, {full['epochs']} epochs",
        },
        "umap": _umap(run, states["simsiam"]["epochs"]),
    }
    write_json(run.folder / "result.json", gathered)
    return gathered


def _grid(source: ArraySource, count: int = 16) -> dict[str, Any]:
    """The first channel of the first images as nested lists of 0..255, and their labels."""
    return {"images": source.read(slice(count))[:, 0].tolist(), "labels": source.labels[:count].tolist()}


def _curves(run: ArticleRun, rows: list[dict[str, Any]], states: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Loss by epoch, of each experiment's first seed and of each pretraining."""
    kinds = {"simclr": "NT-Xent", "simsiam": "negative cosine"}
    curves = {
        row["arm"]: _curve(row["curve"], row["epochs"], f"{row['title']} ({row['epochs']} epochs)", "cross-entropy")
        for row in rows
        if row["seed"] == 0
    }
    for method, state in states.items():
        title = f"{method} pretraining ({state['epochs']} epochs)"
        curves[method] = _curve(state["curve"], state["epochs"], title, kinds[method])
    return curves


def _curve(curve: dict[str, Any], epochs: int, title: str, kind: str) -> dict[str, Any]:
    last = curve["steps"][-1]
    return {
        "title": title,
        "kind": kind,
        "epochs": [round(step * epochs / last, 3) for step in curve["steps"]],
        "values": [round(value, 5) for value in curve["values"]],
    }


def _umap(run: ArticleRun, epochs: int) -> dict[str, Any]:
    """UMAP of the SimSiam predictor's output for the test images, as the tutorial draws it."""
    file = run.folder / "umap.json"
    title = f"UMAP of the SimSiam predictor's output on {len(run.test):,} test images, {epochs} epochs of pretraining"
    if file.is_file():
        umap = json.loads(file.read_text())
        if umap["title"] == title:
            return dict(umap)
    run.console.print(f"Computing the UMAP of {len(run.test):,} test images")
    settings = PretrainSettings("simsiam", epochs, ARTICLE_METHODS["simsiam"])
    method = build_method(settings, run.test.shape[0], seed=0)
    weights = epoch_folder(run.pretraining("simsiam"), epochs) / "method.safetensors"
    load_exactly(method, read_weights(weights)[0], weights)
    points = umap_projection(outputs(nn.Sequential(method.backbone, method.get_submodule("predictor")), run.test))
    umap = {"title": title, "points": np.round(points.astype(float), 3).tolist(), "labels": run.test.labels.tolist()}
    write_json(file, umap)
    return umap
