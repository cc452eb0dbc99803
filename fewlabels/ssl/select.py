"""``--method auto``: short trials choose method, learning rate and recipe, and say why."""

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
from fewlabels.features.probes import logistic_probe, splits_of
from fewlabels.ssl.methods import METHODS, Method
from fewlabels.ssl.pretrain import Collapsed, pretrain
from fewlabels.ssl.recipes import DEFAULT
from fewlabels.ssl.scores import ROTATION, label_free_scores
from fewlabels.ssl.settings import Engine, PretrainSettings
from fewlabels.training import run_folder
from fewlabels.training.callbacks import Observer
from fewlabels.training.pairs import Views

K = TypeVar("K")

TRIAL_STEPS = 240
RATES = (1 / 3, 3.0)
"""Of the method's own rate, to be tried beside it."""
SCORE = ROTATION
"""What chooses within a method: the best of benchmarks/results/scores.json."""
MARGIN = 0.01
"""What is usual is kept unless another scores so much better: one or two standard errors of 1,024 answers."""
TELLS = 0.6
"""And unless the best reaches this; below it the images may have no way up, as cells and landscapes from above."""
MAY_COLLAPSE = ("simsiam", "byol")
"""Methods that nothing in the loss keeps from collapse."""


@dataclass(frozen=True)
class Trial:
    """A short run and what came of it."""

    method: str
    rate: float
    """Learning rate, times the method's own."""
    views: str
    score: float | None
    """Label-free; None: collapsed."""
    cv_macro_f1: float | None
    """Of a linear probe on the given labels; None: collapsed, or there are none."""
    verdict: str | None
    seconds: float

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.method}-{self.rate:.2g}-{self.views}"


@dataclass(frozen=True)
class Chosen:
    """What to train with, why, and what to fall back on if it collapses after all."""

    method: str
    lr: float | None
    """Peak learning rate; None: the method's own."""
    views: str
    reasons: list[str]
    fallback: str | None


def score_of(method: Method, source: ImageSource, views: Views, seed: int) -> float:
    """The label-free score that chooses within a method."""
    return label_free_scores(method, source, views, seed, (SCORE,))[SCORE]


def _comparable(labelled: ArraySource, seed: int) -> ArraySource | None:
    """Those that cross-validation can use: of classes with two or more; None if it can hold out nothing."""
    often = np.flatnonzero(np.bincount(labelled.labels) >= 2)
    usable = labelled.subset(np.flatnonzero(np.isin(labelled.labels, often)))
    return usable if len(often) >= 2 and splits_of(usable.labels, seed, usable.groups) else None


def better(usual: K, scores: dict[K, float]) -> K:
    """The key of the best score if it says enough, and more than the usual one's.

    >>> better("usual", {"usual": 0.9, "luck": 0.905}), better("usual", {"usual": 0.8, "other": 0.9})
    ('usual', 'other')
    """
    best = max(scores, key=lambda key: scores[key])
    return best if scores[best] >= max(TELLS, scores[usual] + MARGIN) else usual


class AutoPretraining:
    """``--method auto`` on one data set.

    What was tried and why stands in ``folder/choice.json``, so that a choice that was stopped goes on.

    Args:
        source: all images.
        labelled: the labelled ones, or None: then the default method is taken, at the best rate and recipe.
        settings: of the run; method and rate are not read.
        recipes: names of the recipes that suit the images, the usual one first.
        folder: of the run.
        seed: of trials and run.
        observer: shows trials and run.
        engine: what they are computed with.

    Raises:
        InputError: if the folder holds a choice with other settings.
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
        engine: Engine,
    ) -> None:
        self.source, self.settings, self.recipes = source, settings, recipes
        self.labelled = None if labelled is None else _comparable(labelled, seed)
        self.folder, self.seed, self.observer, self.engine = folder, seed, observer, engine
        self.file = run_folder.choice_file(folder)
        about = {"data": fingerprint(source), "labels": len(self.labelled or ()), "recipes": recipes, "seed": seed}
        self.decided = {**asdict(settings), **about}
        self.trials: list[Trial] = []
        self.chosen: Chosen | None = None
        self._read()

    def go(self) -> tuple[PretrainSettings, str]:
        """Choose by short trials, train, and keep the best of the run's quarters; gives settings and recipe as chosen.

        If the chosen method collapses after all, the run is set aside in ``collapsed-METHOD`` and the best method that
        cannot collapse completely takes its place.

        Raises:
            InputError: if every trial collapses.
            Collapsed: if the run does, and no method is left.
        """
        chosen = self.choose()
        for reason in chosen.reasons:
            self.observer.say(reason)
        try:
            method = self._train(chosen)
        except Collapsed as stop:
            if chosen.fallback is None:
                raise
            why = f"{chosen.method} collapsed, {chosen.fallback} takes its place: {stop.verdict}"
            self.observer.say(why)
            run_folder.set_aside(self.folder, f"collapsed-{chosen.method}")
            chosen = self.keep(Chosen(chosen.fallback, None, chosen.views, [*chosen.reasons, why], None))
            method = self._train(chosen)
        why = self._take_best_quarter(method, chosen.views)
        self.observer.say(why)
        if why not in chosen.reasons:  # else an earlier start came as far
            self.keep(replace(chosen, reasons=[*chosen.reasons, why]))
        return self._of_run(chosen), chosen.views

    @property
    def _quarters(self) -> tuple[int, ...]:
        """Epochs after which the run is a quarter, a half, three quarters and all done."""
        return tuple(sorted({max(1, round(self.settings.epochs * share)) for share in (0.25, 0.5, 0.75, 1.0)}))

    def _of_run(self, chosen: Chosen) -> PretrainSettings:
        kept = self._quarters
        return replace(self.settings, method=chosen.method, method_settings=None, lr=chosen.lr, keep_epochs=kept)

    def _train(self, chosen: Chosen) -> Method:
        self.observer.name = chosen.method
        views, settings = RECIPES[chosen.views], self._of_run(chosen)
        return pretrain(self.source, views, settings, self.folder, self.seed, self.observer, self.engine)

    def _take_best_quarter(self, method: Method, views: str) -> str:
        """Make the backbone of the last quarter, or of one that scores better, the run's; says why."""
        scores = {}
        for epoch in self._quarters:
            place = run_folder.kept_folder(self.folder, epoch)
            load_exactly(method, read_weights(place / "method.safetensors")[0], place)
            load_exactly(method.backbone, read_weights(place / "backbone.safetensors")[0], place)  # it may be averaged
            scores[epoch] = score_of(method, self.source, RECIPES[views], self.seed)
        best = better(self._quarters[-1], scores)
        backbone = run_folder.kept_folder(self.folder, best) / "backbone.safetensors"
        write_bytes(self.folder / backbone.name, backbone.read_bytes())
        each = ", ".join(f"{epoch}: {score:.4g}" for epoch, score in scores.items())
        return f"weights after epoch {best}, by {SCORE} ({each}; the last unless {MARGIN} better)"

    def choose(self) -> Chosen:
        """Methods by a probe on the labels; then, within the best, rate and recipe by the label-free score.

        Raises:
            InputError: if every trial collapses.
        """
        if self.chosen is not None:
            return self.chosen
        methods = tuple(METHODS) if self.labelled is not None else (DEFAULT.settings.method,)
        first = [self.trial(method, 1.0, self.recipes[0]) for method in methods]
        sound = sorted((trial for trial in first if trial.verdict is None), key=lambda t: -(t.cv_macro_f1 or 0))
        if not sound:
            raise InputError(f"--method auto: every trial collapsed. The first: {first[0].verdict}")
        best = sound[0]
        reasons = [self._why_method(best, first)]
        rates = [best, *(self.trial(best.method, rate, best.views) for rate in RATES)]
        best = self._better(rates)
        reasons.append(self._why(best, rates, "rate", lambda t: f"{t.rate:.2g} of its own"))
        views = [best, *(self.trial(best.method, best.rate, recipe) for recipe in self.recipes[1:])]
        best = self._better(views)
        reasons.append(self._why(best, views, "views", lambda t: t.views))
        fallback = next((t.method for t in sound if t.method not in (best.method, *MAY_COLLAPSE)), None)
        lr = best.rate * METHODS[best.method].settings.optimizer.lr
        return self.keep(Chosen(best.method, lr, best.views, reasons, fallback))

    def keep(self, chosen: Chosen) -> Chosen:
        """Write down what is chosen."""
        self.chosen = chosen
        self._write()
        return chosen

    def trial(self, method: str, rate: float, views: str) -> Trial:
        """A short run, or what an earlier start has of it."""
        for done in self.trials:
            if (done.method, done.rate, done.views) == (method, rate, views):
                return done
        settings = replace(self.settings, method=method, method_settings=None, lr=None, ema=0.0, keep_epochs=())
        lr = rate * settings.of_method.optimizer.lr
        batch = settings.batch_size or settings.of_method.batch_size
        epochs = max(1, round(TRIAL_STEPS / max(1, steps_per_epoch(len(self.source), batch, True))))
        settings = replace(settings, lr=lr, epochs=epochs, warmup_epochs=0)
        planned = Trial(method, rate, views, None, None, None, 0.0)
        watch = Observer(f"trial: {method}", None, self.observer.console)
        folder, engine = self.folder / "trials" / planned.name, replace(self.engine, on_collapse="stop")
        try:
            trained = pretrain(self.source, RECIPES[views], settings, folder, self.seed, watch, engine)
        except Collapsed as stop:
            return self._done(replace(planned, verdict=str(stop.verdict), seconds=watch.seconds_so_far()))
        score = score_of(trained, self.source, RECIPES[views], self.seed)
        cv = None
        if self.labelled is not None:
            features, labelled = outputs(trained.backbone, self.labelled), self.labelled
            cv = logistic_probe(features, labelled.labels, self.seed, labelled.groups).cv_macro_f1
        return self._done(replace(planned, score=score, cv_macro_f1=cv, seconds=watch.seconds))

    def _done(self, trial: Trial) -> Trial:
        self.trials.append(trial)
        self._write()
        figures = trial.verdict or f"{SCORE} {trial.score:.4g}"
        if trial.cv_macro_f1 is not None:
            figures += f", macro-F1 {trial.cv_macro_f1:.3f} by cross-validation"
        self.observer.say(f"{trial.name}: {figures}")
        return trial

    def _better(self, trials: list[Trial]) -> Trial:
        """The first is the usual one."""
        return better(trials[0], {trial: trial.score for trial in trials if trial.score is not None})

    def _why_method(self, best: Trial, trials: list[Trial]) -> str:
        if best.cv_macro_f1 is None:
            wanted = "no labels to compare methods by (two classes are needed, of which some can be held out)"
            return f"method {best.method}: there are {wanted}, and this is the default"
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
    def _why(best: Trial, trials: list[Trial], what: str, show: Any) -> str:
        each = ", ".join(f"{show(t)}: {'collapsed' if t.score is None else f'{t.score:.4g}'}" for t in trials)
        kept = f"; kept unless {MARGIN} better" if best == trials[0] else ""
        return f"{what} {show(best)}, by {SCORE} ({each}{kept})"

    def _read(self) -> None:
        if not self.file.is_file():
            return
        with run_folder.refusing_damage(self.file):
            found = json.loads(self.file.read_text())
            before = found["decided"]
            self.trials = [Trial(**row) for row in found["trials"]]
            self.chosen = Chosen(**found["chosen"]) if found["chosen"] else None
        run_folder.refuse_others(f"{self.file}: a choice", before, self.decided)

    def _write(self) -> None:
        trials, chosen = [asdict(trial) for trial in self.trials], asdict(self.chosen) if self.chosen else None
        write_json(self.file, {"decided": self.decided, "trials": trials, "chosen": chosen})
