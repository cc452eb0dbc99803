"""Run the tutorial's arms and keep all that it shows, going on where an earlier start stopped."""

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
from fewlabels.ssl.pretrain import Engine, PretrainSettings, build_method, pretrain
from fewlabels.training.callbacks import Logger, Observer
from fewlabels.training.run_folder import kept_folder, kept_state
from fewlabels.tutorial.arms import Arm, ArticlePlan, train_arm
from fewlabels.tutorial.methods import ARTICLE_METHODS
from fewlabels.tutorial.summary import claims, simclr_against_simsiam, summarise
from fewlabels.tutorial.views import randaugment


@dataclass(frozen=True)
class ArticleRun:
    """One run of the tutorial in a folder: what is done already is read back, not done again."""

    folder: Path
    train: ArraySource
    test: ArraySource
    plan: ArticlePlan
    seeds: int
    logger: Logger
    console: Console
    device: torch.device

    def rows(self, on_row: Callable[[dict[str, Any]], None] = lambda row: None) -> list[dict[str, Any]]:
        """Every arm and seed in turn; ``on_row`` sees each as soon as it is measured."""
        rows = []
        for arm in self.plan.arms(len(self.train)):
            for seed in range(1 if arm.once else self.seeds):
                rows.append(self._row(arm, seed))
                on_row(rows[-1])
        return rows

    def _row(self, arm: Arm, seed: int) -> dict[str, Any]:
        name = f"{arm.name}-seed{seed}"
        kept = self.folder / "arms" / f"{name}.json"
        decided = json.loads(json.dumps(asdict(arm)))
        if kept.is_file():
            row: dict[str, Any] = json.loads(kept.read_text())
            if row["decided"] == decided and (self.folder / "weights" / f"{name}.safetensors").is_file():
                return row
        backbone_file = self.backbone_file(arm)
        labelled = self.train.first_k(arm.labels)
        observer = Observer(name, self.logger, self.console)
        model = train_arm(arm, labelled, backbone_file, seed, observer, self.device)
        save_classifier(model, self.folder / "weights" / f"{name}.safetensors")
        result = evaluate(outputs(model, self.test), self.test)
        row = {
            "arm": arm.name,
            "title": arm.title,
            "seed": seed,
            "labels": arm.labels,
            "epochs": arm.settings.epochs,
            "pretrain_epochs": arm.pretrain_epochs,
            "macro_f1": round(result.macro_f1, 4),
            "accuracy": round(result.accuracy, 4),
            "seconds": round(observer.seconds, 1),
            "per_class": result.per_class,
            "report": result.text,
            "curve": {"steps": observer.curve.steps, "values": observer.curve.values},
            "first_predictions": result.predictions[:16].tolist(),
            "decided": decided,
        }
        write_json(kept, row)
        return row

    def backbone_file(self, arm: Arm) -> Path | None:
        """The pretrained weights an arm starts from, pretraining first where needed."""
        if arm.pretrained_by is None:
            return None
        # As printed, any weights do: they are not loaded. Take the shortest run's.
        epochs = arm.pretrain_epochs or self.plan.comparison_epochs
        folder = self.pretraining(arm.pretrained_by)
        weights = kept_folder(folder, epochs) / "backbone.safetensors"
        if not weights.is_file():
            wanted = self.pretrain_epochs(arm.pretrained_by)
            settings = PretrainSettings(
                arm.pretrained_by,
                wanted[-1],
                ARTICLE_METHODS[arm.pretrained_by],
                schedule="constant",
                drop_last=False,
                keep_epochs=wanted,
            )
            # A trial could choose a compiled network, whose figures differ in the last digits.
            engine = Engine(self.device.type, tune=False, on_collapse="warn")
            observer = Observer(f"{arm.pretrained_by}-pretraining", self.logger, self.console)
            # The tutorial pretrains once; all seeds of the head share it.
            pretrain(self.train, randaugment, settings, folder, 0, observer, engine)
        return weights

    def pretraining(self, method: str) -> Path:
        """The folder of a method's pretraining."""
        return self.folder / "pretraining" / method

    def pretrain_epochs(self, method: str) -> tuple[int, ...]:
        """After how many epochs an arm takes this method's weights, rising."""
        arms = self.plan.arms(len(self.train))
        return tuple(sorted({arm.pretrain_epochs for arm in arms if arm.pretrained_by == method} - {0}))

    def pretraining_state(self, method: str) -> dict[str, Any]:
        """Loss curve and seconds of the longest pretraining with this method."""
        longest = self.pretrain_epochs(method)[-1]
        return {"epochs": longest, **kept_state(self.pretraining(method), longest)}


def result(run: ArticleRun, command: str, quick: bool) -> dict[str, Any]:
    """Run everything and gather what the tutorial shows, ready for JSON and the report."""
    rows = run.rows()
    summaries = summarise(rows)
    states = {method: run.pretraining_state(method) for method in ("simclr", "simsiam")}
    shown = next(row for row in rows if row["arm"] == "supervised-60000")
    gathered = {
        "name": "article",
        **provenance(command),
        "quick": quick,
        "few_labels": run.plan.few_labels,
        "num_test": len(run.test),
        "class_names": list(run.test.class_names),
        "claims": claims(summaries, quick),
        "arms": [{**asdict(summary), "macro_f1_text": summary.macro_f1_text} for summary in summaries],
        "pretrain_seconds": {f"{method}, {s['epochs']} epochs": round(s["seconds"], 1) for method, s in states.items()},
        "rows": rows,
        "curves": _curves(run, rows, states),
        "methods_table": simclr_against_simsiam(summaries, states, len(run.train)),
        "train_grid": _grid(run.train),
        "test_grid": {
            **_grid(run.test),
            "predictions": shown["first_predictions"],
            "title": f"{shown['title']}, {shown['epochs']} epochs",
        },
        "umap": _umap(run, states["simsiam"]["epochs"]),
    }
    write_json(run.folder / "result.json", gathered)
    return gathered


def _grid(source: ArraySource, count: int = 16) -> dict[str, Any]:
    """The first images' only channel as nested lists of 0..255, and their labels."""
    return {"images": source.read(slice(count))[:, 0].tolist(), "labels": source.labels[:count].tolist()}


def _curves(run: ArticleRun, rows: list[dict[str, Any]], states: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Loss against epoch, of each arm's first seed and of each pretraining."""
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
    """UMAP of SimSiam's predictions on the test images, which is what the tutorial draws."""
    kept = run.folder / "umap.json"
    title = f"UMAP of the SimSiam predictor's output on {len(run.test):,} test images, {epochs} epochs of pretraining"
    if kept.is_file():
        umap = json.loads(kept.read_text())
        if umap["title"] == title:
            return dict(umap)
    run.console.print(f"Drawing the UMAP of {len(run.test):,} test images")
    settings = PretrainSettings("simsiam", epochs, ARTICLE_METHODS["simsiam"])
    method = build_method(settings, run.test.shape[0], seed=0)
    weights = kept_folder(run.pretraining("simsiam"), epochs) / "method.safetensors"
    load_exactly(method, read_weights(weights)[0], weights)
    # The tutorial draws the predictor's output, not the backbone's features.
    points = umap_projection(outputs(nn.Sequential(method.backbone, method.get_submodule("predictor")), run.test))
    umap = {"title": title, "points": np.round(points.astype(float), 3).tolist(), "labels": run.test.labels.tolist()}
    write_json(kept, umap)
    return umap
