"""Run the tutorial's arms and keep all that it shows, going on where an earlier start stopped."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from fewlabels.article.arms import Arm, ArticlePlan, train_arm
from fewlabels.data.source import ArraySource
from fewlabels.evaluate import evaluate
from fewlabels.files import write_json
from fewlabels.models.weights import save_classifier
from fewlabels.observe import Logger, Observer
from fewlabels.pretrain import PretrainSettings, pretrain
from fewlabels.views.randaugment import randaugment


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
        """Every arm and seed in turn, cheap arms first; ``on_row`` sees each as soon as it is measured."""
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
            row = json.loads(kept.read_text())
            if row["decided"] == decided and (self.folder / "weights" / f"{name}.safetensors").is_file():
                return row
        backbone_file = self.backbone_file(arm)
        labelled = self.train.first_k(arm.labels)
        observer = Observer(name, self.logger, self.console)
        model = train_arm(arm, labelled, backbone_file, seed, observer, self.device)
        save_classifier(model, self.folder / "weights" / f"{name}.safetensors")
        result = evaluate(model, self.test)
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
        pretraining = self.pretraining(arm.pretrained_by)
        weights = pretraining / f"epoch-{epochs}" / "backbone.safetensors"
        if not weights.is_file():
            settings = PretrainSettings(arm.pretrained_by, epochs, checkpoint_every=10)
            observer = Observer(f"{arm.pretrained_by}-pretraining", self.logger, self.console)
            # The tutorial pretrains once; all seeds of the head share it.
            views = partial(randaugment, num_ops=5)
            pretrain(self.train, views, settings, pretraining, 0, observer, self.device)
        return weights

    def pretraining(self, method: str) -> Path:
        """The folder of a method's checkpoints."""
        return self.folder / "pretraining" / method

    def pretraining_state(self, method: str) -> dict[str, Any]:
        """Loss curve and seconds of the longest pretraining with this method."""
        longest = max(self.pretraining(method).glob("epoch-*"), key=lambda path: int(path.name.removeprefix("epoch-")))
        state = json.loads((longest / "state.json").read_text())
        return {"epochs": int(longest.name.removeprefix("epoch-")), **state}


def grid_images(source: ArraySource, count: int = 16) -> list[list[list[int]]]:
    """The first images' only channel, as nested lists of 0..255."""
    return np.asarray(source.read(slice(count)))[:, 0].tolist()
