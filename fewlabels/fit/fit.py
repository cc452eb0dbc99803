"""From images, a few labels and a budget of time to the best classifier they can buy, and what it will reach."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from fewlabels import __version__
from fewlabels._internal.errors import InputError, printable
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.data.source import digest, evenly_spaced, identity
from fewlabels.fit.arms import Arms, FineTune, Lab, NetworkArm, Student, Supervised, placed
from fewlabels.fit.calibration import rarity, temperature_for, thresholds
from fewlabels.fit.choice import SURE, heard, is_right, preferred
from fewlabels.fit.cross_fit import NEVER, RARE, CrossFitted, cross_fit, of_known, pooled, weighted
from fewlabels.fit.estimate import (
    Estimate,
    confusion_of,
    design_effect,
    expected_macro_f1,
    lost_by,
    macro_f1,
    mean_of_classes,
)
from fewlabels.fit.plan import ENOUGH, WEIGHTS, Plan
from fewlabels.fit.pool import Pool, held_out
from fewlabels.fit.prior import are_uneven, class_prior, shift_to
from fewlabels.fit.settings import FitSettings, refuse_unsuitable
from fewlabels.fit.stages import Stages
from fewlabels.training.callbacks import Observer
from fewlabels.training.pairs import Views
from fewlabels.training.precision import fastest_precision

LOOKED_AT = 2000
"""Unlabelled images that shares of classes and the student's temperature are taken from, and that it is tested on."""
KEPT_EVERY = 10
"""At most so many of them are kept from the student."""
TAUGHT = ("committee", "selftrain", "kernel", "propagate")
"""What ends in a student."""


class Fitted(NamedTuple):
    """A classifier, and what is to be expected of it."""

    network: Classifier
    """Calibrated where labels could be held out, in evaluation mode, on the CPU."""
    strategy: str
    estimate: Estimate | None
    """By what the folds gave, which saw fewer labels; None where none could be held out."""
    tried: dict[str, float]
    """Macro-F1 on folds of every way that was tried."""
    said: list[str]
    """The reasons, line by line."""
    pseudo_labels: dict[str, int]
    """Images without a label by the class that the network was told; empty where it learned from labels alone."""


class Made(NamedTuple):
    """A network that is not calibrated yet."""

    network: Classifier
    scale: float
    """Of its logits, which calibrates them together with ``shift``."""
    shift: np.ndarray
    """float [K]."""
    lost: float = 0.0
    """Of macro-F1, by a student against its teachers."""
    pseudo_labels: dict[str, int] | None = None
    """As :class:`Fitted` has them."""
    learned_more: bool = True
    """Whether it, or who taught it, knows labels that the folds' networks did not."""
    judged: CrossFitted | None = None
    """What is said of labels held out: by itself, where it has not learned them, else by those before it, where what
    it learned was brought to the shares of the classes brought to them, too; None: as was tried."""


class Fit:
    """One fit. What is finished when it is stopped is not done again by the next start.

    Args:
        pool: images, and the labels that may be used.
        settings: see there.
        views: a weak recipe and a strong one.
        folder: for what is finished.
        seed: of weights, order, views and folds.
        observer: makes one for each training, by name.
        device: where.
        tested_on: images of the test whose macro-F1 is to be foretold.
        paces: as :mod:`fewlabels.fit.paces` has them, so that nothing depends on a clock; None: it is looked at.

    Raises:
        InputError: if a backbone or the strategy does not suit the images, or the folder holds another fit.
    """

    def __init__(
        self,
        pool: Pool,
        settings: FitSettings,
        views: tuple[Views, Views],
        folder: Path,
        seed: int,
        observer: Callable[[str], Observer],
        device: torch.device = torch.device("cpu"),
        tested_on: int | None = None,
        paces: Mapping[str, float] | None = None,
    ) -> None:
        self.pool, self.settings, self.seed, self.tested_on = pool, settings, seed, tested_on
        self.weights = None if settings.start_from is None else Path(settings.start_from)
        refuse_unsuitable(pool.source, settings)  # before anything is written
        self.without = without = len(pool.unlabelled)
        """Images without a label; some strategies go on without them."""
        if settings.strategy in ("kernel", "propagate") and without < ENOUGH:
            raise InputError(
                f"strategy {settings.strategy}: a network learns it from images without a label. {ENOUGH} are needed, "
                f"there are {without}. Choose auto."
            )
        self.said: list[str] = []
        self.shares = np.bincount(pool.labels, minlength=len(pool.source.class_names)) / len(pool.labelled)
        """Of the classes among the images that are foretold: of the labels, until unlabelled images have been asked."""
        self._brings = False
        """Whether what teachers and students are told is brought to these shares."""
        self._say = observer("fit").say
        precision = fastest_precision(device.type)
        decided = {
            **{**asdict(settings), "weights": self.weights and digest(self.weights.read_bytes())},
            **{**identity(pool.source), "views": [str(view) for view in views], "seed": seed},
            **{"precision": precision, "paces": paces and dict(paces), "version": __version__},
        }
        self._given, self._some = pool, pool.unlabelled[evenly_spaced(pool.unlabelled, LOOKED_AT)]
        """What was given, and rows of images without a label that tell how frequent the classes are."""
        if settings.strategy in ("supervised", "probe", "finetune"):
            self.pool = pool = pool.labelled_alone()
        self.stages = Stages(folder, decided, observer, device, paces)
        lab = Lab(self.stages, *views, seed, device, precision)
        self.arms = Arms(lab, pool, settings.backbone, settings.teacher, self.weights)
        self.parts = held_out(pool.labels, seed, pool.groups)
        self.plan = Plan(settings, pool, self.parts, self.arms, paces, self._note)

    def go(self) -> Fitted:
        """Try the arms on folds, take the best, and make the classifier."""
        try:
            return self._go()
        finally:
            self.stages.tick()

    def seconds(self) -> float:
        """That all starts of this fit have taken together."""
        return self.stages.seconds()

    def _go(self) -> Fitted:
        counts = np.bincount(self.pool.labels, minlength=len(self.pool.source.class_names))
        for cls in np.flatnonzero(counts == 0):
            self._note(f"no image is labelled {self.pool.source.class_names[cls]!r}: it will never be named")
        if self.without < ENOUGH and self.settings.strategy in ("auto", "selftrain"):
            few = f"{ENOUGH} images without a label are needed, there are {self.without}"
            self._note(f"{few if self.without else 'every image has a label'}: there is nothing to train itself on")
        return self._chosen(self._try_arms()) if self.parts else self._without_folds()

    def _try_arms(self) -> dict[str, CrossFitted]:
        """Of each expert; of all together, as ``committee``; of what learns from them, if there is time."""
        plan = self.plan
        tried: dict[str, CrossFitted] = {}
        said: dict[str, CrossFitted] = {}
        for name in plan.in_order():
            if name == "supervised":
                plan.divide()
            if name == "finetune" and self._is_hopeless(tried):
                self._note("finetune: the probe on its frozen backbone is worse than supervised training; not tried")
                plan.leave_out(name)
                continue
            arm = self.arms.expert(name)
            of_all = plan.is_asked_of_all(name, plan.teaches)
            images = len(self.pool.source) if of_all else float(np.mean([len(part) for part in self.parts]))
            seconds = partial(plan.share, arm, plan.on_a_fold(name), images)
            said[name] = cross_fit(arm, self.pool, self.parts, seconds, of_all)
            self._tell(name, tried, pooled({name: said[name]}))
        tried = {name: tried[name] for name in plan.experts}
        if plan.together:
            self._tell("committee", tried, pooled({name: said[name] for name in plan.committee}))
        if plan.teaches:
            self._self_train(tried)
        plan.budget.kept = 0.0
        return tried

    def _is_hopeless(self, tried: Mapping[str, CrossFitted]) -> bool:
        """Whether fine-tuning is not worth what it costs where all share the time of a single fold."""
        if self.plan.known == "all" or "probe" not in tried:
            return False
        return self._score(tried["probe"]) < self._score(tried["supervised"])

    def _self_train(self, tried: dict[str, CrossFitted]) -> None:
        committee = tried["committee"]
        on_some = self._on_some(committee, self._some)
        self._find_shares(committee, on_some)
        brought = self._brought(committee, on_some)
        hints = {f"fold-{fold}": self._logs(logits) for fold, logits in enumerate(brought.logits)}
        arm = self.arms.teacher(hints, self.shares)
        seconds = partial(self.plan.share, arm, WEIGHTS["selftrain"], len(self.pool.source))
        teachers = cross_fit(arm, self.pool, self.parts, seconds)
        self._tell("selftrain", tried, pooled({"teachers": teachers, "committee": committee}))

    def _tell(self, name: str, tried: dict[str, CrossFitted], fitted: CrossFitted) -> None:
        tried[name] = fitted
        self._note(f"{name}: macro-F1 {self._score(fitted):.3f} on {len(fitted.held):,} labels held out")

    def _find_shares(self, fitted: CrossFitted, folds: Sequence[np.ndarray]) -> None:
        """By what the folds say of some images without a label, calibrated logits [N, K] each.

        What teachers and students are told is brought to the shares, and so are the folds that judge them, but in three
        cases. Who has learned from many labels knows better; a single fold in groups does not tell; and few labels do
        not tell well how uneven classes are, if they are.
        """
        if not self._folds_tell:
            return
        classes = np.unique(self.pool.labels)
        said = [softmax(logits[:, classes], axis=1) for logits in folds]
        found, self._brings = np.full(len(classes), 1 / len(classes)), len(self.parts) > 1
        if not self.plan.few:
            found = class_prior(said, found)
        else:  # expectation maximisation goes astray; its first step does not go far
            together: np.ndarray = sum(said) / len(said)
            held = softmax(fitted.held_logits[:, classes], axis=1)
            effect = design_effect(is_right(fitted), fitted.held_groups)
            if are_uneven(together, held, fitted.held_labels, effect):
                mean = together.mean(axis=0, dtype=np.float64)
                found, self._brings = mean / mean.sum(), False
        self.shares = np.zeros(len(self.pool.source.class_names))
        self.shares[classes] = found

    @property
    def _folds_tell(self) -> bool:
        """Whether they tell how frequent the classes are: a single one of few labels does not."""
        return len(self.parts) > 1 or self.plan.known == "fold-0"

    def _on_some(self, fitted: CrossFitted, rows: np.ndarray) -> list[np.ndarray]:
        """What each fold says of these rows without a label, or of fewer, float32 [R, K]."""
        if not self._folds_tell:  # nor are they asked
            return []
        if self.plan.teaches and np.isfinite(of_rows := [logits[rows] for logits in fitted.logits]).all():
            return of_rows  # they were asked of all images
        names = heard({name: sum(weights[name] for weights in fitted.of_folds) for name in fitted.weights})
        rows, said = rows[evenly_spaced(rows, self.plan.may_ask(names, len(rows)))], []
        for fold, (places, weights) in enumerate(zip(self.parts, fitted.of_folds, strict=True)):
            pool, part = self._given.without(places), f"fold-{fold}"
            logits = {name: self.arms.expert(name).of_rows(pool, part, rows) for name in names}
            said.append(weighted({**logits, RARE: self._rare()}, weights))
        return said

    def _chosen(self, tried: dict[str, CrossFitted]) -> Fitted:
        scores = {name: self._score(fitted) for name, fitted in tried.items()}
        for best in preferred(scores, tried):
            made = self._made(best, tried)
            if made is not None:
                break
        for name, warning in self.stages.warnings().items():
            self._note(f"{name}: {warning}")
        self._note(f"{best}: chosen by what the folds gave")
        assert made is not None  # supervised is always made
        judged = made.judged or tried[best]
        said, right = softmax(judged.held_logits, axis=1), is_right(judged)
        effect = design_effect(right, judged.held_groups)
        made.network.thresholds = thresholds(said.max(axis=1), right, self._frequent(judged) / effect)
        learned_from = float(1 - np.mean([len(part) for part in self.parts]) / len(self.pool.labelled))
        if best != "supervised":  # the best of several on the same folds looks better than it is
            learned_from **= 0.5
        if not made.learned_more:
            learned_from = 1.0
        confusion, kept = self._confusion(judged), None
        if self.pool.groups is None:  # of few labels that are not divided by groups a tenth may have none by chance
            kept = np.bincount(self.pool.labels, minlength=len(confusion)) < 2
        estimate = expected_macro_f1(
            confusion, self.shares, self.seed, self.tested_on, learned_from, made.lost, effect, kept
        )
        network = self._finished(made.network, made.scale, made.shift)
        return Fitted(network, best, estimate, scores, self.said, made.pseudo_labels or {})

    def _made(self, name: str, tried: dict[str, CrossFitted]) -> Made | None:
        """By one of what was tried; None: a student that has no time, or has not learned."""
        weights = tried[name].weights
        if name in TAUGHT:
            has_time = name == "selftrain" or self.plan.has_time_to_learn_from(name, heard(weights))
            return self._student(name, tried) if has_time else None
        if self.without >= ENOUGH:
            # Networks take long to be asked: each fold of some others.
            self._find_shares(tried[name], self._on_some(tried[name], self._some[:: len(self.parts)]))
        part, seconds = self.plan.for_the_last(name)
        if part == "fold-0":
            self._note(f"{name}: too little time is left to train it once more, with the tenth held out")
        network = self._network(name, part, seconds)
        scale, shift = weights[name], weights[RARE] * self._rare()
        return Made(network, scale, shift, learned_more=part != "fold-0")

    def _network(self, name: str, part: str, seconds: float) -> Classifier:
        """An expert's; one that is trained already is only read back."""
        arm = self.arms.expert(name)
        assert isinstance(arm, NetworkArm)
        if isinstance(arm, Supervised | FineTune) and part == "final" and self.plan.known == "fold-0":
            arm = replace(arm, start=self._network(name, "fold-0", 0.0))  # it lacks a tenth of the labels alone
        return arm.train(self.plan.pool_of(part), part, seconds)

    def _student(self, name: str, tried: dict[str, CrossFitted]) -> Made | None:
        """A network that has learned what is said of all images.

        None if it has not, by images kept from it; or, of many labels, if it is worse than the baseline by those held
        out, which none of those before it knows. After self-training a teacher learns it first, from the same labels
        and by itself. Where it has learned from every label, its confidence is set to what the folds got right. The
        student goes on from the teacher, if that has its backbone, or from a supervised network: the one that was
        asked, or a fold's.
        """
        plan, kept = self.plan, self._looked_at()
        pool = plan.pool_of(plan.known)
        pool = replace(pool, unlabelled=np.setdiff1d(pool.unlabelled, kept))
        # The folds' teachers choose and foretell: they had little time, and know less than who told them.
        told = "committee" if name == "selftrain" else name
        on_some = {of: self._on_some(tried[of], self._some) for of in {told, name}}
        self._find_shares(tried[told], on_some[told])
        judged = self._brought(tried[name], on_some[name])
        logs = self._brought_logs(self._logs(self._said(told, tried)))
        right = self._right(judged)
        asked = self.arms.expert("supervised").asked(plan.known)
        start = self._network("supervised", plan.known if asked else "fold-0", 0.0)
        learned: list[tuple[str, Classifier, np.ndarray, float]] = []
        if name == "selftrain":
            arm = self.arms.teacher({"all": logs}, self.shares)
            logits = arm.logits(pool, "all", plan.for_a_teacher(arm, len(pool.source)))
            plan.budget.kept = 0.0
            if self.settings.teacher == self.settings.backbone:
                start = arm.train(pool, "all", 0.0)
                who_told = self._brought(tried[told], on_some[told])
                learned.append(("teacher", start, logs[kept].argmax(axis=1), self._right(who_told)))
            logs = log_softmax(logits / temperature_for(logits[kept], right), axis=1) + logs
            logs = self._brought_logs(log_softmax(logs / temperature_for(logs[kept], right), axis=1))
        rows = pool.unlabelled
        student = Student(self.arms.lab, self.settings.backbone, rows, softmax(logs[rows], axis=1), start)
        network = student.train(pool, f"of-{name}", plan.for_a_student(name))
        pseudo_labels = self._tell_apart(logs)
        learned.insert(0, ("student", network, logs[kept].argmax(axis=1), right))
        for who, network, others, least in learned:
            logits = outputs(network, self.pool.source.subset(kept))
            agrees = float((logits.argmax(axis=1) == others).mean())
            self._note(f"{who}: agrees with all before it on {agrees:.1%} of {len(kept):,} images it has not seen")
            if agrees < least - SURE * math.sqrt(least * (1 - least) / len(kept)):  # few images may mislead
                self._note(f"{who}: differs from them more often than they are wrong; the next best is taken")
            elif plan.known == "all":
                lost = lost_by(logits.argmax(axis=1), np.exp(logs[kept]))
                scale = 1 / temperature_for(logits, right - float(lost.mean()))
                of_classes = mean_of_classes(lost, logs[kept].argmax(axis=1))
                return Made(network, scale, np.zeros(logits.shape[1]), of_classes, pseudo_labels, judged=judged)
            elif (made := self._judged(who, network, tried["supervised"], pseudo_labels)) is not None:
                return made
        return None

    def _judged(
        self, who: str, network: Classifier, baseline: CrossFitted, pseudo_labels: dict[str, int]
    ) -> Made | None:
        """By the labels held out, which its teachers do not know either; None: it is worse than the baseline."""
        source, rows = self.pool.source, self.pool.labelled[self.parts[0]]
        said = placed(outputs(network, source.subset(rows)), rows, len(source))
        judged = pooled({who: CrossFitted(self.pool, self.parts, [said])})
        score, least = self._score(judged), self._score(baseline)
        told = f"{who}: macro-F1 {score:.3f} on {len(rows):,} labels held out"
        if score < least:
            self._note(f"{told}, supervised training {least:.3f}; the next best is taken")
            return None
        self._note(told)
        scale, shift = judged.weights[who], judged.weights[RARE] * self._rare()
        return Made(network, scale, shift, 0.0, pseudo_labels, learned_more=False, judged=judged)

    def _tell_apart(self, logs: np.ndarray) -> dict[str, int]:
        """Which classes are named how often, for whoever wonders where the training went."""
        named = np.bincount(logs[self.pool.unlabelled].argmax(axis=1), minlength=logs.shape[1])
        by_class: dict[str, int] = dict(zip(self.pool.source.class_names, named.tolist(), strict=True))
        by_count = sorted(by_class.items(), key=itemgetter(1))
        fewest, most = by_count[0], by_count[-1]
        sure = np.exp(logs[self.pool.unlabelled].max(axis=1)).mean()
        self._note(
            f"of {named.sum():,} images without a label, {fewest[1]:,} are taken for {printable(fewest[0])}, "
            f"{most[1]:,} for {printable(most[0])}; on average it is {sure:.0%} sure"
        )
        return by_class

    def _said(self, name: str, tried: dict[str, CrossFitted]) -> np.ndarray:
        """Logits of all images by experts who know what is ``known``, each weighed as on the folds: float32 [N, K]."""
        plan, weights = self.plan, tried[name].weights
        said = {RARE: self._rare()}
        for expert in heard(weights):
            arm = self.arms.expert(expert)
            has_said = plan.teaches and plan.known != "all"
            seconds = plan.share(arm, plan.once_more(expert), 0 if has_said else len(self.pool.source))
            said[expert] = arm.logits(plan.pool_of(plan.known), plan.known, seconds)
        return weighted(said, weights)

    def _rare(self) -> np.ndarray:
        return rarity(self.pool.labels, len(self.pool.source.class_names))

    def _without_folds(self) -> Fitted:
        name = self.settings.strategy
        if name not in ("supervised", "probe", "finetune"):
            name = "probe" if self.weights else "supervised"
        self._note(
            "no label can be held out without taking all of its class: nothing is chosen, calibrated or foretold; "
            f"taken is {name}"
        )
        network = self._network(name, "final", self.plan.budget.share(math.inf))
        return Fitted(self._finished(network, 1.0, np.zeros(len(network.class_names))), name, None, {}, self.said, {})

    def _logs(self, logits: np.ndarray) -> np.ndarray:
        """Log-probabilities; a class without a label has none."""
        logs: np.ndarray = log_softmax(of_known(logits, self.pool.labels), axis=1)
        return logs

    def _brought(self, fitted: CrossFitted, on_some: list[np.ndarray]) -> CrossFitted:
        """What the folds say, classes as frequent among images without a label as they are taken to be."""
        if not self._brings:
            return fitted
        shifts = [shift_to(self.shares, of_known(some, self.pool.labels)) for some in on_some]
        return replace(fitted, logits=[logits + shift for logits, shift in zip(fitted.logits, shifts, strict=True)])

    def _brought_logs(self, logs: np.ndarray) -> np.ndarray:
        """The same of log-probabilities of all images."""
        if not self._brings:
            return logs
        brought: np.ndarray = log_softmax(logs + shift_to(self.shares, logs[self._some]), axis=1)
        return brought

    def _confusion(self, fitted: CrossFitted) -> np.ndarray:
        classes = len(self.pool.source.class_names)
        return confusion_of(fitted.held_labels, fitted.held_logits.argmax(axis=1), classes)

    def _score(self, fitted: CrossFitted) -> float:
        """Macro-F1 over the classes that were held out."""
        confusion = self._confusion(fitted)
        return float(macro_f1(confusion)) * len(confusion) / np.count_nonzero(confusion.sum(axis=1))

    def _right(self, fitted: CrossFitted) -> float:
        """Share of images like the unlabelled that are named right, by those held out; one of two is added as right."""
        counting = self._frequent(fitted)
        return float((is_right(fitted) @ counting + 1) / (counting.sum() + 2))

    def _frequent(self, fitted: CrossFitted) -> np.ndarray:
        """For each held-out label how much it counts where classes have the shares of the unlabelled images.

        In all they count as many as equal ones that would tell as much (Kish 1965, section 11.7).
        """
        counts = np.bincount(fitted.held_labels, minlength=len(self.shares))
        frequent = (self.shares / np.maximum(counts, 1))[fitted.held_labels]
        weights: np.ndarray = frequent * frequent.sum() / (frequent @ frequent)
        return weights

    def _looked_at(self) -> np.ndarray:
        """Rows of evenly spaced unlabelled images, int64."""
        rows = self.pool.unlabelled
        spaced: np.ndarray = rows[evenly_spaced(rows, min(LOOKED_AT, -(-len(rows) // KEPT_EVERY)))]
        return spaced

    def _finished(self, network: Classifier, scale: float, shift: np.ndarray) -> Classifier:
        absent = np.setdiff1d(np.arange(len(network.class_names)), self.pool.labels)
        return calibrated(network.cpu(), scale, shift, absent)

    def _note(self, line: str) -> None:
        self.said.append(line)
        self._say(line)


def calibrated(network: Classifier, scale: float, shift: np.ndarray, absent: np.ndarray) -> Classifier:
    """The classifier with logits times the scale plus the shift [K], absent classes never named; by its head alone."""
    if not isinstance(network.head, nn.Linear):
        raise TypeError("the head has a hidden layer")
    with torch.no_grad():
        network.head.weight.mul_(scale)
        network.head.bias.mul_(scale).add_(torch.from_numpy(shift))
        network.head.weight[absent] = 0
        network.head.bias[absent] = NEVER
    return network
