"""From images, a few labels and a budget of time to the best classifier they can buy, and what it will reach."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from fewlabels import __version__
from fewlabels.data.source import ArraySource, digest, evenly_spaced, identity
from fewlabels.engine.pairs import Views
from fewlabels.engine.precision import fastest_precision
from fewlabels.errors import InputError, refuse_unknown
from fewlabels.evaluate import outputs, seconds_an_image
from fewlabels.fit.arms import (
    HELD,
    RARE,
    Arm,
    CrossFitted,
    Features,
    FineTune,
    Kernel,
    Lab,
    NetworkArm,
    Probe,
    Propagate,
    SelfTrain,
    Student,
    Supervised,
    cross_fit,
    pooled,
    weighted,
)
from fewlabels.fit.calibration import rarity, temperature_for, thresholds
from fewlabels.fit.estimate import (
    Estimate,
    confusion_of,
    design_effect,
    expected_macro_f1,
    lost_by,
    macro_f1,
    mean_of_classes,
    sums_by_group,
)
from fewlabels.fit.paces import features_paces
from fewlabels.fit.pool import Pool, held_out
from fewlabels.fit.prior import class_prior
from fewlabels.fit.stages import Stages
from fewlabels.models.backbones import make_backbone, refuse_size
from fewlabels.models.classifier import Classifier
from fewlabels.models.weights import load_backbone, read_weights
from fewlabels.observe import Observer

Strategy = Literal["auto", "supervised", "probe", "finetune", "kernel", "propagate", "selftrain"]
WEIGHTS = {
    **{"supervised": 1.0, "probe": 0.1, "finetune": 1.0, "kernel": 0.2, "propagate": 0.2, "selftrain": 2.0},
    **{"teacher": 18.0, "student": 4.0, "final": 3.0},
}
"""What one training of each may take of the time, relative to the others."""
TRAINED = ("finetune", "supervised")
"""What takes the time that it is given, in the order that it is tried in: the second can use what the first leaves."""
TAUGHT = ("committee", "selftrain", "kernel", "propagate")
"""What ends in a student."""
FEW = 50
"""Labels a class up to which they are also propagated."""
ENOUGH = 200
"""Images without a label from which on they are learned from, and tell how frequent the classes are."""
DEAR = 1 / 2
"""Of the budget: the longest that features may take."""
NEIGHBOUR = 1 / 8
"""Of the time of a kernel's number, what comparing two images takes."""
LEAST_SIDE = 5
"""Pixels of the longer side. Of less a strided layer sees a single one, and oneDNN's bfloat16 gradients may be nan."""
LOOKED_AT = 2000
"""Unlabelled images that shares of classes and the student's temperature are taken from, and that it is tested on."""
KEPT_EVERY = 10
"""At most so many of them are kept from the student."""
GRACE = 0.06
"""Of the budget: what a student may take beyond it, once, where what came before took longer than planned."""
NEVER = -1e4
"""The logit of a class that has no label."""
ALONE = 3.0
"""Times its usual weight a network has where a part is held out alone; ``final``, which goes on from it, has less."""
WORTH_IT = 0.25
"""Of that time: what a final training needs there, so that its rate rises and falls over some steps."""
SURE = 2.0
"""Standard errors by which a pretrained backbone has to be better than fresh weights."""


@dataclass(frozen=True)
class FitSettings:
    """What decides a fit, together with images, labels, views and seed."""

    strategy: Strategy = "auto"
    """Beside it ``supervised`` is always tried, and beside ``selftrain`` all that can be: what is taken is the best on
    labels held out, as :func:`preferred` has it."""
    budget: float = 600.0
    """Seconds."""
    backbone: str = "article"
    teacher: str = "small"
    """The backbone that teaches itself; the classifier's own learns from it."""
    start_from: str | None = None
    """Pretrained weights of the backbone, for probe and finetune."""

    def __post_init__(self) -> None:
        refuse_unknown("strategy", self.strategy, get_args(Strategy))
        if not 0 < self.budget < math.inf:
            raise InputError(f"budget {self.budget:g} s: must be above 0, and have an end.")
        if self.strategy in ("probe", "finetune") and self.start_from is None:
            raise InputError(
                f"strategy {self.strategy}: needs a pretrained backbone. Name its run with --from (start_from)."
            )


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
        """Of the classes among the images that are foretold: by the unlabelled ones, once they have been asked."""
        self._teachers = np.empty(0)
        """Of the folds, together: log-probabilities of all images."""
        self._say = observer("fit").say
        decided = {**asdict(settings), "seed": seed, "views": [str(view) for view in views], "version": __version__}
        decided |= identity(pool.source)
        decided["weights"] = self.weights and digest(self.weights.read_bytes())
        self._source, self._some = pool.source, pool.unlabelled[evenly_spaced(pool.unlabelled, LOOKED_AT)]
        """What was given, and rows of images without a label that tell how frequent the classes are."""
        if settings.strategy in ("supervised", "probe", "finetune"):
            self.pool = pool = pool.labelled_alone()
        precision = fastest_precision(device.type)
        decided |= {"precision": precision, "paces": paces and dict(paces)}
        self.stages = Stages(folder, decided, observer, device, paces)
        self.lab = Lab(self.stages, *views, seed, device, precision)
        self.features = Features(pool.source, None if self.weights is None else self._embed)
        self.parts = held_out(pool.labels, seed, pool.groups)
        alone = len(self.parts) == 1 and len(self.parts[0]) <= len(pool.labelled) / 5  # of groups it may be half
        self.known = "fold-0" if alone else "all"
        """Labels known to the experts that are asked of all images. Where a small part is held out alone they know the
        rest, and have been trained already."""
        self.together = settings.strategy in ("auto", "selftrain") and without >= ENOUGH
        """Whether the experts are asked together, and what they say is learned."""
        self.paces = paces
        self.experts = self._experts()
        dear = self._time_for_features()
        self._grace = 0.0 if paces else GRACE * settings.budget
        self.teaches = self.together and bool(self.parts) and self._time_to_self_train(settings.budget - dear)
        self.stages.tick()  # the trials above have taken some
        left = settings.budget - (dear if paces else self.stages.seconds())
        self.budget = Budget(left, self._total_weight(self.teaches), self.stages.planned)
        self._divided = settings.budget
        """Seconds for trainings, as planned."""
        if paces:
            self.budget.kept = min(left / 2, self._asking(self.experts, self.teaches))
            self._divided = left - self.budget.kept

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

    def _experts(self) -> list[str]:
        """The arms to try that learn from nothing but labels, safest first."""
        wish, pretrained = self.settings.strategy, self.weights is not None
        all_of_them = wish in ("auto", "selftrain")
        few = len(self.pool.labelled) <= FEW * len(np.unique(self.pool.labels))
        fits = {
            "supervised": True,
            "probe": all_of_them and pretrained,
            "finetune": all_of_them and pretrained,
            "kernel": self.together,
            "propagate": self.together and few and len(self.pool.source) <= HELD,
        }
        return [name for name, wanted in fits.items() if wanted or name == wish]

    def _time_to_finetune(self) -> bool:
        """Whether its part is enough, where it is one of several that share the time of a single fold."""
        if self.settings.strategy == "finetune" or self.known == "all":
            return True

        def enough() -> np.ndarray:
            seconds = self.budget.part(self._on_a_fold("finetune"))
            as_long = Supervised(self.lab, self.settings.backbone)  # a step of it takes
            return np.array([seconds, as_long.steps_in(self._pool_of("fold-0"), "fold-0", seconds)])

        seconds, steps = self.stages.array("time-to-finetune", enough)
        if steps < FineTune.fewest:
            self._note(f"finetune: {seconds:.0f} s are too few for the {FineTune.fewest:,} steps it needs; not tried")
        return bool(steps >= FineTune.fewest)

    def _time_to_self_train(self, seconds: float) -> bool:
        """Whether its part of them is enough; a fit that goes on is told what it was told before."""
        if self.stages.planned:
            in_the_end = 1 / len(self.parts)  # of what is asked on the folds
            seconds = max(0.0, seconds - self._asking(self.experts, True) * (1 + in_the_end))
        of_budget = seconds / self._total_weight(True)

        def enough() -> np.ndarray:
            seconds = of_budget * WEIGHTS["selftrain"]
            classes = len(self.pool.source.class_names)
            arm = self._teacher({"fold-0": np.zeros((len(self.pool.source), classes))})
            return np.array([seconds, arm.fewest, arm.steps_in(self.pool, "fold-0", seconds)])

        seconds, fewest, steps = self.stages.array("time-to-self-train", enough)
        if steps < fewest:
            self._note(f"selftrain: {seconds:.0f} s a fold are too few for the {fewest:.0f} steps it needs; not tried")
            return False
        if self.settings.backbone in ("article", self.settings.teacher):  # no slower than the teacher
            return True
        taught = partial(self._steps_of_a_student, "of-selftrain", of_budget * WEIGHTS["student"])
        fewest, steps = self.stages.array("time-for-a-student", taught)
        if steps < fewest:
            backbone = self.settings.backbone
            self._note(f"selftrain: {backbone} has no time for {fewest:.0f} steps as a student; not tried")
        return bool(steps >= fewest)

    def _time_to_learn(self, name: str, tried: dict[str, CrossFitted]) -> bool:
        """Whether a student has time once those it learns from are asked; a fit that goes on is told as before."""

        def enough() -> np.ndarray:
            experts = [self._arm(expert) for expert in heard(tried[name].weights) if expert in self.experts]
            left, fold = [arm for arm in experts if not arm.asked(self.known)], self._pool_of("fold-0")
            asking = sum(arm.seconds_to_ask(fold, "fold-0") for arm in left)
            trained = [arm for arm in left if arm.name in TRAINED or not self.stages.planned]
            seconds = self.budget.left_after(asking, sum(self._once_more(arm.name) for arm in trained))
            return self._steps_of_a_student(f"of-{name}", seconds)

        fewest, steps = self.stages.array(f"time-to-learn-from-{name}", enough)
        if steps < fewest:
            self._note(
                f"{name}: too little time is left to ask it of all images and learn what it says; the next is taken"
            )
        return bool(steps >= fewest)

    def _steps_of_a_student(self, part: str, seconds: float) -> np.ndarray:
        """The fewest that it needs, and how many there is time for."""
        nothing = np.zeros((len(self.pool.unlabelled), len(self.pool.source.class_names)))
        student = Student(self.lab, self.settings.backbone, self.pool.unlabelled, nothing)
        return np.array([student.fewest, student.steps_in(self.pool, part, seconds)])

    def _time_for_features(self) -> float:
        """Seconds they take. Where it is too long who needs them is not tried: neighbours, and if need be kernels."""
        images, paces = len(self.pool.source), self.paces
        needed = [name for name in ("kernel", "propagate") if name in self.experts]
        wished = self.settings.strategy in needed  # and is tried whatever it takes
        if not needed or not self.parts or (wished and paces is None):  # without a fold nothing is tried
            return 0.0

        def seconds() -> np.ndarray:
            known = features_paces(self.pool.source) if paces is None else paces
            embedded = 0.0
            if self.weights:
                embedded = seconds_an_image(self._pretrained, self.pool.source) if paces is None else paces["image"]
            # Of many images they are made anew for each fold and in the end.
            times = 1 + len(self.parts) if images > HELD and self.together and self.known == "all" else 1
            return np.array([times * images * (known["features"] + embedded), images**2 * NEIGHBOUR * known["kernel"]])

        of_features, of_neighbours = self.stages.array("time-for-features", seconds)
        longest = DEAR * self.settings.budget
        for name, takes in (("propagate", of_features + of_neighbours), ("kernel", of_features)):
            if name in needed and takes > longest and name != self.settings.strategy:
                self._note(f"{name}: its features of {images:,} images take {takes:.0f} s, too long for it; not tried")
                self.experts.remove(name)
                needed.remove(name)
        return float(min(longest, (of_features if needed else 0.0) + (of_neighbours if "propagate" in needed else 0.0)))

    def _share(self, arm: Arm, weight: float, images: float) -> float:
        """Seconds for a part of this weight, which ends in asking the arm of so many images."""
        if self.paces is None:
            return self.budget.share(weight)
        self.budget.spend(self._to_ask(arm, images))
        if isinstance(arm, NetworkArm) and arm.name in (*TRAINED, "selftrain"):
            return self.budget.share(weight, arm.at_most * self.paces[arm.name])
        self.budget.forgo(weight)
        return 0.0  # it takes what it takes

    def _to_ask(self, arm: Arm, images: float) -> float:
        return arm.seconds_to_ask(self.pool, self.known) * images / len(self.pool.source)

    def _asking(self, experts: list[str], teaches: bool) -> float:
        """Seconds of a plan to ask them, and teachers, on the folds."""
        of_all = len(self.parts) * len(self.pool.source)
        images = of_all if teaches else sum(map(len, self.parts))
        seconds = sum(self._to_ask(self._arm(name), images) for name in experts)
        return seconds + (self._to_ask(self._teacher({}), of_all) if teaches else 0.0)

    def _total_weight(self, teaches: bool) -> float:
        folds = sum(map(self._on_a_fold, self.experts)) + (WEIGHTS["selftrain"] if teaches else 0)
        once = WEIGHTS["teacher"] if teaches else 0
        # One that goes on from a teacher with its own backbone has little to learn.
        student = WEIGHTS["student"] / (2 if teaches and self.settings.teacher == self.settings.backbone else 1)
        final = WEIGHTS["final"] / (ALONE if self.known == "fold-0" else 1.0)
        once += student + sum(map(self._once_more, self.experts)) if self.together else final
        return len(self.parts) * folds + once

    def _on_a_fold(self, expert: str) -> float:
        alone = self.known == "fold-0" and expert in TRAINED
        return WEIGHTS[expert] * (ALONE if alone else 1.0)

    def _once_more(self, expert: str) -> float:
        """The weight of an expert's training on what is known to those who are asked of all images."""
        return WEIGHTS[expert] if self.known == "all" else 0.0

    def _try_arms(self) -> dict[str, CrossFitted]:
        """Of each expert; of all together, as ``committee``; of what learns from them, if there is time."""
        tried: dict[str, CrossFitted] = {}
        said: dict[str, CrossFitted] = {}
        # Teachers need a word on all images, from every fold.
        images = len(self.pool.source) if self.teaches else float(np.mean([len(part) for part in self.parts]))
        # First those that take what they take, so that the others share what is left.
        others = [name for name in self.experts if name not in TRAINED]
        for name in (*others, *TRAINED):
            if name == TRAINED[0]:
                self._plan_networks()
            if name in self.experts:
                arm = self._arm(name)
                seconds = partial(self._share, arm, self._on_a_fold(name), images)
                said[name] = cross_fit(arm, self.pool, self.parts, seconds, self.teaches)
                self._tell(name, tried, pooled({name: said[name]}))
        tried, said = ({name: of[name] for name in self.experts} for of in (tried, said))
        if self.together:
            self._tell("committee", tried, pooled(said))
        if self.teaches:
            self._self_train(tried)
        self.budget.kept = 0.0
        return tried

    def _plan_networks(self) -> None:
        """Divide what is left when all else has been tried."""
        if "kernel" in self.experts:
            kernel, fold = self._arm("kernel"), self._pool_of("fold-0")
            # Kept, since a fit that goes on may need no features any more.
            to_ask = self.stages.array("time-to-ask", lambda: np.array(kernel.seconds_to_ask(fold, "fold-0")))
            self.budget.kept += min(self.settings.budget / 4, float(to_ask))
        if "finetune" in self.experts and not self._time_to_finetune():
            self.budget.forgo(self._on_a_fold("finetune"))
            if self.stages.planned:
                self.budget.kept = max(0.0, self.budget.kept - self._asking(["finetune"], self.teaches))
            self.experts.remove("finetune")

    def _self_train(self, tried: dict[str, CrossFitted]) -> None:
        committee = tried["committee"]
        hints = {f"fold-{fold}": self._logs(logits) for fold, logits in enumerate(committee.logits)}
        self.shares = self._shares(committee.mean(self._some))
        arm = self._teacher(hints, self.shares)
        seconds = partial(self._share, arm, WEIGHTS["selftrain"], len(self.pool.source))
        teachers = cross_fit(arm, self.pool, self.parts, seconds)
        self._tell("selftrain", tried, pooled({"teachers": teachers, "committee": committee}))
        self._teachers = np.log(teachers.mean())

    def _tell(self, name: str, tried: dict[str, CrossFitted], fitted: CrossFitted) -> None:
        tried[name] = fitted
        self._note(f"{name}: macro-F1 {self._score(fitted):.3f} on {len(fitted.held):,} labels held out")

    def _arm(self, name: str) -> Arm:
        backbone = self.settings.backbone
        if name == "supervised":
            return Supervised(self.lab, backbone)
        if name == "kernel":
            return Kernel(self.lab, self.features)
        if name == "propagate":
            return Propagate(self.lab, self.features)
        assert self.weights is not None  # the others are wanted only with weights
        return (Probe if name == "probe" else FineTune)(self.lab, backbone, self.weights)

    def _teacher(self, hints: dict[str, np.ndarray], prior: np.ndarray | None = None) -> SelfTrain:
        classes = len(self.pool.source.class_names)
        return SelfTrain(
            self.lab, self.settings.teacher, np.full(classes, 1 / classes) if prior is None else prior, hints
        )

    def _shares(self, calibrated: np.ndarray) -> np.ndarray:
        """Of the classes, float [K], among images with these probabilities [N, K], which took them to be equal."""
        classes = np.unique(self.pool.labels)
        known = calibrated[:, classes]
        equal = np.full(len(classes), 1 / len(classes))
        shares = np.zeros(len(self.pool.source.class_names))
        shares[classes] = class_prior(known / known.sum(axis=1, keepdims=True), equal)
        return shares

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
        said, right = softmax(tried[best].held_logits, axis=1), is_right(tried[best])
        effect = design_effect(right, tried[best].held_groups)
        made.network.thresholds = thresholds(said.max(axis=1), right, self._frequent(tried[best]) / effect)
        learned_from = float(1 - np.mean([len(part) for part in self.parts]) / len(self.pool.labelled))
        if best != "supervised":  # the best of several on the same folds looks better than it is
            learned_from **= 0.5
        if not made.learned_more:
            learned_from = 1.0
        confusion = self._confusion(tried[best])
        estimate = expected_macro_f1(
            confusion, self.shares, self.seed, self.tested_on, learned_from, lost=made.lost, effect=effect
        )
        network = self._finished(made.network, made.scale, made.shift)
        return Fitted(network, best, estimate, scores, self.said, made.pseudo_labels or {})

    def _made(self, name: str, tried: dict[str, CrossFitted]) -> Made | None:
        """By one of what was tried; None: a student that has no time, or has not learned."""
        if name in TAUGHT:
            return self._student(name, tried) if name == "selftrain" or self._time_to_learn(name, tried) else None
        weights = tried[name].weights
        # A fit that goes on has less time left, and is told what it was told before.
        self.budget.spend(self._to_ask(self._arm(name), len(self._some)) if self.stages.planned else 0.0)
        left = float(self.stages.array(f"{name}-left", lambda: np.array(self.budget.share(math.inf))))
        on_a_fold = self._divided * self._on_a_fold(name) / self._total_weight(self.teaches)
        # Where too little time is left, a network is taken that is asked beside others.
        worth_it = on_a_fold * (WORTH_IT if self.known == "fold-0" else 1.0)
        part, seconds = ("final", left) if left > worth_it else (self.known, on_a_fold)
        if part == "fold-0":
            self._note(f"{name}: too little time is left to train it once more, with the tenth held out")
        network = self._network(name, part, seconds)
        scale, shift = weights[name], weights[RARE] * self._rare()
        if self.without >= ENOUGH:
            said = outputs(network, self._source.subset(self._some)) * scale + shift
            self.shares = self._shares(softmax(said, axis=1))
        return Made(network, scale, shift, learned_more=part != "fold-0")

    def _network(self, name: str, part: str, seconds: float) -> Classifier:
        """An expert's; one that is trained already is only read back."""
        arm = self._arm(name)
        assert isinstance(arm, NetworkArm)
        if isinstance(arm, Supervised | FineTune) and part == "final" and self.known == "fold-0":
            arm = replace(arm, start=self._network(name, self.known, 0.0))  # it lacks a tenth of the labels alone
        return arm.train(self._pool_of(part), part, seconds)

    def _pool_of(self, part: str) -> Pool:
        return self.pool.without(self.parts[0]) if part == "fold-0" else self.pool

    def _student(self, name: str, tried: dict[str, CrossFitted]) -> Made | None:
        """A network that has learned what is said of all images; None if it has not, by images kept from it.

        After self-training a teacher learns it first, from all labels and by itself. It has learned from every label,
        so its confidence is set to what the folds got right. The student goes on from the teacher, if that has its
        backbone, or from a supervised network: the one that was asked, or a fold's.
        """
        kept = self._looked_at()
        pool = replace(self.pool, unlabelled=np.setdiff1d(self.pool.unlabelled, kept))
        logs = self._logs(self._said(name, tried))
        if name != "selftrain":  # whose teachers have been told them already
            self.shares = self._shares(np.exp(logs[self._some]))
        right = self._right(tried[name])
        start = self._network("supervised", self.known if self._arm("supervised").asked(self.known) else "fold-0", 0.0)
        by_others = logs[kept].argmax(axis=1)
        teacher = None
        if name == "selftrain":
            prior = self._shares(tried[name].mean(self._some))
            arm = self._teacher({"all": logs}, prior)
            logits = arm.logits(pool, "all", self._share(arm, WEIGHTS["teacher"], len(pool.source)))
            if self.settings.teacher == self.settings.backbone:
                teacher = start = arm.train(pool, "all", 0.0)
            logs = log_softmax(logits / temperature_for(logits[kept], right), axis=1) + logs
            logs = log_softmax(logs / temperature_for(logs[kept], right), axis=1)
        rows = pool.unlabelled
        student = Student(self.lab, self.settings.backbone, rows, softmax(logs[rows], axis=1), start)
        network = student.train(pool, f"of-{name}", max(self.budget.share(math.inf), self._grace))
        self._grace = 0.0
        pseudo_labels = self._tell_apart(logs)
        learned = [("student", network, logs[kept].argmax(axis=1))]
        learned += [("teacher", teacher, by_others)] if teacher else []
        for who, network, told in learned:
            logits = outputs(network, self.pool.source.subset(kept))
            agrees = float((logits.argmax(axis=1) == told).mean())
            self._note(f"{who}: agrees with all before it on {agrees:.1%} of {len(kept):,} images it has not seen")
            lost = lost_by(logits.argmax(axis=1), np.exp(logs[kept]))
            if agrees >= right:
                scale = 1 / temperature_for(logits, right - float(lost.mean()))
                of_classes = mean_of_classes(lost, logs[kept].argmax(axis=1))
                shift = np.zeros(logits.shape[1])
                return Made(network, scale, shift, of_classes, pseudo_labels, self.known == "all")
            self._note(f"{who}: differs from them more often than they are wrong; the next best is taken")
        return None

    def _tell_apart(self, logs: np.ndarray) -> dict[str, int]:
        """Which classes are named how often, for whoever wonders where the training went."""
        named = np.bincount(logs[self.pool.unlabelled].argmax(axis=1), minlength=logs.shape[1])
        by_class: dict[str, int] = dict(zip(self.pool.source.class_names, named.tolist(), strict=True))
        by_count = sorted(by_class.items(), key=itemgetter(1))
        fewest, most = by_count[0], by_count[-1]
        sure = np.exp(logs[self.pool.unlabelled].max(axis=1)).mean()
        self._note(
            f"of {named.sum():,} images without a label, {fewest[1]:,} are taken for {fewest[0]}, {most[1]:,} for "
            f"{most[0]}; on average it is {sure:.0%} sure"
        )
        return by_class

    def _said(self, name: str, tried: dict[str, CrossFitted]) -> np.ndarray:
        """Logits of all images by experts who know what is ``known``, each weighed as on the folds: float32 [N, K]."""
        weights = tried[name].weights
        said = {RARE: self._rare()}
        for expert in heard(weights):
            if expert == "teachers":
                said[expert] = self._teachers
            elif expert == "committee":
                said[expert] = self._said("committee", tried)
            else:
                arm, known = self._arm(expert), self.teaches and self.known != "all"  # what it says of all images
                seconds = self._share(arm, self._once_more(expert), 0 if known else len(self.pool.source))
                said[expert] = arm.logits(self._pool_of(self.known), self.known, seconds)
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
        network = self._network(name, "final", self.budget.share(math.inf))
        return Fitted(self._finished(network, 1.0, np.zeros(len(network.class_names))), name, None, {}, self.said, {})

    def _logs(self, logits: np.ndarray) -> np.ndarray:
        """Log-probabilities; a class without a label has none."""
        known = logits.copy()
        known[:, np.setdiff1d(np.arange(logits.shape[1]), self.pool.labels)] = NEVER
        logs: np.ndarray = log_softmax(known, axis=1)
        return logs

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

    def _embed(self, source: ArraySource) -> np.ndarray:
        return outputs(self._pretrained, source)

    @cached_property
    def _pretrained(self) -> nn.Module:
        assert self.weights is not None
        network = self.lab.fresh(self.settings.backbone, self.pool, "features")
        load_backbone(network, self.weights)
        return network.backbone

    def _finished(self, network: Classifier, scale: float, shift: np.ndarray) -> Classifier:
        absent = np.setdiff1d(np.arange(len(network.class_names)), self.pool.labels)
        return calibrated(network.cpu(), scale, shift, absent)

    def _note(self, line: str) -> None:
        self.said.append(line)
        self._say(line)


def refuse_unsuitable(source: ArraySource, settings: FitSettings) -> None:
    """Refuse backbones and weights that a fit of these images could not use.

    Raises:
        InputError: if a backbone does not take images of this size, or the weights are not its own, or have learned
            from labels.
    """
    channels, height, width = source.shape
    if max(height, width) < LEAST_SIDE:
        raise InputError(f"images of {height}x{width} pixels: the longer side needs {LEAST_SIDE}. Enlarge them first.")
    for backbone in (settings.backbone, settings.teacher):
        refuse_size("images", height, width, backbone, make_backbone(backbone, channels).image_size)
    if settings.start_from is None:
        return
    weights = Path(settings.start_from)
    if not weights.is_file():
        raise InputError(f"{weights}: no such model file. Make a backbone.safetensors with: fewlabels pretrain")
    if read_weights(weights)[1].get("kind") == "classifier":
        raise InputError(
            f"{weights}: a classifier, which has learned from labels that are to be held out here. "
            "Pass a backbone.safetensors written by: fewlabels pretrain"
        )
    load_backbone(Classifier(settings.backbone, ["any"], channels), weights)


def is_right(fitted: CrossFitted) -> np.ndarray:
    """Whether each held-out label was named: bool [M]."""
    right: np.ndarray = fitted.held_logits.argmax(axis=1) == fitted.held_labels
    return right


def preferred(scores: Mapping[str, float], tried: Mapping[str, CrossFitted]) -> list[str]:
    """Best first; of equals the one that was tried first. The standard error of a difference decides two things.

    - A pretrained backbone counts as no better than fresh weights until it is better by two of it: few labels are soon
      fooled, and fresh weights are the baseline that nothing may fall below.
    - Self-training is taken unless it is worse by more. On the folds it has a small part of the time that it is given
      when it is chosen; the others gave there nearly all that they have.
    """

    def error(one: str, other: str) -> float:
        differs = is_right(tried[one]).astype(int) - is_right(tried[other])
        # Of a rare class each image counts more, as it does in macro-F1.
        _, classes, counts = np.unique(tried[one].held_labels, return_inverse=True, return_counts=True)
        apart = sums_by_group(differs / counts[classes], tried[one].held_groups)
        return float(np.sqrt(np.square(apart).sum()) / len(counts))

    counted = dict(scores)
    for name in ("probe", "finetune"):
        if name in scores and scores[name] <= scores["supervised"] + SURE * error(name, "supervised"):
            counted[name] = min(scores[name], scores["supervised"])
    ordered = sorted(counted, key=lambda name: -counted[name])  # stable
    if "selftrain" in tried and scores["selftrain"] >= scores[ordered[0]] - error("selftrain", ordered[0]):
        ordered.sort(key=lambda name: name != "selftrain")
    return ordered


def heard(weights: Mapping[str, float]) -> list[str]:
    """The experts that have a say."""
    return [name for name, weight in weights.items() if weight > 0 and name != RARE]


class Budget:
    """Seconds, handed out by weight; what one part leaves over goes to those after it, unless no clock is looked at."""

    def __init__(self, seconds: float, weights: float, planned: bool = False) -> None:
        self._until, self._weights = time.monotonic() + seconds, weights
        self._planned = seconds if planned else None
        self.kept = 0.0
        """Seconds that are not handed out for now: what they are for takes what it takes."""

    def share(self, weight: float, at_most: float = math.inf) -> float:
        """Seconds for a part of this weight, which begins now; of an infinite one: all."""
        seconds = min(self.part(weight), at_most)
        self.forgo(weight)
        if self._planned is not None:
            self._planned -= seconds
        return seconds

    def part(self, weight: float) -> float:
        """What :meth:`share` would hand out."""
        return self._left() * min(1.0, weight / self._weights)

    def forgo(self, weight: float) -> None:
        """A part of this weight is not wanted; the others share its time."""
        self._weights = max(self._weights - weight, 1e-9)

    def spend(self, seconds: float) -> None:
        """What is no training takes so long by plan; a clock sees it by itself."""
        if self._planned is not None:
            self._planned -= seconds
            self.kept = max(0.0, self.kept - seconds)

    def left_after(self, seconds: float, weight: float) -> float:
        """Seconds that are left after some that are not planned, and after parts of this weight together."""
        return max(0.0, self._left() - seconds) * max(0.0, 1 - weight / self._weights)

    def _left(self) -> float:
        return max(0.0, (self._until - time.monotonic() if self._planned is None else self._planned) - self.kept)


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
