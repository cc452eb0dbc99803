"""One cell of a comparison: from a pair's labels to predictions for the test images, whose labels are not read."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewlabels import __version__
from fewlabels.compare.plan import Arm, Cell, CompareSettings
from fewlabels.data.source import ArraySource, balanced_indices, digest, fingerprint
from fewlabels.engine.pairs import Views
from fewlabels.engine.precision import Precision
from fewlabels.engine.settings import Engine, PretrainSettings
from fewlabels.evaluate import outputs
from fewlabels.files import write_json
from fewlabels.fit.arms import FineTune, Lab, Probe, Supervised
from fewlabels.fit.fit import Fit, FitSettings
from fewlabels.fit.pool import Pool
from fewlabels.fit.probe import logistic_probe
from fewlabels.fit.stages import Stages, kept_array
from fewlabels.models.backbones import make_backbone
from fewlabels.models.classifier import Classifier
from fewlabels.models.weights import save_backbone
from fewlabels.observe import Observer
from fewlabels.presets import DEFAULT
from fewlabels.pretrain import epochs_in, pretrain
from fewlabels.seeding import seeded


@dataclass(frozen=True)
class Bench:
    """What all cells of a comparison work with.

    What is done is kept by the content that decided it, so that another comparison of the same images takes it over.
    """

    settings: CompareSettings
    train: ArraySource
    test: ArraySource
    """Its labels are not read here."""
    pretrain_views: Views
    fit_views: tuple[Views, Views]
    """Weak and strong."""
    folder: Path
    observer: Callable[[str], Observer]
    device: torch.device = torch.device("cpu")
    precision: Precision = "32-true"

    def predictions(self, cell: Cell) -> np.ndarray:
        """Classes of the test images, int64 [N]; read back if they are there."""
        decided = self._decided(cell)
        name = f"{cell.arm.name}-{cell.labels}-{cell.pair}-{_digest_of(decided)}"
        work = self.folder / "work" / name
        found = kept_array(
            self.folder / "cells" / f"{name}.npy", lambda: self._predicted(cell, work, decided).astype(np.int64)
        )
        shutil.rmtree(work, ignore_errors=True)
        return found

    def weights(self, start: str, pair: int) -> Path:
        """The backbone that an arm begins with."""
        if start == "own":
            assert self.settings.weights is not None  # else there is no such arm
            return Path(self.settings.weights)
        if start == "untrained":
            file = self.folder / "untrained" / f"{self.settings.backbone}-{pair}.safetensors"
            if not file.is_file():
                with seeded(pair, "untrained"):
                    backbone = make_backbone(self.settings.backbone, self.train.shape[0])
                save_backbone(backbone, file, self.settings.backbone)
            return file
        return self._pretrained(start, pair)

    def _pretrained(self, method: str, pair: int) -> Path:
        folder = self.folder / "pretrained" / f"{method}-{pair}-{_digest_of(self._decided_of(method, pair))}"
        file = folder / "backbone.safetensors"
        if not file.is_file():
            settings = self._pretraining(method, self.epochs(method))
            observer = self.observer(f"{method} {pair + 1}/{self.settings.pairs}")
            engine = Engine(self.device.type, on_collapse="restart")
            pretrain(self.train, self.pretrain_views, settings, folder, pair, observer, engine)
        return file

    def epochs(self, method: str) -> int:
        """Of each pretraining: as many as fit into its time, by a trial that is made once."""
        file = self.folder / "pretrained" / f"{method}-epochs.json"
        seconds = round(self.settings.seconds("pretrain"))
        known = dict(json.loads(file.read_text())) if file.is_file() else {}
        if str(seconds) not in known:
            trial = self.folder / "work" / f"{method}-trial"
            tried = self._pretraining(method, DEFAULT.settings.epochs)
            engine, observer = Engine(self.device.type), self.observer(method)
            known[str(seconds)] = epochs_in(seconds, self.train, self.pretrain_views, tried, trial, 0, observer, engine)
            write_json(file, known)
            shutil.rmtree(trial, ignore_errors=True)
        return int(known[str(seconds)])

    def _pretraining(self, method: str, epochs: int) -> PretrainSettings:
        return PretrainSettings(method, epochs, backbone=self.settings.backbone, precision=self.precision)

    def pool(self, cell: Cell) -> Pool:
        """The training images with the labels of a cell."""
        rows = balanced_indices(self.train.labels, self.train.checked(cell.labels), cell.pair)
        return Pool.of(self.train.hiding_all_but(rows))

    def _predicted(self, cell: Cell, work: Path, decided: dict[str, Any]) -> np.ndarray:
        pool, kind = self.pool(cell), cell.arm.kind
        named: np.ndarray
        if kind == "pixels":
            labelled, test = (
                source.read(slice(None)).flatten(1).numpy() / np.float32(255)
                for source in (self.train.subset(pool.labelled), self.test)
            )
            named = logistic_probe(labelled, pool.labels, cell.pair).estimator.predict(test)
            return named
        named = outputs(self._trained(cell, pool, work, decided), self.test).argmax(axis=1)
        return named

    def _trained(self, cell: Cell, pool: Pool, work: Path, decided: dict[str, Any]) -> Classifier:
        observer = self._watch(cell)
        if cell.arm.kind == "selftrain":
            start = str(self.weights(self.settings.methods[0], cell.pair))
            settings = FitSettings(
                "selftrain", self.settings.seconds("selftrain"), self.settings.backbone, start_from=start
            )
            return Fit(pool, settings, self.fit_views, work, cell.pair, observer, self.device).go().network
        stages = Stages(work, decided, observer, self.device)
        lab = Lab(stages, *self.fit_views, cell.pair, self.device, self.precision)
        return self._network_arm(cell.arm, lab, cell.pair).train(pool, "final", self._seconds(cell.arm))

    def _network_arm(self, arm: Arm, lab: Lab, pair: int) -> Supervised | Probe | FineTune:
        if arm.kind == "supervised":
            return Supervised(lab, self.settings.backbone)
        assert arm.start is not None  # probe and finetune have one
        of_kind = Probe if arm.kind == "probe" else FineTune
        return of_kind(lab, self.settings.backbone, self.weights(arm.start, pair))

    def _seconds(self, arm: Arm) -> float:
        if arm.kind == "supervised":
            return self.settings.seconds("pretrain") + self.settings.seconds("finetune")
        return self.settings.seconds(arm.kind)

    def _watch(self, cell: Cell) -> Callable[[str], Observer]:
        return lambda name: self.observer(
            f"{cell.arm.name} {cell.labels:,} {cell.pair + 1}/{self.settings.pairs}: {name}"
        )

    def _decided(self, cell: Cell) -> dict[str, Any]:
        """All that decides a cell's predictions."""
        about: dict[str, Any] = {"arm": asdict(cell.arm), "labels": cell.labels, "pair": cell.pair}
        about |= {"version": __version__, "data": fingerprint(self.train), "test": fingerprint(self.test)}
        about |= {"given": digest(self.train.labels.tobytes()), "precision": self.precision}
        about |= {"backbone": self.settings.backbone, "views": [str(view) for view in self.fit_views]}
        about |= {"seconds": round(self._seconds(cell.arm))}
        start = self.settings.methods[0] if cell.arm.kind == "selftrain" else cell.arm.start
        if start == "own":
            about["weights"] = digest(self.weights("own", 0).read_bytes())
        elif start not in (None, "untrained"):
            about["pretrained"] = self._decided_of(str(start), cell.pair)
        return about

    def _decided_of(self, method: str, pair: int) -> dict[str, Any]:
        about = {"method": method, "epochs": self.epochs(method), "backbone": self.settings.backbone, "pair": pair}
        return about | {"data": fingerprint(self.train), "views": str(self.pretrain_views), "precision": self.precision}


def _digest_of(decided: dict[str, Any]) -> str:
    return digest(json.dumps(decided, sort_keys=True).encode())
