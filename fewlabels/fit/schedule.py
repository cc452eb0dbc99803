"""What a fit does and how long each part may take: a fixed list of stages, made before the first one begins."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fewlabels._internal.errors import InputError
from fewlabels.backbones.classifier import MIRRORED, SHIFTED
from fewlabels.fit.config import NETWORK_STRATEGIES, FitConfig

ENSEMBLE, SELF_TRAINING, STUDENT, FEATURES, GRAPH = "ensemble", "self-training", "student", "features", "graph"
TRIED = ("kernel", "label-spreading", "probe", "supervised", "finetune")
"""Learners that need nothing but labels, in the order in which they are tried: those in closed form first."""
DISTILLED = ("kernel", "label-spreading", ENSEMBLE, SELF_TRAINING)
"""Candidates that are shipped by training a student on their predictions."""

Task = Literal["features", "fit", "predict"]


@dataclass(frozen=True)
class CostModel:
    """Seconds per unit of work. Whether trainings follow the clock or these figures is decided here alone."""

    clock: bool
    """True: a training does as many steps as its time allows. False: as many as these figures say, so that a fit does
    not depend on how fast the machine is."""
    supervised_step: float
    """A training step on labels."""
    self_training_step: float
    student_image: float
    """An image of a training step of the student."""
    step: float
    """What a step takes beside its images."""
    predict_image: float
    """One view of an image, by the classifier's network."""
    teacher_predict_image: float
    """The same by the teacher's network."""
    feature_image: float
    """An image's features."""
    kernel_value: float
    """A kernel between two images."""
    neighbour_value: float
    """The distance between two images."""
    smoothed_image: float
    """Averaging an image's features over its neighbours."""

    def student_step(self, batch_size: int) -> float:
        """A training step of the student."""
        return self.step + batch_size * self.student_image

    def training_step(self, learner: str) -> float:
        """A training step of a learner; 0 if it is not trained in steps."""
        steps = {"supervised": self.supervised_step, "finetune": self.supervised_step}
        return (steps | {SELF_TRAINING: self.self_training_step}).get(learner, 0.0)

    def predict(self, learner: str, images: int, labels: int, config: FitConfig) -> float:
        """Predictions for so many images by a learner that was fitted on so many labels."""
        if learner == "kernel":
            return images * min(labels, config.kernel.max_labels) * self.kernel_value
        if learner == SELF_TRAINING:
            return images * MIRRORED * self.teacher_predict_image
        # Label spreading gives all images their logits when it is fitted.
        views = {"label-spreading": 0, "probe": 1}.get(learner, SHIFTED)
        return images * views * self.predict_image


@dataclass(frozen=True)
class PoolSize:
    """The numbers of a pool that a schedule depends on."""

    images: int
    labelled: int
    unlabelled: int
    labels_per_class: float
    held_out: tuple[int, ...]
    """Labels that each split holds out; empty where none can be held out."""
    has_weights: bool = False
    """Whether there are pretrained weights."""


@dataclass(frozen=True)
class Stage:
    """One part of a fit."""

    learner: str
    task: Task
    split: str
    """Name of the :class:`~fewlabels.fit.data.Split`; empty for features."""
    seconds: float
    ships: str = ""
    """The candidate that it ships: it runs if that is the best. Empty: it runs in any case."""
    reason_skipped: str = ""
    """Why it does not run; empty if it does."""


@dataclass(frozen=True)
class Schedule:
    """The stages of a fit, in order; never changed once they are made."""

    stages: tuple[Stage, ...]
    candidates: tuple[str, ...]
    """What is compared on held-out labels; the one that is shipped where none can be held out."""
    members: tuple[str, ...]
    """Learners in the ensemble; empty without one."""

    def seconds(self, learner: str, task: Task, split: str, ships: str = "") -> float:
        """Of a stage; 0 if it is not scheduled."""
        wanted = (learner, task, split, ships)
        return sum(s.seconds for s in self.stages if (s.learner, s.task, s.split, s.ships) == wanted)

    def has(self, learner: str) -> bool:
        """Whether a learner runs, or the graph of nearest neighbours is made."""
        return any(stage.learner == learner and not stage.reason_skipped for stage in self.stages)

    @property
    def skipped(self) -> tuple[Stage, ...]:
        """What does not run, with the reasons."""
        return tuple(stage for stage in self.stages if stage.reason_skipped)

    def total_seconds(self, ships: str) -> float:
        """Of all stages, if this candidate is shipped."""
        return sum(stage.seconds for stage in self.stages if stage.ships in ("", ships))

    def rows(self, ships: str) -> list[tuple[str, str, float]]:
        """For a table: learner and task, names of the splits, and seconds; of what ships a candidate, or of trials."""
        rows: dict[str, tuple[list[str], float]] = {}
        for stage in self.stages:
            if stage.ships == ships and not stage.reason_skipped and stage.seconds > 0:
                task = stage.learner if stage.task == "features" else f"{stage.learner}: {stage.task}"
                splits, seconds = rows.get(task, ([], 0.0))
                rows[task] = ([*splits, stage.split], seconds + stage.seconds)
        return [(task, ", ".join(filter(None, splits)), seconds) for task, (splits, seconds) in rows.items()]

    def as_json(self) -> dict[str, Any]:
        """For :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Schedule":
        """What :meth:`as_json` gave."""
        stages = tuple(Stage(**stage) for stage in content["stages"])
        return cls(stages, tuple(content["candidates"]), tuple(content["members"]))


def build_schedule(config: FitConfig, pool: PoolSize, costs: CostModel) -> Schedule:
    """Divide the budget among what the strategy wants, and leave out what it is too little for.

    A candidate is scheduled only together with all that it takes to ship it: fitting on all labels, predicting all
    images and training the student. So the candidate that scores best on held-out labels can always be shipped.

    Raises:
        InputError: if what a named strategy names cannot run.
    """
    wanted, skipped = _wanted(config, pool)
    while True:
        schedule = _arranged(config, pool, costs, wanted)
        problem = _problem(config, pool, costs, schedule)
        if problem is None:
            return Schedule((*schedule.stages, *skipped), schedule.candidates, schedule.members)
        dropped, reason = problem
        refuse_named(config, dropped, f"{reason}. Give a larger --budget, or choose auto")
        wanted = wanted - {dropped}
        if dropped in (FEATURES, "kernel"):
            wanted -= {FEATURES, GRAPH, "kernel", "label-spreading"}
        if dropped == GRAPH:
            wanted -= {"label-spreading"}
        if not wanted & {"kernel", "label-spreading"}:
            wanted -= {FEATURES, GRAPH, ENSEMBLE}
        if ENSEMBLE not in wanted:
            wanted -= {SELF_TRAINING}
        if not wanted:
            wanted = frozenset({"probe" if pool.has_weights else "supervised"})
        skipped.append(Stage(dropped, "fit", "", 0.0, reason_skipped=reason))


def refuse_named(config: FitConfig, dropped: str, reason: str) -> None:
    """Refuse to go on without what a named strategy names.

    Raises:
        InputError: if ``dropped`` is what the strategy needs.
    """
    needs = {
        "kernel": {"kernel", FEATURES},
        "label-spreading": {"label-spreading", FEATURES, GRAPH},
        "selftrain": {SELF_TRAINING, ENSEMBLE, FEATURES, "kernel"},
    }
    if dropped in needs.get(config.strategy, set()):
        raise InputError(f"strategy {config.strategy}: {reason}.")


def _wanted(config: FitConfig, pool: PoolSize) -> tuple[frozenset[str], list[Stage]]:
    """What the strategy asks for, and what of it the pool does not allow."""
    limits, strategy = config.schedule, config.strategy
    if strategy in NETWORK_STRATEGIES:
        return frozenset({strategy}), []
    if pool.unlabelled < limits.min_unlabelled:
        reason = f"{limits.min_unlabelled} images without a label are needed, there are {pool.unlabelled}"
        refuse_named(config, ENSEMBLE if strategy == "selftrain" else strategy, f"{reason}. Choose auto")
        networks = {"supervised", *(("probe", "finetune") if pool.has_weights else ())}
        return frozenset(networks), [Stage(ENSEMBLE, "fit", "", 0.0, reason_skipped=reason)]
    graph = pool.images <= limits.max_graph_images
    few = pool.labels_per_class <= limits.few_labels_per_class
    if strategy == "label-spreading" or (strategy == "auto" and not pool.held_out and graph):
        return frozenset({"label-spreading", FEATURES, GRAPH}), []
    if strategy == "kernel" or (strategy == "auto" and not pool.held_out):
        return frozenset({"kernel", FEATURES, *((GRAPH,) if graph else ())}), []
    if not pool.held_out:
        raise InputError("strategy selftrain: no label can be held out. Label a second image of some class.")
    wanted = {"supervised", "kernel", FEATURES, ENSEMBLE, SELF_TRAINING}
    if pool.has_weights:
        wanted |= {"probe", "finetune"}
    if graph:
        wanted |= {GRAPH, *(("label-spreading",) if few else ())}
    if strategy == "selftrain" and few:
        wanted -= {"supervised"}
    return frozenset(wanted), []


def _arranged(config: FitConfig, pool: PoolSize, costs: CostModel, wanted: Collection[str]) -> Schedule:
    """The stages of what is wanted, whether or not their time is enough for anything."""
    weights, splits = config.schedule, [f"fold-{number}" for number in range(1, len(pool.held_out) + 1)]
    tried = [name for name in TRIED if name in wanted]
    few = pool.labels_per_class <= weights.few_labels_per_class
    members = [name for name in tried if name != "supervised" or not few] if ENSEMBLE in wanted else []
    candidates = [name for name in (*tried, ENSEMBLE, SELF_TRAINING) if name in wanted]
    if config.strategy == "selftrain" and SELF_TRAINING in wanted:
        candidates = [SELF_TRAINING]

    features = _feature_stages(config, pool, costs, wanted)
    predict = _trial_predictions(config, pool, costs, tried, members, SELF_TRAINING in wanted)
    shipping = {name: _shipping_predictions(config, pool, costs, name, members) for name in candidates}
    fixed = sum(stage.seconds for stage in [*features, *predict]) + max(map(_seconds, shipping.values()), default=0.0)
    trials = {"supervised": weights.supervised_trials, "finetune": weights.finetune_trials}
    trials = {name: weight for name, weight in trials.items() if name in tried and splits}
    if SELF_TRAINING in wanted:
        trials[SELF_TRAINING] = weights.self_training_trials
    trained_members = [name for name in members if name in trials]
    last = weights.teacher + weights.student if SELF_TRAINING in wanted else weights.final
    available = max(0.0, (1 - weights.reserve_fraction) * config.budget - fixed)
    unit = available / (sum(trials.values()) + len(trained_members) * weights.refit + last)

    stages = list(features)
    for name in [*tried, *((SELF_TRAINING,) if SELF_TRAINING in wanted else ())]:
        for split in splits:
            seconds = min(trials.get(name, 0.0) * unit / len(splits), _max_seconds(config, costs, name))
            stages.append(Stage(name, "fit", split, seconds))
            stages += [stage for stage in predict if (stage.learner, stage.split) == (name, split)]
    left = (1 - weights.reserve_fraction) * config.budget - _seconds(stages)
    for name in candidates:
        stages += _shipping(config, costs, name, members, shipping[name], max(0.0, left), unit)
    return Schedule(tuple(stages), tuple(candidates), tuple(members))


def _feature_stages(config: FitConfig, pool: PoolSize, costs: CostModel, wanted: Collection[str]) -> list[Stage]:
    stages = []
    if FEATURES in wanted:
        stages.append(Stage(FEATURES, "features", "", pool.images * costs.feature_image))
    if GRAPH in wanted:
        seconds = pool.images * (pool.images * costs.neighbour_value + costs.smoothed_image)
        stages.append(Stage(GRAPH, "features", "", seconds))
    return stages


def _trial_predictions(
    config: FitConfig, pool: PoolSize, costs: CostModel, tried: list[str], members: list[str], self_training: bool
) -> list[Stage]:
    """Each fold predicts what it holds out and, to estimate the class prior, some unlabelled images.

    Ensemble members predict all images where there is self-training, whose targets contain their predictions.
    """
    stages, prior_images = [], min(pool.unlabelled, config.prior.max_images)
    for name in [*tried, *((SELF_TRAINING,) if self_training else ())]:
        everything = self_training and name in members
        for number, held_out in enumerate(pool.held_out, 1):
            images = pool.images if everything else held_out + prior_images
            seconds = costs.predict(name, images, pool.labelled, config)
            stages.append(Stage(name, "predict", f"fold-{number}", seconds))
    return stages


def _shipping_predictions(
    config: FitConfig, pool: PoolSize, costs: CostModel, name: str, members: list[str]
) -> list[Stage]:
    """What a student's targets take: predictions of all images by models that were trained on all labels."""
    if name not in DISTILLED:
        return []
    learners = {ENSEMBLE: members, SELF_TRAINING: [*members, SELF_TRAINING]}.get(name, [name])
    return [
        Stage(each, "predict", "all", costs.predict(each, pool.images, pool.labelled, config), name)
        for each in learners
    ]


def _shipping(
    config: FitConfig,
    costs: CostModel,
    name: str,
    members: list[str],
    predictions: list[Stage],
    seconds: float,
    unit: float,
) -> list[Stage]:
    """The stages that make a candidate the shipped classifier, in so many seconds."""
    if name not in DISTILLED:
        return [Stage(name, "fit", "all", min(seconds, _max_seconds(config, costs, name)), name)]
    weights, stages, left = config.schedule, [], seconds - _seconds(predictions)
    for stage in predictions:
        trained = stage.learner in members and costs.training_step(stage.learner) > 0
        refit = min(weights.refit * unit, _max_seconds(config, costs, stage.learner)) if trained else 0.0
        if stage.learner == SELF_TRAINING:
            teacher = weights.teacher / (weights.teacher + weights.student) * max(0.0, left)
            refit = min(teacher, _max_seconds(config, costs, SELF_TRAINING))
        left -= refit
        stages += [Stage(stage.learner, "fit", "all", refit, name), stage]
    return [*stages, Stage(STUDENT, "fit", "all", max(0.0, left), name)]


def _max_seconds(config: FitConfig, costs: CostModel, learner: str) -> float:
    """The longest training of a learner: 0 if it is not trained in steps."""
    steps = {"supervised": config.supervised.max_steps, "finetune": config.finetune.max_steps}
    steps[SELF_TRAINING] = config.self_training.max_steps
    return steps.get(learner, 0) * costs.training_step(learner)


def _problem(config: FitConfig, pool: PoolSize, costs: CostModel, schedule: Schedule) -> tuple[str, str] | None:
    """The first part of a schedule that has too little time, and why; None if all have enough."""
    longest = config.schedule.max_feature_fraction * config.budget
    features, graph = schedule.seconds(FEATURES, "features", ""), schedule.seconds(GRAPH, "features", "")
    if features > longest:
        return FEATURES, f"features of {pool.images:,} images take {features:.0f} s, more than half of the budget"
    if features + graph > longest:
        return GRAPH, f"nearest neighbours of {pool.images:,} images take {graph:.0f} s, too long for the budget"
    if SELF_TRAINING in schedule.candidates:
        seconds = schedule.seconds(SELF_TRAINING, "fit", "fold-1")
        if seconds < config.self_training.min_steps * costs.self_training_step:
            steps = f"the {config.self_training.min_steps} steps that it needs"
            return SELF_TRAINING, f"{seconds:.0f} s per fold are too few for {steps}"
    if pool.labelled > config.splits.many_labels and "supervised" in schedule.candidates:
        wanted, seconds = config.supervised.max_steps, schedule.seconds("supervised", "fit", "fold-1")
        beside = next((name for name in (SELF_TRAINING, ENSEMBLE, "kernel") if name in schedule.candidates), None)
        if beside is not None and seconds < wanted * costs.supervised_step:
            would_have = f"{seconds / costs.supervised_step:,.0f}"
            return beside, f"with many labels supervised training can use {wanted:,} steps, and would have {would_have}"
    batch_size = config.distillation.batch_size(pool.unlabelled + pool.labelled)
    for name in reversed(schedule.candidates):
        if name in DISTILLED:
            seconds = schedule.seconds(STUDENT, "fit", "all", name)
            if seconds < config.distillation.min_steps * costs.student_step(batch_size):
                steps = f"the {config.distillation.min_steps} steps that the student needs"
                return name, f"{seconds:.0f} s are left for {steps}, too few"
    return None


def _seconds(stages: Collection[Stage]) -> float:
    return sum(stage.seconds for stage in stages)
