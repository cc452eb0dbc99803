"""What a fit has time to try, and how long each part of it may take."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fewlabels.backbones.inference import seconds_an_image
from fewlabels.features.extractor import COMPARED
from fewlabels.fit.arms import Arm, Arms, NetworkArm, SelfTrain, Student, Supervised
from fewlabels.fit.budget import Budget
from fewlabels.fit.paces import features_paces
from fewlabels.fit.pool import Pool, is_alone
from fewlabels.fit.settings import FitSettings

WEIGHTS = {
    **{"supervised": 1.0, "probe": 0.1, "finetune": 1.0, "kernel": 0.2, "propagate": 0.2, "selftrain": 2.0},
    **{"teacher": 24.0, "student": 4.0, "final": 3.0},
}
"""What one training of each may take of the time, relative to the others."""
TRAINED = ("supervised", "finetune")
"""What takes the time that it is given."""
FEW = 50
"""Labels a class up to which they are also propagated, and tell little about how frequent classes are."""
ENOUGH = 200
"""Images without a label from which on they are learned from, and tell how frequent the classes are."""
DEAR = 1 / 2
"""Of the budget: the longest that features may take."""
NEIGHBOUR, SMOOTHED = 1 / 4, 5000
"""Of the time of a kernel's number, what comparing two images takes, and mixing an image with its neighbours."""
GRACE = 0.06
"""Of the budget: at most so much of what was planned for a student it may take beyond it, once, where what came before
took longer than planned."""
ALONE = 3.0
"""Times its usual weight a network has where a part is held out alone; ``final``, which goes on from it, has less."""
WORTH_IT = 0.25
"""Of that time: what a final training needs there, so that its rate rises and falls over some steps."""
ASKED = 1 / 20
"""Of the budget: what asking may take that tells how frequent the classes are."""
BESIDE = 1 / 2
"""Of the time of a final training there: what fine-tuning may take beside the baseline."""


class Plan:
    """Which arms are tried, on which parts of the labels, and the time of each.

    Where paces are given, nothing depends on a clock. What was decided by one is kept in the fit's stages: a fit that
    goes on has less time left, and is told what it was told before.

    Args:
        settings: of the fit.
        pool: images, and the labels that may be used.
        parts: places in ``pool.labelled`` that are held out, one after the other.
        arms: of the fit.
        paces: as :mod:`fewlabels.fit.paces` has them; None: a clock is looked at.
        note: is told what is not tried, and why.
    """

    def __init__(
        self,
        settings: FitSettings,
        pool: Pool,
        parts: list[np.ndarray],
        arms: Arms,
        paces: Mapping[str, float] | None,
        note: Callable[[str], None],
    ) -> None:
        self.settings, self.pool, self.parts, self.arms, self.paces = settings, pool, parts, arms, paces
        self._stages, self._note = arms.lab.stages, note
        self.known = "fold-0" if is_alone(pool.labels, parts) else "all"
        """Labels known to the experts that are asked of all images. Where a small part is held out alone they know the
        rest, and have been trained already."""
        self.together = settings.strategy in ("auto", "selftrain") and len(pool.unlabelled) >= ENOUGH
        """Whether the experts are asked together, and what they say is learned."""
        self.experts = self._experts()
        """The arms to try that learn from nothing but labels, safest first."""
        dear = self._time_for_features()
        if self.together and not self._has_room(settings.budget - dear, teaches=False):
            self.together, dear = False, 0.0
            self.experts = self._experts()
        self.teaches = self.together and bool(parts) and self._time_to_self_train(settings.budget - dear)
        """Whether a network teaches itself."""
        self._stages.tick()  # the trials above have taken some
        left = settings.budget - (dear if paces else self._stages.seconds())
        self.budget = Budget(left, self._total_weight(self.teaches), self._stages.planned)
        of_student = self.budget.part(self._of_student(self.teaches))
        self._grace = 0.0 if paces else min(GRACE * settings.budget, of_student)
        self._divided = settings.budget
        """Seconds for trainings, as planned."""
        if paces:
            self.budget.kept = min(left / 2, self._asking(self.experts, self.teaches))
            self._divided = left - self.budget.kept

    def pool_of(self, part: str) -> Pool:
        """Of the labels that have this name."""
        return self.pool.without(self.parts[0]) if part == "fold-0" else self.pool

    @property
    def few(self) -> bool:
        """Whether labels are so few that they may be propagated."""
        return len(self.pool.labelled) <= FEW * len(np.unique(self.pool.labels))

    @property
    def committee(self) -> list[str]:
        """The experts that are asked together.

        Few labels held out give a network of fresh weights too much of a say: there it is the baseline and a student's
        start alone.
        """
        too_few = self.known == "all" and "propagate" in self.experts
        return [name for name in self.experts if not (too_few and name == "supervised")]

    def is_asked_of_all(self, expert: str, teaches: bool) -> bool:
        """Whether a fold asks it of all images, or of those that are held out: teachers need a word on all."""
        return teaches and expert in self.committee

    def in_order(self) -> list[str]:
        """The experts as they are tried: first what takes what it takes, so that the others share what is left."""
        return sorted(self.experts, key=TRAINED.__contains__)

    def share(self, arm: Arm, weight: float, images: float) -> float:
        """Seconds for a training of this weight, which ends in asking the arm of so many images."""
        if self.paces is None:
            return self.budget.share(weight)
        self.budget.spend(self._to_ask(arm, images))
        if isinstance(arm, NetworkArm) and arm.name in (*TRAINED, "selftrain"):
            return self.budget.share(weight, arm.at_most * self.paces[arm.name])
        self.budget.forgo(weight)
        return 0.0  # it takes what it takes

    def on_a_fold(self, expert: str) -> float:
        """The weight of an expert's training on a fold."""
        if self.known == "all":
            return WEIGHTS[expert]
        if expert == "finetune" and not self.together:
            return BESIDE * self._of_last()
        return WEIGHTS[expert] * (ALONE if expert == "supervised" else 1.0)

    def once_more(self, expert: str) -> float:
        """The weight of an expert's training on what is known to those who are asked of all images."""
        return WEIGHTS[expert] if self.known == "all" else 0.0

    def divide(self) -> None:
        """Between the trainings what all else has left."""
        if "kernel" in self.experts:
            kernel, fold = self.arms.expert("kernel"), self.pool_of("fold-0")
            # Kept, since a fit that goes on may need no features any more.
            to_ask = self._stages.array("time-to-ask", lambda: np.array(kernel.seconds_to_ask(fold, "fold-0")))
            self.budget.kept += min(self.settings.budget / 4, float(to_ask))

    def leave_out(self, expert: str) -> None:
        """It is not tried after all; what was planned for it is for others."""
        if self._stages.planned:
            others = [name for name in self.experts if name != expert]
            asking = self._asking(self.experts, self.teaches) - self._asking(others, self.teaches)
            self.budget.kept = max(0.0, self.budget.kept - asking)
        self.experts.remove(expert)
        if not self._is_late(expert):
            self.budget.forgo(self.on_a_fold(expert))

    def may_ask(self, names: Sequence[str], images: int) -> int:
        """How many of so many images these experts are asked of, each on its folds, beside what they are tried on."""

        def seconds() -> np.ndarray:
            pool = self.pool_of("fold-0")
            of_all = sum(self.arms.expert(name).seconds_to_ask(pool, "fold-0") for name in names)
            return np.array(of_all / len(pool.source))

        of_an_image = len(self.parts) * float(self._stages.array(f"time-to-ask-{'-and-'.join(names)}", seconds))
        number = min(images, max(1, int(ASKED * self.settings.budget / max(of_an_image, 1e-12))))
        self.budget.spend(number * of_an_image)
        return number

    def for_the_last(self, name: str) -> tuple[str, float]:
        """The part of the labels that a network is taken of, and its seconds."""
        left = float(self._stages.array(f"{name}-left", lambda: np.array(self.budget.share(math.inf))))
        on_a_fold = self._divided * self.on_a_fold(name) / self._total_weight(self.teaches)
        # Where too little time is left, one that was asked beside others is taken, or has what it had on a fold.
        worth_it = on_a_fold * (WORTH_IT if self.known == "fold-0" else 1.0)
        return ("final", left) if left > worth_it else (self.known, on_a_fold)

    def for_a_teacher(self, arm: SelfTrain, images: int) -> float:
        """Seconds for the one that knows all labels, which is asked of so many images, too."""
        if self.paces is None:  # a fold's tells how long that takes
            tried = self._stages.array(
                "time-to-ask-a-teacher", lambda: np.array(arm.seconds_to_ask(self.pool_of("fold-0"), "fold-0"))
            )
            self.budget.kept = min(self.budget.part(math.inf) / 2, float(tried))
        return self.share(arm, WEIGHTS["teacher"], images)

    def for_a_student(self, name: str) -> float:
        """Seconds: what is left, of many labels less the baseline's last training; at first it may be more."""
        left = self.budget.part(math.inf)
        seconds = max(self.budget.share(math.inf, left * self._of_what_is_left(name)), self._grace)
        self._grace = 0.0
        return seconds

    def has_time_to_learn_from(self, name: str, heard: Sequence[str]) -> bool:
        """Whether a student of ``name`` has time once those that it hears are asked."""

        def enough() -> np.ndarray:
            arms, fold = [self.arms.expert(name) for name in heard if name in self.experts], self.pool_of("fold-0")
            left = [arm for arm in arms if not arm.asked(self.known)]
            asking = sum(arm.seconds_to_ask(fold, "fold-0") for arm in left)
            trained = [arm for arm in left if arm.name in TRAINED or not self._stages.planned]
            seconds = self.budget.left_after(asking, sum(self.once_more(arm.name) for arm in trained))
            seconds *= self._of_what_is_left(name)
            return self._steps_of_a_student(f"of-{name}", seconds)

        fewest, steps = self._stages.array(f"time-to-learn-from-{name}", enough)
        if steps < fewest:
            self._note(
                f"{name}: too little time is left to ask it of all images and learn what it says; the next is taken"
            )
        return bool(steps >= fewest)

    def _experts(self) -> list[str]:
        wish, pretrained = self.settings.strategy, self.settings.start_from is not None
        all_of_them = wish in ("auto", "selftrain")
        fits = {
            "supervised": True,
            "probe": all_of_them and pretrained,
            "finetune": all_of_them and pretrained,
            "kernel": self.together,
            "propagate": self.together and self.few and len(self.pool.source) <= COMPARED,
        }
        return [name for name, wanted in fits.items() if wanted or name == wish]

    def _has_room(self, seconds: float, teaches: bool) -> bool:
        """Whether many labels leave time for a committee, or a teacher: the baseline has all its steps first."""
        if self.known == "all":
            return True
        if self._stages.planned:
            seconds -= self._asking(self.experts, teaches)
        of_fold = max(0.0, seconds) * self.on_a_fold("supervised") / self._total_weight(teaches)

        def found() -> np.ndarray:
            baseline = Supervised(self.arms.lab, self.settings.backbone)
            return np.array([baseline.at_most, baseline.steps_in(self.pool_of("fold-0"), "fold-0", of_fold)])

        others = "selftrain" if teaches else "committee and selftrain"
        wanted, steps = self._stages.array(f"time-beside-{others.split()[0]}", found)
        if steps < wanted:
            self._note(
                f"{others}: supervised training can use {wanted:,.0f} steps, and would have {steps:,.0f} beside; "
                "not tried"
            )
        return bool(steps >= wanted)

    def _time_to_self_train(self, seconds: float) -> bool:
        """Whether its part of them is enough."""
        if not self._has_room(seconds, teaches=True):
            return False
        if self._stages.planned:
            in_the_end = 1 / len(self.parts)  # of what is asked on the folds
            seconds = max(0.0, seconds - self._asking(self.experts, True) * (1 + in_the_end))
        of_budget = seconds / self._total_weight(True)

        def enough() -> np.ndarray:
            seconds = of_budget * WEIGHTS["selftrain"]
            classes = len(self.pool.source.class_names)
            arm = self.arms.teacher({"fold-0": np.zeros((len(self.pool.source), classes))})
            return np.array([seconds, arm.fewest, arm.steps_in(self.pool, "fold-0", seconds)])

        seconds, fewest, steps = self._stages.array("time-to-self-train", enough)
        if steps < fewest:
            self._note(f"selftrain: {seconds:.0f} s a fold are too few for the {fewest:.0f} steps it needs; not tried")
            return False
        if self.settings.backbone in ("article", self.settings.teacher):  # no slower than the teacher
            return True

        def taught() -> np.ndarray:
            return self._steps_of_a_student("of-selftrain", of_budget * WEIGHTS["student"])

        fewest, steps = self._stages.array("time-for-a-student", taught)
        if steps < fewest:
            backbone = self.settings.backbone
            self._note(f"selftrain: {backbone} has no time for {fewest:.0f} steps as a student; not tried")
        return bool(steps >= fewest)

    def _steps_of_a_student(self, part: str, seconds: float) -> np.ndarray:
        """The fewest that it needs, and how many there is time for."""
        nothing = np.zeros((len(self.pool.unlabelled), len(self.pool.source.class_names)))
        student = Student(self.arms.lab, self.settings.backbone, self.pool.unlabelled, nothing)
        return np.array([student.fewest, student.steps_in(self.pool, part, seconds)])

    def _time_for_features(self) -> float:
        """Seconds they take. Where it is too long it is done without neighbours, and if need be without kernels."""
        images, paces = len(self.pool.source), self.paces
        needed = [name for name in ("kernel", "propagate") if name in self.experts]
        if not needed or not self.parts:  # without a fold nothing is tried
            return 0.0

        def seconds() -> np.ndarray:
            known = features_paces(self.pool.source) if paces is None else paces
            embedded = 0.0
            if self.settings.start_from is not None:
                embedded = paces["image"] if paces else seconds_an_image(self.arms.pretrained, self.pool.source)
            of_neighbours = images * (images * NEIGHBOUR + SMOOTHED) * known["kernel"]
            return np.array([images * (known["features"] + embedded), of_neighbours])

        of_features, of_neighbours = self._stages.array("time-for-features", seconds)
        longest, features, together = DEAR * self.settings.budget, self.arms.features, of_features + of_neighbours
        # What is wished is tried whatever it takes.
        if of_features > longest and self.settings.strategy not in needed:
            names = " and ".join(needed)
            self._note(f"{names}: features of {images:,} images take {of_features:.0f} s, too long for it; not tried")
            self.experts = [name for name in self.experts if name not in needed]
            return 0.0
        if self.settings.strategy == "propagate":
            features.by_neighbours = True
        elif features.by_neighbours and together > longest:
            features.by_neighbours = False
            without = "propagate is not tried" if "propagate" in needed else "kernel ridge goes without"
            self._note(f"neighbours of {images:,} images would take {of_neighbours:.0f} s, too long for it; {without}")
            self.experts = [name for name in self.experts if name != "propagate"]
        return float(min(longest, together if features.by_neighbours else of_features))

    def _to_ask(self, arm: Arm, images: float) -> float:
        return arm.seconds_to_ask(self.pool, self.known) * images / len(self.pool.source)

    def _asking(self, experts: list[str], teaches: bool) -> float:
        """Seconds of a plan to ask them, and teachers, on the folds."""
        of_all, of_parts = len(self.parts) * len(self.pool.source), sum(map(len, self.parts))
        asked = {name: of_all if self.is_asked_of_all(name, teaches) else of_parts for name in experts}
        seconds = sum(self._to_ask(self.arms.expert(name), images) for name, images in asked.items())
        return seconds + (self._to_ask(self.arms.teacher({}), of_all) if teaches else 0.0)

    def _total_weight(self, teaches: bool) -> float:
        folds = sum(self.on_a_fold(name) for name in self.experts if not self._is_late(name))
        once = self._of_student(teaches) + sum(map(self.once_more, self.committee)) if self.together else 0.0
        if self.known != "all" or not self.together:
            once += self._of_last()
        if teaches:
            folds, once = folds + WEIGHTS["selftrain"], once + WEIGHTS["teacher"]
        return len(self.parts) * folds + once

    def _of_last(self) -> float:
        """The weight of a last training, with all labels."""
        return WEIGHTS["final"] / (ALONE if self.known == "fold-0" else 1.0)

    def _of_student(self, teaches: bool) -> float:
        """A student's weight: one that goes on from a teacher with its own backbone has little to learn."""
        return WEIGHTS["student"] / (2 if teaches and self.settings.teacher == self.settings.backbone else 1)

    def _of_what_is_left(self, name: str) -> float:
        """The part that is for a student of ``name``; of many labels the rest is for the baseline's last training."""
        of_student = self._of_student(name == "selftrain")
        return 1.0 if self.known == "all" else of_student / (of_student + self._of_last())

    def _is_late(self, expert: str) -> bool:
        """Whether its time is not planned, but taken from the last training: it may turn out that it is not tried."""
        may_be_hopeless = expert == "finetune" and self.settings.strategy != "finetune"
        return may_be_hopeless and self.known == "fold-0" and not self.together
