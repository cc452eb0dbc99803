"""Automatic selection of method, learning rate and view recipe by short trials (``--method auto``)."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_bytes, write_json
from fewlabels._internal.tensors import load_exactly, read_weights
from fewlabels.augment.recipes import RECIPES
from fewlabels.backbones.inference import outputs
from fewlabels.data.order import steps_per_epoch
from fewlabels.data.source import ArraySource, ImageSource, fingerprint
from fewlabels.features.probes import cv_splits, logistic_probe
from fewlabels.ssl.methods import METHODS, Method
from fewlabels.ssl.pretrain import Collapsed, pretrain
from fewlabels.ssl.recipes import DEFAULT_PRESET
from fewlabels.ssl.scores import ROTATION, label_free_scores
from fewlabels.ssl.settings import ComputeConfig, PretrainSettings
from fewlabels.training import run_folder
from fewlabels.training.callbacks import Observer
from fewlabels.training.pairs import Views

K = TypeVar("K")

TRIAL_STEPS = 240
"""Steps of a trial: whole epochs, or part of one where an epoch has more steps. Not tuned."""
LR_FACTORS = (1 / 3, 3.0)
"""Factors of the method's default learning rate that are tried. Not tuned."""
SELECTION_SCORE = ROTATION
"""Score that selects within a method: the best one of benchmarks/results/scores.json."""
MIN_IMPROVEMENT = 0.01
"""Gain in score that replaces the default: one or two standard errors of an accuracy on 1,024 images."""
MIN_USABLE_SCORE = 0.6
"""Score below which the default stays: images may have no upright orientation, as cells or aerial images. Not tuned."""
MAY_COLLAPSE = ("simsiam", "byol")
"""Methods whose loss does not prevent a complete collapse."""


@dataclass(frozen=True)
class Trial:
    """A short training run and its result. Field names are keys of saved JSON."""

    method: str
    rate: float
    """Factor of the method's default learning rate."""
    views: str
    """Name of the view recipe."""
    score: float | None
    """``SELECTION_SCORE``; None: the run collapsed."""
    cv_macro_f1: float | None
    """Cross-validated macro-F1 of a linear probe; None: the run collapsed, or there are no labels."""
    verdict: str | None
    """Verdict of the collapse monitor; None: no collapse."""
    seconds: float

    @property
    def name(self) -> str:
        """Name of the trial's folder."""
        return f"{self.method}-{self.rate:.2g}-{self.views}"


@dataclass(frozen=True)
class Selection:
    """The selected method, learning rate and views, with reasons. Field names are keys of saved JSON."""

    method: str
    lr: float | None
    """Peak learning rate; None: the method's default."""
    views: str
    """Name of the view recipe."""
    reasons: list[str]
    fallback: str | None
    """Method that is trained if the selected one collapses; None: there is none."""


def selection_score(method: Method, source: ImageSource, views: Views, seed: int) -> float:
    """The label-free score that selects within a method; higher is better."""
    return label_free_scores(method, source, views, seed, (SELECTION_SCORE,))[SELECTION_SCORE]


def _usable_labels(labelled: ArraySource, seed: int) -> ArraySource | None:
    """The images of classes with two or more labels; None if cross-validation cannot hold any out."""
    classes = np.flatnonzero(np.bincount(labelled.labels) >= 2)
    usable = labelled.subset(np.flatnonzero(np.isin(labelled.labels, classes)))
    return usable if len(classes) >= 2 and cv_splits(usable.labels, seed, usable.groups) else None


def best_or_default(default: K, scores: dict[K, float]) -> K:
    """The key of the best score if the score is usable and clearly above the default's, else the default.

    >>> best_or_default("a", {"a": 0.9, "b": 0.905}), best_or_default("a", {"a": 0.8, "b": 0.9})
    ('a', 'b')
    """
    best = max(scores, key=lambda key: scores[key])
    return best if scores[best] >= max(MIN_USABLE_SCORE, scores[default] + MIN_IMPROVEMENT) else default


class AutoPretraining:
    """Selection by trials and the pretraining run that follows, on one data set.

    Trials and reasons are saved in ``folder/choice.json``, from which a stopped selection resumes.

    Args:
        source: all images.
        labelled: the labelled images. None: the method is the default one; only learning rate and recipe are selected.
        settings: of the run; its method and learning rate are ignored.
        recipes: names of view recipes that fit the images, the default one first.
        folder: of the run.
        seed: of trials and run.
        observer: shows the progress of trials and run.
        compute: how trials and run are computed.

    Raises:
        InputError: if the folder has a selection with other settings.
    """

    def __init__(
        self,
        source: ImageSource,
        labelled: ArraySource | None,
        settings: PretrainSettings,
        recipes: tuple[str, ...],
        folder: Path,
        seed: int,
        observer: Observer,
        compute: ComputeConfig,
    ) -> None:
        self.source, self.settings, self.recipes = source, settings, recipes
        self.labelled = None if labelled is None else _usable_labels(labelled, seed)
        self.folder, self.seed, self.observer, self.compute = folder, seed, observer, compute
        self.file = run_folder.selection_file(folder)
        about = {"data": fingerprint(source), "labels": len(self.labelled or ()), "recipes": recipes, "seed": seed}
        self.run_config = {**asdict(settings), **about}
        self.trials: list[Trial] = []
        self.chosen: Selection | None = None
        self._read()

    def run(self) -> tuple[PretrainSettings, str]:
        """Select by trials, train, and save the weights of the best quarter of the run.

        If the selected method collapses, its run is moved to ``collapsed-METHOD``. Then the best method that cannot
        collapse completely is trained.

        Returns:
            The selected settings, and the name of the selected view recipe.

        Raises:
            InputError: if every trial collapses.
            Collapsed: if the run collapses and there is no other method.
        """
        chosen = self.select()
        for reason in chosen.reasons:
            self.observer.say(reason)
        try:
            method = self._train(chosen)
        except Collapsed as stop:
            if chosen.fallback is None:
                raise
            why = f"{chosen.method} collapsed; training {chosen.fallback} instead: {stop.verdict}"
            self.observer.say(why)
            run_folder.set_aside(self.folder, f"collapsed-{chosen.method}")
            chosen = self.save(Selection(chosen.fallback, None, chosen.views, [*chosen.reasons, why], None))
            method = self._train(chosen)
        why = self._save_best_quarter(method, chosen.views)
        self.observer.say(why)
        if why not in chosen.reasons:  # an earlier start may have added it
            self.save(replace(chosen, reasons=[*chosen.reasons, why]))
        return self._run_settings(chosen), chosen.views

    @property
    def _quarter_epochs(self) -> tuple[int, ...]:
        """The epochs at the end of each quarter of the run."""
        return tuple(sorted({max(1, round(self.settings.epochs * part)) for part in (0.25, 0.5, 0.75, 1.0)}))

    def _run_settings(self, chosen: Selection) -> PretrainSettings:
        epochs = self._quarter_epochs
        return replace(self.settings, method=chosen.method, method_settings=None, lr=chosen.lr, keep_epochs=epochs)

    def _train(self, chosen: Selection) -> Method:
        self.observer.name = chosen.method
        views, settings = RECIPES[chosen.views], self._run_settings(chosen)
        return pretrain(self.source, views, settings, self.folder, self.seed, self.observer, self.compute)

    def _save_best_quarter(self, method: Method, views: str) -> str:
        """Save the backbone of the last quarter, or of an earlier one with a better score; returns the reason."""
        scores = {}
        for epoch in self._quarter_epochs:
            folder = run_folder.epoch_folder(self.folder, epoch)
            load_exactly(method, read_weights(folder / "method.safetensors")[0], folder)
            # With a running average, the backbone's file differs from the method's.
            load_exactly(method.backbone, read_weights(folder / "backbone.safetensors")[0], folder)
            scores[epoch] = selection_score(method, self.source, RECIPES[views], self.seed)
        best = best_or_default(self._quarter_epochs[-1], scores)
        backbone = run_folder.epoch_folder(self.folder, best) / "backbone.safetensors"
        write_bytes(self.folder / backbone.name, backbone.read_bytes())
        each = ", ".join(f"{epoch}: {score:.4g}" for epoch, score in scores.items())
        rule = f"the last unless another is {MIN_IMPROVEMENT} better"
        return f"weights after epoch {best}, by {SELECTION_SCORE} ({each}; {rule})"

    def select(self) -> Selection:
        """Select the method by a probe on the labels, then its learning rate and recipe by the label-free score.

        Raises:
            InputError: if every trial collapses.
        """
        if self.chosen is not None:
            return self.chosen
        methods = tuple(METHODS) if self.labelled is not None else (DEFAULT_PRESET.settings.method,)
        first = [self.run_trial(method, 1.0, self.recipes[0]) for method in methods]
        healthy = sorted((trial for trial in first if trial.verdict is None), key=lambda t: -(t.cv_macro_f1 or 0))
        if not healthy:
            raise InputError(f"--method auto: every trial collapsed. The first: {first[0].verdict}")
        best = healthy[0]
        reasons = [self._method_reason(best, first)]
        rates = [best, *(self.run_trial(best.method, rate, best.views) for rate in LR_FACTORS)]
        best = self._best_trial(rates)
        reasons.append(self._reason(best, rates, "rate", lambda t: f"{t.rate:.2g} times the default"))
        views = [best, *(self.run_trial(best.method, best.rate, recipe) for recipe in self.recipes[1:])]
        best = self._best_trial(views)
        reasons.append(self._reason(best, views, "views", lambda t: t.views))
        fallback = next((t.method for t in healthy if t.method not in (best.method, *MAY_COLLAPSE)), None)
        lr = best.rate * METHODS[best.method].settings.optimizer.lr
        return self.save(Selection(best.method, lr, best.views, reasons, fallback))

    def save(self, chosen: Selection) -> Selection:
        """Write the selection to the folder; returns it."""
        self.chosen = chosen
        self._write()
        return chosen

    def run_trial(self, method: str, rate: float, views: str) -> Trial:
        """Do a short training run; if an earlier start has done it, return its result."""
        for done in self.trials:
            if (done.method, done.rate, done.views) == (method, rate, views):
                return done
        settings = replace(self.settings, method=method, method_settings=None, lr=None, ema=0.0, keep_epochs=())
        lr = rate * settings.of_method.optimizer.lr
        batch = settings.batch_size or settings.of_method.batch_size
        epochs = max(1, round(TRIAL_STEPS / max(1, steps_per_epoch(len(self.source), batch, True))))
        settings = replace(settings, lr=lr, epochs=epochs, warmup_epochs=0, max_steps=TRIAL_STEPS)
        planned = Trial(method, rate, views, None, None, None, 0.0)
        watch = Observer(f"trial: {method}", None, self.observer.console)
        folder, compute = self.folder / "trials" / planned.name, replace(self.compute, on_collapse="stop")
        try:
            trained = pretrain(self.source, RECIPES[views], settings, folder, self.seed, watch, compute)
        except Collapsed as stop:
            return self._add(replace(planned, verdict=str(stop.verdict), seconds=watch.seconds_so_far()))
        score = selection_score(trained, self.source, RECIPES[views], self.seed)
        cv = None
        if self.labelled is not None:
            features, labelled = outputs(trained.backbone, self.labelled), self.labelled
            cv = logistic_probe(features, labelled.labels, self.seed, labelled.groups).cv_macro_f1
        return self._add(replace(planned, score=score, cv_macro_f1=cv, seconds=watch.seconds))

    def _add(self, trial: Trial) -> Trial:
        self.trials.append(trial)
        self._write()
        figures = trial.verdict or f"{SELECTION_SCORE} {trial.score:.4g}"
        if trial.cv_macro_f1 is not None:
            figures += f", macro-F1 {trial.cv_macro_f1:.3f} by cross-validation"
        self.observer.say(f"{trial.name}: {figures}")
        return trial

    def _best_trial(self, trials: list[Trial]) -> Trial:
        """The best trial; the first one is the default."""
        return best_or_default(trials[0], {trial: trial.score for trial in trials if trial.score is not None})

    def _method_reason(self, best: Trial, trials: list[Trial]) -> str:
        if best.cv_macro_f1 is None:
            needed = "cross-validation needs two classes that it can hold out"
            return f"method {best.method}: the default, as there are no labels to compare methods with ({needed})"
        others = ", ".join(
            f"{t.method} {'collapsed' if t.cv_macro_f1 is None else f'{t.cv_macro_f1:.3f}'}"
            for t in trials
            if t != best
        )
        return (
            f"method {best.method}: macro-F1 {best.cv_macro_f1:.3f} by cross-validation on {len(self.labelled or ())} "
            f"labels; {others}"
        )

    @staticmethod
    def _reason(best: Trial, trials: list[Trial], what: str, show: Any) -> str:
        each = ", ".join(f"{show(t)}: {'collapsed' if t.score is None else f'{t.score:.4g}'}" for t in trials)
        default = f"; the default unless another is {MIN_IMPROVEMENT} better" if best == trials[0] else ""
        return f"{what} {show(best)}, by {SELECTION_SCORE} ({each}{default})"

    def _read(self) -> None:
        if not self.file.is_file():
            return
        with run_folder.refusing_damage(self.file):
            found = json.loads(self.file.read_text())
            before = found["decided"]
            self.trials = [Trial(**row) for row in found["trials"]]
            self.chosen = Selection(**found["chosen"]) if found["chosen"] else None
        run_folder.refuse_others(f"{self.file}: a choice", before, self.run_config)

    def _write(self) -> None:
        trials, chosen = [asdict(trial) for trial in self.trials], asdict(self.chosen) if self.chosen else None
        write_json(self.file, {"decided": self.run_config, "trials": trials, "chosen": chosen})
