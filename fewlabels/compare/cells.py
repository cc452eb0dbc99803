"""One cell of a comparison: from a pair's labels to predictions for the test images, whose labels are not read."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewlabels import __version__
from fewlabels._internal.files import write_json
from fewlabels._internal.seeding import seeded
from fewlabels.audit.near_duplicates import twins
from fewlabels.backbones.architectures import make_backbone
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import save_backbone, save_classifier
from fewlabels.compare.plan import Arm, Cell, CompareSettings, Kind
from fewlabels.data.source import ArraySource, balanced_indices, digest, fingerprint, identity
from fewlabels.features.probes import knn_curve, logistic_probe
from fewlabels.fit.arms import FineTune, Lab, NetworkArm, Probe, Supervised
from fewlabels.fit.fit import Fit
from fewlabels.fit.paces import measured_paces
from fewlabels.fit.pool import Pool
from fewlabels.fit.settings import FitSettings
from fewlabels.fit.stages import Stages, kept_array
from fewlabels.ssl.pretrain import Pretraining, pretrain
from fewlabels.ssl.recipes import DEFAULT
from fewlabels.ssl.settings import Engine, PretrainSettings
from fewlabels.training.callbacks import Observer
from fewlabels.training.pairs import Views
from fewlabels.training.precision import Precision
from fewlabels.training.run_folder import engine_file, read_choice, refusing_damage
from fewlabels.training.threads import computing_with


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
        work = self.folder / "work" / self.name(cell)
        if not self.is_done(cell):
            self.file(cell).unlink(missing_ok=True)
        with computing_with(self.threads()):
            found = kept_array(self.file(cell), lambda: self._predicted(cell, work).astype(np.int64))
        shutil.rmtree(work, ignore_errors=True)
        return found

    def is_done(self, cell: Cell) -> bool:
        """Whether there is nothing left to train."""
        return all(file.is_file() for file in self.files(cell))

    def files(self, cell: Cell) -> list[Path]:
        """What it leaves: predictions, and the classifier of the one that is shown."""
        return [*([self.network_file] if cell == self.settings.shown else []), self.file(cell)]

    def file(self, cell: Cell) -> Path:
        """Of its predictions."""
        return self.folder / "cells" / f"{self.name(cell)}.npy"

    def name(self, cell: Cell) -> str:
        """Of a cell's files: another one if anything that decides it is another."""
        return f"{cell.arm.name}-{cell.labels}-{cell.pair}-{_digest_of(self._decided(cell))}"

    @property
    def network_file(self) -> Path:
        """The classifier of the cell that the pictures show."""
        return self.folder / "cells" / f"{self.name(self.settings.shown)}.safetensors"

    def weights(self, start: str, pair: int) -> Path:
        """The backbone that an arm begins with."""
        if start == "own":
            assert self.settings.weights is not None  # else there is no such arm
            return Path(self.settings.weights)
        if start == "untrained":
            channels = self.train.shape[0]
            file = self.folder / "untrained" / f"{self.settings.backbone}-{channels}-{pair}.safetensors"
            if not file.is_file():
                with seeded(pair, "untrained"):
                    backbone = make_backbone(self.settings.backbone, channels)
                save_backbone(backbone, file, self.settings.backbone)
            return file
        return self._pretrained(start, pair)

    def _pretrained(self, method: str, pair: int) -> Path:
        folder = self.pretraining_folder(method, pair)
        file = folder / "backbone.safetensors"
        if not file.is_file():
            settings = self._pretraining(method, self.epochs(method))
            observer = self.observer(f"{method} {pair + 1}/{self.settings.pairs}")
            engine = Engine(self.device.type, on_collapse="restart")
            watched = self.pool(Cell(self.settings.asked, min(self.settings.labels), pair))
            curve = partial(knn_curve, self.train.subset(watched.labelled))
            write_json(engine_file(folder), self._speed(method)["engine"])
            with computing_with(self.threads()):
                pretrain(self.train, self.pretrain_views, settings, folder, pair, observer, engine, curve)
        return file

    def pretraining_folder(self, method: str, pair: int) -> Path:
        """Of a run of :func:`~fewlabels.ssl.pretrain.pretrain`."""
        return self.folder / "pretrained" / f"{method}-{pair}-{_digest_of(self._decided_of(method, pair))}"

    def epochs(self, method: str) -> int:
        """Of each pretraining: as many as fit into its time."""
        return int(self._speed(method)["epochs"])

    def _speed(self, method: str) -> dict[str, Any]:
        """Epochs of each pretraining, and how its steps are computed."""
        seconds = round(self.settings.seconds("pretrain"))

        def tried(work: Path) -> dict[str, Any]:
            about = self._pretraining(method, DEFAULT.settings.epochs)
            engine, observer = Engine(self.device.type), self.observer(method)
            run = Pretraining(self.train, self.pretrain_views, about, work, 0, observer, engine)
            return {"epochs": run.epochs_in(seconds), "engine": asdict(read_choice(work))}

        return dict(self._measured(f"{method} in {seconds} s, {self.computed}", tried))

    def paces(self) -> dict[str, float]:
        """What the steps of a fit are counted with, as :mod:`fewlabels.fit.paces` has it."""

        def tried(work: Path) -> dict[str, float]:
            pool = self.pool(Cell(self.settings.asked, min(self.settings.labels), 0))
            lab = Lab(Stages(work, {}, self.observer, self.device), *self.fit_views, 0, self.device, self.precision)
            return measured_paces(lab, pool, self.settings.backbone, FitSettings().teacher)

        return dict(self._measured(f"paces of a fit, {self.computed}", tried))

    @property
    def computed(self) -> str:
        """What the time of a step, or of an epoch, depends on."""
        return f"{self.settings.backbone}, {fingerprint(self.train)}, {self.precision} on {self.device.type}"

    def threads(self, unless_noted: int | None = None) -> int:
        """That every training computes with; as many as torch takes when this is first asked."""
        return int(self._noted("threads", lambda: unless_noted or torch.get_num_threads()))

    def _measured(self, name: str, measure: Callable[[Path], Any]) -> Any:
        """What a trial gives."""

        def tried() -> Any:
            work = self.folder / "work" / "trial"
            with computing_with(self.threads()):
                found = measure(work)
            shutil.rmtree(work, ignore_errors=True)
            return found

        return self._noted(name, tried)

    @property
    def notes_file(self) -> Path:
        """Of what depends on clock and machine."""
        return self.folder / "speeds.json"

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time inside the block to :meth:`seconds`, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            write_json(self.notes_file, {**self._notes(), self._clock: self.seconds() + time.perf_counter() - began})

    def seconds(self) -> float:
        """That comparisons with these settings have taken here, all starts together."""
        return float(self._notes().get(self._clock, 0.0))

    @property
    def _clock(self) -> str:
        return f"seconds taken, {_digest_of(asdict(self.settings))}"

    def _noted(self, name: str, make: Callable[[], Any]) -> Any:
        """Made once: later cells, wherever they run, are then the same, whatever a clock says."""
        known = self._notes()
        if name in known:
            return known[name]
        made = make()
        write_json(self.notes_file, {**self._notes(), name: made})  # what was made may have noted something itself
        return made

    def _notes(self) -> dict[str, Any]:
        if not self.notes_file.is_file():
            return {}
        with refusing_damage(self.notes_file):
            return dict(json.loads(self.notes_file.read_text()))

    def _pretraining(self, method: str, epochs: int) -> PretrainSettings:
        return PretrainSettings(method, epochs, backbone=self.settings.backbone, precision=self.precision)

    def twins(self) -> np.ndarray:
        """For each test image the row of a training image that it is a twin of, or -1; int64 [N]."""
        made_of = _digest_of({"train": fingerprint(self.train), "test": fingerprint(self.test)})
        return kept_array(self.folder / "cells" / f"twins-{made_of}.npy", lambda: twins(self.test, self.train))

    def pool(self, cell: Cell) -> Pool:
        """The training images with the labels of a cell."""
        rows = balanced_indices(self.train.labels, self.train.checked(cell.labels), cell.pair)
        return Pool.of(self.train.hiding_all_but(rows))

    def _predicted(self, cell: Cell, work: Path) -> np.ndarray:
        pool, kind = self.pool(cell), cell.arm.kind
        named: np.ndarray
        if kind == "pixels":
            labelled, test = (
                source.read(slice(None)).flatten(1).numpy() / np.float32(255)
                for source in (self.train.subset(pool.labelled), self.test)
            )
            named = logistic_probe(labelled, pool.labels, cell.pair, pool.groups).estimator.predict(test)
            return named
        network = self._trained(cell, pool, work)
        if cell == self.settings.shown:
            save_classifier(network, self.network_file)
        named = outputs(network, self.test).argmax(axis=1)
        return named

    def _trained(self, cell: Cell, pool: Pool, work: Path) -> Classifier:
        observer = self._watch(cell)
        if cell.arm.kind == "fit":
            start = str(self.weights(self.settings.methods[0], cell.pair))
            settings = FitSettings("auto", self.settings.seconds("fit"), self.settings.backbone, start_from=start)
            fit = Fit(pool, settings, self.fit_views, work, cell.pair, observer, self.device, paces=self.paces())
            return fit.go().network
        stages = Stages(work, self._decided(cell), observer, self.device, self.paces())
        lab = Lab(stages, *self.fit_views, cell.pair, self.device, self.precision)
        return self._network_arm(cell.arm, lab, cell.pair).train(pool, "final", self.seconds_of(cell.arm.kind))

    def _network_arm(self, arm: Arm, lab: Lab, pair: int) -> NetworkArm:
        if arm.kind == "supervised":
            return Supervised(lab, self.settings.backbone)
        assert arm.start is not None  # probe and finetune have one
        of_kind = Probe if arm.kind == "probe" else FineTune
        return of_kind(lab, self.settings.backbone, self.weights(arm.start, pair))

    def seconds_of(self, kind: Kind) -> float:
        """What a training may take; a supervised one as long as a pretrained one together with its pretraining."""
        if kind == "supervised":
            return self.settings.seconds("pretrain") + self.settings.seconds("finetune")
        return self.settings.seconds(kind)

    def _watch(self, cell: Cell) -> Callable[[str], Observer]:
        return lambda name: self.observer(
            f"{cell.arm.name} {cell.labels:,} {cell.pair + 1}/{self.settings.pairs}: {name}"
        )

    def _decided(self, cell: Cell) -> dict[str, Any]:
        """All that decides a cell's predictions."""
        about: dict[str, Any] = {"arm": asdict(cell.arm), "labels": cell.labels, "pair": cell.pair}
        about |= {"version": __version__, "given": identity(self.train), "test": fingerprint(self.test)}
        about["precision"] = self.precision
        about |= {"backbone": self.settings.backbone, "views": [str(view) for view in self.fit_views]}
        about |= {"seconds": round(self.seconds_of(cell.arm.kind)), "paces": self.paces(), "threads": self.threads()}
        if cell.arm.start == "own":
            about["weights"] = digest(self.weights("own", 0).read_bytes())
        method = self.settings.pretraining_of(cell.arm)
        if method is not None:
            about["pretrained"] = self._decided_of(method, cell.pair)
        return about

    def _decided_of(self, method: str, pair: int) -> dict[str, Any]:
        about = {"method": method, **self._speed(method), "backbone": self.settings.backbone, "pair": pair}
        about["threads"] = self.threads()
        return about | {"data": fingerprint(self.train), "views": str(self.pretrain_views), "precision": self.precision}


def _digest_of(decided: dict[str, Any]) -> str:
    return digest(json.dumps(decided, sort_keys=True).encode())
