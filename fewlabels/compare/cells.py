"""Trials of a comparison: training on the labels of a pair, and predictions for the test images."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewlabels._internal.environment import code_digest
from fewlabels._internal.files import write_json
from fewlabels._internal.seeding import seeded
from fewlabels.audit.near_duplicates import near_duplicates
from fewlabels.backbones.architectures import make_backbone
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import save_backbone, save_classifier
from fewlabels.compare.plan import Candidate, CompareSettings, Kind, Trial
from fewlabels.data.source import ArraySource, balanced_indices, digest, fingerprint, identity
from fewlabels.features.probes import knn_curve, logistic_probe
from fewlabels.fit.cache import StageCache, cached_array
from fewlabels.fit.config import FitConfig
from fewlabels.fit.costs import measured_costs
from fewlabels.fit.data import LabeledPool, all_labels
from fewlabels.fit.learners import FineTune, FitContext, NetworkLearner, Probe, Supervised
from fewlabels.fit.pipeline import run_fit
from fewlabels.fit.schedule import CostModel
from fewlabels.ssl.pretrain import Pretraining, pretrain
from fewlabels.ssl.recipes import DEFAULT_PRESET
from fewlabels.ssl.settings import ComputeConfig, PretrainSettings
from fewlabels.training.callbacks import Observer
from fewlabels.training.pairs import Views
from fewlabels.training.precision import Precision
from fewlabels.training.run_folder import execution_file, read_execution, refusing_damage
from fewlabels.training.threads import computing_with


@dataclass(frozen=True)
class Experiment:
    """Data, settings and result folder that all trials of a comparison share.

    Results are stored under names that contain a digest of their inputs. Another comparison of the same images reuses
    results with the same inputs.
    """

    settings: CompareSettings
    train: ArraySource
    test: ArraySource
    """Trials read its images only, not its labels."""
    pretrain_views: Views
    fit_views: tuple[Views, Views]
    """Weak and strong views of labelled images."""
    folder: Path
    observer: Callable[[str], Observer]
    """Makes the observer of a training from the training's name."""
    device: torch.device = torch.device("cpu")
    precision: Precision = "32-true"

    def predictions(self, trial: Trial) -> np.ndarray:
        """Predicted classes of the test images, int64 [N]; read from the folder if the trial is done."""
        work = self.folder / "work" / self.trial_id(trial)
        if not self.is_done(trial):
            self.predictions_file(trial).unlink(missing_ok=True)
        with computing_with(self.threads()):
            predicted = cached_array(self.predictions_file(trial), lambda: self._predict(trial, work).astype(np.int64))
        shutil.rmtree(work, ignore_errors=True)
        return predicted

    def is_done(self, trial: Trial) -> bool:
        """True if all output files of a trial exist."""
        return all(file.is_file() for file in self.output_files(trial))

    def output_files(self, trial: Trial) -> list[Path]:
        """Files that a trial writes: its predictions and, for the displayed trial, the classifier."""
        network = [self.displayed_network_file] if trial == self.settings.displayed_trial else []
        return [*network, self.predictions_file(trial)]

    def predictions_file(self, trial: Trial) -> Path:
        """The file with a trial's predictions."""
        return self.folder / "trials" / f"{self.trial_id(trial)}.npy"

    def trial_id(self, trial: Trial) -> str:
        """Name of a trial's files, which contains a digest of all inputs of the trial."""
        return f"{trial.candidate.name}-{trial.labels}-{trial.pair}-{_digest_of(self._inputs(trial))}"

    @property
    def displayed_network_file(self) -> Path:
        """The file with the classifier of the displayed trial."""
        return self.folder / "trials" / f"{self.trial_id(self.settings.displayed_trial)}.safetensors"

    def initial_weights(self, init: str, pair: int) -> Path:
        """The file with a candidate's initial backbone weights, pretrained first if it does not exist.

        Args:
            init: source of the weights, as in :attr:`Candidate.init`.
            pair: number of the pair.
        """
        if init == "own":
            assert self.settings.weights is not None  # only then there are candidates with the user's weights
            return Path(self.settings.weights)
        if init == "untrained":
            channels = self.train.shape[0]
            file = self.folder / "untrained" / f"{self.settings.backbone}-{channels}-{pair}.safetensors"
            if not file.is_file():
                with seeded(pair, "untrained"):
                    backbone = make_backbone(self.settings.backbone, channels)
                save_backbone(backbone, file, self.settings.backbone)
            return file
        return self._pretrained_weights(init, pair)

    def _pretrained_weights(self, method: str, pair: int) -> Path:
        """The file with pretrained backbone weights, pretrained first if it does not exist."""
        folder = self.pretraining_folder(method, pair)
        file = folder / "backbone.safetensors"
        if not file.is_file():
            settings = self._pretrain_settings(method, self.epochs(method))
            observer = self.observer(f"{method} {pair + 1}/{self.settings.pairs}")
            engine = ComputeConfig(self.device.type, on_collapse="restart")
            probed = self.pool(Trial(self.settings.primary, min(self.settings.labels), pair))
            curve = partial(knn_curve, self.train.subset(probed.labelled))
            write_json(execution_file(folder), self._pretraining_speed(method)["engine"])
            with computing_with(self.threads()):
                pretrain(self.train, self.pretrain_views, settings, folder, pair, observer, engine, curve)
        return file

    def pretraining_folder(self, method: str, pair: int) -> Path:
        """The folder of one run of :func:`~fewlabels.ssl.pretrain.pretrain`."""
        return self.folder / "pretrained" / f"{method}-{pair}-{_digest_of(self._pretraining_inputs(method, pair))}"

    def epochs(self, method: str) -> int:
        """Epochs of each pretraining with a method: as many as fit into its time limit, by a timed trial."""
        return int(self._pretraining_speed(method)["epochs"])

    def _pretraining_speed(self, method: str) -> dict[str, Any]:
        """Epochs of each pretraining, and the engine settings (threads, memory format, ...) that a trial chose."""
        seconds = round(self.settings.seconds("pretrain"))

        def measure(work: Path) -> dict[str, Any]:
            settings = self._pretrain_settings(method, DEFAULT_PRESET.settings.epochs)
            engine, observer = ComputeConfig(self.device.type), self.observer(method)
            run = Pretraining(self.train, self.pretrain_views, settings, work, 0, observer, engine)
            return {"epochs": run.epochs_in(seconds), "engine": asdict(read_execution(work))}

        return dict(self._get_or_measure(f"{method} in {seconds} s, {self.speed_key}", measure))

    def costs(self) -> CostModel:
        """Cost model of all trainings on labels. Measured once, so that steps do not depend on where a trial runs."""

        def measure(work: Path) -> dict[str, float]:
            config = FitConfig(backbone=self.settings.backbone)
            costs = measured_costs(config, self.train.shape, self.fit_views[1], self.device, self.precision)
            return asdict(replace(costs, clock=False))

        return CostModel(**self._get_or_measure(f"costs of a fit, {self.speed_key}", measure))

    @property
    def speed_key(self) -> str:
        """What the duration of a step or an epoch depends on: backbone, images, precision and device."""
        return f"{self.settings.backbone}, {fingerprint(self.train)}, {self.precision} on {self.device.type}"

    def threads(self, default: int | None = None) -> int:
        """Threads of every training, stored by the first call: ``default``, or if None torch's current number."""
        return int(self._get_or_store("threads", lambda: default or torch.get_num_threads()))

    def _get_or_measure(self, name: str, measure: Callable[[Path], Any]) -> Any:
        """A stored measurement; measured in a temporary folder if it is not stored."""

        def measure_in_folder() -> Any:
            work = self.folder / "work" / "trial"
            with computing_with(self.threads()):
                measured = measure(work)
            shutil.rmtree(work, ignore_errors=True)
            return measured

        return self._get_or_store(name, measure_in_folder)

    @property
    def speeds_file(self) -> Path:
        """The file with all values that depend on the clock or the machine."""
        return self.folder / "speeds.json"

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the duration of the block to :meth:`elapsed_seconds`, also if the block fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            elapsed = self.elapsed_seconds() + time.perf_counter() - began
            write_json(self.speeds_file, {**self._stored_speeds(), self._elapsed_key: elapsed})

    def elapsed_seconds(self) -> float:
        """Seconds that all runs with these settings have taken in this folder."""
        return float(self._stored_speeds().get(self._elapsed_key, 0.0))

    @property
    def _elapsed_key(self) -> str:
        return f"seconds taken, {_digest_of(asdict(self.settings))}"

    def _get_or_store(self, name: str, make: Callable[[], Any]) -> Any:
        """A value of ``speeds.json``; made and stored if it is missing, so that all trials use the same value."""
        stored = self._stored_speeds()
        if name in stored:
            return stored[name]
        made = make()
        write_json(self.speeds_file, {**self._stored_speeds(), name: made})  # ``make`` may have stored values itself
        return made

    def _stored_speeds(self) -> dict[str, Any]:
        """Content of ``speeds.json``; empty if the file does not exist."""
        if not self.speeds_file.is_file():
            return {}
        with refusing_damage(self.speeds_file):
            return dict(json.loads(self.speeds_file.read_text()))

    def _pretrain_settings(self, method: str, epochs: int) -> PretrainSettings:
        return PretrainSettings(method, epochs, backbone=self.settings.backbone, precision=self.precision)

    def near_duplicates(self) -> np.ndarray:
        """For each test image the row of a training image that is its near-duplicate, -1 if none is; int64 [N]."""
        inputs = _digest_of({"train": fingerprint(self.train), "test": fingerprint(self.test)})
        file = self.folder / "trials" / f"near-duplicates-{inputs}.npy"
        return cached_array(file, lambda: near_duplicates(self.test, self.train))

    def pool(self, trial: Trial) -> LabeledPool:
        """The training images with the labels of a trial; all other images count as unlabelled."""
        rows = balanced_indices(self.train.labels, self.train.checked(trial.labels), trial.pair)
        return LabeledPool.from_source(self.train.mask_labels(rows))

    def _predict(self, trial: Trial, work: Path) -> np.ndarray:
        """Train and return the predicted classes of the test images, int64 [N]."""
        pool, kind = self.pool(trial), trial.candidate.kind
        predicted: np.ndarray
        if kind == "pixels":
            labelled, test = (
                source.read(slice(None)).flatten(1).numpy() / np.float32(255)
                for source in (self.train.subset(pool.labelled), self.test)
            )
            predicted = logistic_probe(labelled, pool.labels, trial.pair, pool.groups).estimator.predict(test)
            return predicted
        network = self._train_network(trial, pool, work)
        if trial == self.settings.displayed_trial:
            save_classifier(network, self.displayed_network_file)
        predicted = outputs(network, self.test).argmax(axis=1)
        return predicted

    def _train_network(self, trial: Trial, pool: LabeledPool, work: Path) -> Classifier:
        """The trained classifier of a trial; checkpoints are written to ``work``."""
        candidate, observer, costs = trial.candidate, self._observer_for(trial), self.costs()
        if candidate.kind == "fit":
            init = str(self.initial_weights(self.settings.methods[0], trial.pair))
            config = FitConfig("auto", self.settings.seconds("fit"), self.settings.backbone, init_from=init)
            return run_fit(pool, config, self.fit_views, work, trial.pair, observer, self.device, costs=costs).network
        config = FitConfig(backbone=self.settings.backbone)
        cache = StageCache(work / "stages", self._inputs(trial))
        context = FitContext(config, cache, costs, *self.fit_views, trial.pair, self.device, self.precision, observer)
        learner = self._learner(candidate, context, trial.pair)
        fitted = learner.fit(pool, all_labels(pool), self.time_limit(candidate.kind))
        assert fitted.network is not None  # all these learners train a network
        return fitted.network

    def _learner(self, candidate: Candidate, context: FitContext, pair: int) -> NetworkLearner:
        if candidate.kind == "supervised":
            return Supervised(context, self.settings.backbone)
        assert candidate.init is not None  # probes and fine-tuned networks have initial weights
        learner_class = Probe if candidate.kind == "probe" else FineTune
        return learner_class(context, self.settings.backbone, self.initial_weights(candidate.init, pair))

    def time_limit(self, kind: Kind) -> float:
        """Seconds of one training. Supervised training gets the time of a pretraining and a fine-tuning together."""
        if kind == "supervised":
            return self.settings.seconds("pretrain") + self.settings.seconds("finetune")
        return self.settings.seconds(kind)

    def _observer_for(self, trial: Trial) -> Callable[[str], Observer]:
        return lambda name: self.observer(
            f"{trial.candidate.name} {trial.labels:,} {trial.pair + 1}/{self.settings.pairs}: {name}"
        )

    def _inputs(self, trial: Trial) -> dict[str, Any]:
        """Everything that a trial's predictions depend on."""
        candidate = trial.candidate
        inputs: dict[str, Any] = {"candidate": asdict(candidate), "labels": trial.labels, "pair": trial.pair}
        inputs |= {"code": code_digest("compare"), "train": identity(self.train), "test": fingerprint(self.test)}
        inputs["precision"] = self.precision
        inputs |= {"backbone": self.settings.backbone, "views": [str(view) for view in self.fit_views]}
        inputs |= {
            "seconds": round(self.time_limit(candidate.kind)),
            "costs": asdict(self.costs()),
            "threads": self.threads(),
        }
        if candidate.init == "own":
            inputs["weights"] = digest(self.initial_weights("own", 0).read_bytes())
        method = self.settings.pretraining_of(candidate)
        if method is not None:
            inputs["pretrained"] = self._pretraining_inputs(method, trial.pair)
        return inputs

    def _pretraining_inputs(self, method: str, pair: int) -> dict[str, Any]:
        """Everything that the result of a pretraining depends on, except the code."""
        speed = self._pretraining_speed(method)
        inputs = {"method": method, **speed, "backbone": self.settings.backbone, "pair": pair}
        inputs |= {"threads": self.threads(), "data": fingerprint(self.train), "views": str(self.pretrain_views)}
        return inputs | {"precision": self.precision}


def _digest_of(inputs: dict[str, Any]) -> str:
    """A digest of inputs that can be written as JSON."""
    return digest(json.dumps(inputs, sort_keys=True).encode())
