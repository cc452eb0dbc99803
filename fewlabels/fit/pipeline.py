"""A fit from beginning to end: try candidates on held-out labels, ship the best, estimate what it will reach."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax, softmax

from fewlabels._internal.errors import InputError, sanitize
from fewlabels._internal.tensors import read_weights
from fewlabels.backbones.architectures import make_backbone, refuse_size
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import load_backbone
from fewlabels.data.source import ArraySource, digest, identity, random_rows
from fewlabels.features.extractor import Features
from fewlabels.fit.cache import StageCache
from fewlabels.fit.calibration import (
    class_frequency_offsets,
    fit_temperature_to_confidence,
    mask_absent_classes,
)
from fewlabels.fit.config import FitConfig
from fewlabels.fit.costs import measured_costs
from fewlabels.fit.data import LabeledPool, Split, all_labels, make_splits
from fewlabels.fit.distillation import Student, agreement, heldback_rows
from fewlabels.fit.ensemble import OutOfFold, combine, cross_val_predict_logits
from fewlabels.fit.label_shift import PriorEstimate, adjust_logits, estimate_class_prior, label_frequencies
from fewlabels.fit.learners import (
    FineTune,
    FitContext,
    KernelRidgeLearner,
    LabelSpreadingLearner,
    Learner,
    NetworkLearner,
    Probe,
    Supervised,
)
from fewlabels.fit.model_selection import confusion_of, rank_models, score_of, standard_error
from fewlabels.fit.performance import (
    Estimate,
    disagreement_losses,
    expected_accuracy,
    expected_macro_f1,
    mean_over_classes,
)
from fewlabels.fit.schedule import (
    DISTILLED,
    ENSEMBLE,
    GRAPH,
    SELF_TRAINING,
    STUDENT,
    TRIED,
    CostModel,
    PoolSize,
    Schedule,
    build_schedule,
)
from fewlabels.fit.self_training import SelfTraining
from fewlabels.metrics.effective_size import design_effect, prior_weights
from fewlabels.metrics.selective import selective_thresholds, transfer_thresholds
from fewlabels.training.callbacks import Observer
from fewlabels.training.pairs import Views
from fewlabels.training.precision import fastest_precision


class CandidateScore(NamedTuple):
    """How a candidate did on held-out labels."""

    macro_f1: float
    standard_error: float
    """Of its difference to the best candidate; 0 for the best."""


@dataclass(frozen=True)
class FitResult:
    """A classifier, and what is to be expected of it."""

    network: Classifier
    """In evaluation mode, on the CPU; calibrated where labels could be held out."""
    strategy: str
    """The candidate that is shipped."""
    estimate: Estimate | None
    """Expected macro-F1; None where no label could be held out."""
    candidates: dict[str, CandidateScore]
    """Every candidate's score on held-out labels; empty where none could be held out."""
    messages: list[str]
    """What was decided and why, line by line."""
    pseudo_labels: dict[str, int]
    """Predicted classes of the unlabelled images that it was trained on; empty where it was trained on labels alone."""
    schedule: Schedule
    seconds: float
    """That all starts of the fit have taken together."""


@dataclass(frozen=True)
class Trained:
    """A network that is not calibrated yet, with what calibrates it and what is known of its performance."""

    network: Classifier
    scale: float
    """Factor of its logits."""
    offsets: np.ndarray
    """float [K], added to its logits."""
    thresholds: dict[str, float]
    """As :func:`~fewlabels.fit.calibration.selective_thresholds` has them."""
    oof: OutOfFold | None
    """Held-out predictions that stand for its own; None where no label could be held out."""
    prior: PriorEstimate
    loss: float = 0.0
    """Macro-F1 that it is expected to lose against them."""
    pseudo_labels: Mapping[str, int] | None = None


def run_fit(
    pool: LabeledPool,
    config: FitConfig,
    views: tuple[Views, Views],
    folder: Path,
    seed: int,
    observer: Callable[[str], Observer],
    device: torch.device = torch.device("cpu"),
    test_images: int | None = None,
    costs: CostModel | None = None,
) -> FitResult:
    """Fit the best classifier that the labels allow within the budget.

    Finished stages are kept in ``folder/stages``: a fit that was stopped resumes, exactly where costs are counted.

    Args:
        pool: images and labels.
        config: see there.
        views: weak and strong.
        folder: for what is finished.
        seed: of weights, order, views and splits.
        observer: makes one for each training, by name.
        device: where networks are trained.
        test_images: number of images of a test whose score is estimated.
        costs: of the schedule; None: measured on this machine, and the trainings follow the clock.

    Raises:
        InputError: if the configuration does not suit the images or the budget, or the folder holds another fit.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; what is finished is kept.
    """
    refuse_unsuitable(pool.source, config)  # before anything is written
    fit = _begin(pool, config, views, folder, seed, observer, device, costs)
    try:
        trained, candidates = _best_candidate(fit) if fit.splits else (_without_holdout(fit), {})
        return _result(fit, trained, candidates, test_images)
    finally:
        fit.context.cache.save_seconds()


def plan_fit(
    pool: LabeledPool, config: FitConfig, views: tuple[Views, Views], seed: int, device: torch.device
) -> Schedule:
    """The schedule that a fit would have on this machine; nothing is trained or written.

    Raises:
        InputError: as :func:`run_fit`.
    """
    refuse_unsuitable(pool.source, config)
    splits = make_splits(pool.labels, pool.groups, seed, config.splits)
    costs = measured_costs(config, pool.source.shape, views[1], device, fastest_precision(device.type))
    return build_schedule(config, _size_of(pool, splits, config), costs)


def refuse_unsuitable(source: ArraySource, config: FitConfig) -> None:
    """Refuse backbones and weights that a fit of these images could not use.

    Raises:
        InputError: if a backbone does not take images of this size, or the weights are of another architecture or were
            trained on labels.
    """
    channels, height, width = source.shape
    if max(height, width) < config.min_image_side:
        least = config.min_image_side
        raise InputError(f"images of {height}x{width} pixels: the longer side needs {least}. Enlarge them first.")
    for backbone in (config.backbone, config.teacher_backbone):
        refuse_size("images", height, width, backbone, make_backbone(backbone, channels).image_size)
    if config.init_from is None:
        return
    weights = Path(config.init_from)
    if not weights.is_file():
        raise InputError(f"{weights}: no such model file. Make a backbone.safetensors with: fewlabels pretrain")
    if read_weights(weights)[1].get("kind") == "classifier":
        raise InputError(
            f"{weights}: a classifier, trained on labels that would be held out here. "
            "Pass a backbone.safetensors written by: fewlabels pretrain"
        )
    load_backbone(Classifier(config.backbone, ["any"], channels), weights)


class _Messages:
    """Lines that are shown when they are written, and kept."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._show = show

    def add(self, line: str) -> None:
        self.lines.append(line)
        self._show(line)


@dataclass(frozen=True)
class _Fit:
    """What every part of a fit works with."""

    context: FitContext
    pool: LabeledPool
    splits: list[Split]
    schedule: Schedule
    features: Features
    messages: _Messages
    sample: np.ndarray
    """int64, ascending: unlabelled rows that estimate the class prior; empty where there are too few."""

    @property
    def config(self) -> FitConfig:
        return self.context.config

    def learner(self, name: str) -> Learner:
        """A learner that needs nothing but labels."""
        context, weights = self.context, self.config.init_from
        if name == "supervised":
            return Supervised(context, self.config.backbone)
        if name == "kernel":
            return KernelRidgeLearner(context, self.features)
        if name == "label-spreading":
            return LabelSpreadingLearner(context, self.features)
        assert weights is not None  # the others are scheduled only with weights
        return (Probe if name == "probe" else FineTune)(context, self.config.backbone, Path(weights))

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Log-probabilities float [N, K] of logits; classes without labels have none."""
        masked: np.ndarray = log_softmax(mask_absent_classes(logits, self.pool.labels), axis=1)
        return masked

    def seconds_for(self, learner: str, ships: str) -> float:
        """The time of a stage that ships a candidate: as scheduled; by the clock, its part of the time that is left.

        The last stage gets all that is left, which is more than scheduled where the stages before it were early.
        """
        scheduled = self.schedule.seconds(learner, "fit", "all", ships)
        if not self.context.costs.clock:
            return scheduled
        limits, stages = self.config.schedule, [stage for stage in self.schedule.stages if stage.ships == ships]
        first = next(at for at, stage in enumerate(stages) if (stage.learner, stage.task) == (learner, "fit"))
        ahead = sum(stage.seconds for stage in stages[first:])
        left = (1 - limits.reserve_fraction) * self.config.budget - self.context.cache.seconds()
        if first == len(stages) - 1:
            return max(left, limits.min_final_fraction * scheduled)
        return scheduled * float(np.clip(left / max(ahead, 1e-9), limits.min_final_fraction, 1.0))


def _begin(
    pool: LabeledPool,
    config: FitConfig,
    views: tuple[Views, Views],
    folder: Path,
    seed: int,
    observer: Callable[[str], Observer],
    device: torch.device,
    costs: CostModel | None,
) -> _Fit:
    """Splits, schedule and features; what an earlier start has decided is read back."""
    precision = fastest_precision(device.type)
    weights = None if config.init_from is None else digest(Path(config.init_from).read_bytes())
    inputs = {**identity(pool.source), "views": [str(view) for view in views], "seed": seed, "precision": precision}
    decides = {**asdict(replace(config, init_from=weights)), "counted": None if costs is None else asdict(costs)}
    cache = StageCache(folder / "stages", inputs)
    cache.refuse_other_fit({**inputs, **decides})
    splits = make_splits(pool.labels, pool.groups, seed, config.splits)

    def scheduled() -> dict[str, Any]:
        used = measured_costs(config, pool.source.shape, views[1], device, precision) if costs is None else costs
        return {
            "costs": asdict(used),
            "schedule": build_schedule(config, _size_of(pool, splits, config), used).as_json(),
        }

    decided = cache.get_or_build("schedule", decides, scheduled)
    cache.save_config({**inputs, **decides})
    schedule = Schedule.from_json(decided["schedule"])
    context = FitContext(config, cache, CostModel(**decided["costs"]), *views, seed, device, precision, observer)
    messages = _Messages(observer("fit").say)
    for stage in schedule.skipped:
        messages.add(f"{stage.learner}: not tried; {stage.reason_skipped}")
    counts = np.bincount(pool.labels, minlength=pool.num_classes)
    for cls in np.flatnonzero(counts == 0):
        messages.add(f"no image is labelled {sanitize(pool.source.class_names[cls])!r}: it is never predicted")
    sample = random_rows(pool.unlabelled, config.prior.max_images, seed, "class prior")
    single = len(splits) == 1 and len(pool.labelled) <= config.splits.many_labels
    if len(pool.unlabelled) < config.schedule.min_unlabelled or single:
        sample = sample[:0]  # too few images, or a single small hold-out, say nothing of the class prior
    features = Features(pool.source, config.features, schedule.has(GRAPH), _embedding(context, pool), weights or "")
    return _Fit(context, pool, splits, schedule, features, messages, sample)


def _embedding(context: FitContext, pool: LabeledPool) -> Callable[[ArraySource], np.ndarray] | None:
    """The frozen pretrained backbone, if there are weights."""
    if context.config.init_from is None:
        return None
    network = context.new_network(context.config.backbone, pool, all_labels(pool))
    load_backbone(network, Path(context.config.init_from))
    return partial(outputs, network.backbone)


def _size_of(pool: LabeledPool, splits: Sequence[Split], config: FitConfig) -> PoolSize:
    held_out = tuple(len(split.held_out) for split in splits)
    sizes = len(pool.source), len(pool.labelled), len(pool.unlabelled)
    return PoolSize(*sizes, pool.labels_per_class, held_out, config.init_from is not None)


def _best_candidate(fit: _Fit) -> tuple[Trained, dict[str, OutOfFold]]:
    """Try every candidate on held-out labels; train the best one for shipping."""
    schedule, calibration = fit.schedule, fit.config.calibration
    tried = {name: _tried(fit, name) for name in TRIED if schedule.has(name)}
    combined = {name: combine({name: oof}, calibration) for name, oof in tried.items()}
    if schedule.members:
        combined[ENSEMBLE] = combine({name: tried[name] for name in schedule.members}, calibration)
    for name, oof in combined.items():
        _report_score(fit, name, oof)
    reference = combined[ENSEMBLE if schedule.members else rank_models(combined)[0]]
    prior = _class_prior(fit, reference)
    if SELF_TRAINING in schedule.candidates:
        combined[SELF_TRAINING] = _tried_self_training(fit, combined[ENSEMBLE], prior)
        _report_score(fit, SELF_TRAINING, combined[SELF_TRAINING])
    candidates = {name: combined[name] for name in schedule.candidates}
    best = rank_models(candidates)[0]
    fit.messages.add(f"{best}: chosen by macro-F1 on held-out labels")
    if best not in DISTILLED:
        return _shipped_network(fit, best, candidates[best], prior), candidates
    members = combined[ENSEMBLE] if best in (ENSEMBLE, SELF_TRAINING) else candidates[best]
    return _shipped_student(fit, best, candidates[best], members, prior), candidates


def _report_score(fit: _Fit, name: str, oof: OutOfFold) -> None:
    fit.messages.add(f"{name}: macro-F1 {score_of(oof):.3f} on {len(oof.labels):,} held-out labels")


def _tried(fit: _Fit, name: str) -> OutOfFold:
    """Held-out predictions of a learner that needs nothing but labels, and what else its splits predict."""
    schedule, pool = fit.schedule, fit.pool
    everything = SELF_TRAINING in schedule.candidates and name in schedule.members
    rows = np.arange(len(pool.source)) if everything else fit.sample
    seconds = schedule.seconds(name, "fit", fit.splits[0].name)
    return cross_val_predict_logits(fit.learner(name), pool, fit.splits, rows, seconds)


def _tried_self_training(fit: _Fit, ensemble: OutOfFold, prior: PriorEstimate) -> OutOfFold:
    """Held-out predictions of teachers and the ensemble together."""
    corrected = _corrected(fit, ensemble, prior)
    log_priors = {
        split.name: fit.log_probabilities(logits) for split, logits in zip(fit.splits, corrected.others, strict=True)
    }
    teacher = SelfTraining(fit.context, fit.config.teacher_backbone, prior.prior, log_priors)
    seconds = fit.schedule.seconds(SELF_TRAINING, "fit", fit.splits[0].name)
    teachers = cross_val_predict_logits(teacher, fit.pool, fit.splits, fit.sample, seconds)
    return combine({"teacher": teachers, ENSEMBLE: ensemble}, fit.config.calibration)


def _class_prior(fit: _Fit, oof: OutOfFold) -> PriorEstimate:
    """The class prior of the unlabelled images, by predictions of each split for some of them."""
    pool, config = fit.pool, fit.config
    if not len(fit.sample):
        return label_frequencies(pool.labels, pool.num_classes)
    known = pool.classes
    estimate = estimate_class_prior(
        [softmax(logits[:, known], axis=1) for logits in oof.of_rows(fit.sample)],
        softmax(oof.held_out[:, known], axis=1),
        np.searchsorted(known, oof.labels),
        pool.labels_per_class <= config.schedule.few_labels_per_class,
        design_effect(oof.correct, oof.groups),
        config.prior,
    )
    prior = np.zeros(pool.num_classes)
    prior[known] = estimate.prior
    return replace(estimate, prior=prior)


def _corrected(fit: _Fit, oof: OutOfFold, prior: PriorEstimate) -> OutOfFold:
    """Predictions corrected to the class prior, each split's by its own predictions of the sample."""
    held_out, others, start = [], [], 0
    for split, logits, sample in zip(fit.splits, oof.others, oof.of_rows(fit.sample), strict=True):
        end = start + len(split.held_out)
        reference = mask_absent_classes(sample, fit.pool.labels)
        held_out.append(adjust_logits(oof.held_out[start:end], prior, reference))
        others.append(adjust_logits(logits, prior, reference))
        start = end
    return replace(oof, held_out=np.concatenate(held_out), others=others)


def _shipped_network(fit: _Fit, name: str, oof: OutOfFold, prior: PriorEstimate) -> Trained:
    """A network trained on all labels, calibrated as on held-out labels."""
    learner = fit.learner(name)
    assert isinstance(learner, NetworkLearner)
    network = learner.fit(fit.pool, all_labels(fit.pool), fit.seconds_for(name, name)).network
    offsets = class_frequency_offsets(fit.pool.labels, fit.pool.num_classes)
    thresholds = selective_thresholds(softmax(oof.held_out, axis=1).max(axis=1), oof.correct, _weights(oof, prior))
    return Trained(network, oof.weights.weights[name], oof.weights.frequency_weight * offsets, thresholds, oof, prior)


def _shipped_student(fit: _Fit, name: str, oof: OutOfFold, members: OutOfFold, prior: PriorEstimate) -> Trained:
    """A network distilled from the candidate's predictions of all images.

    Args:
        fit: see there.
        name: the candidate.
        oof: its held-out predictions.
        members: those of the learners that the predictions are combined from.
        prior: class prior that the targets are corrected to.
    """
    heldback = heldback_rows(fit.pool.unlabelled, fit.context.seed, fit.config.distillation)
    pool = replace(fit.pool, unlabelled=np.setdiff1d(fit.pool.unlabelled, heldback))
    oof = _corrected(fit, oof, prior)
    expected = expected_accuracy(oof.correct, _weights(oof, prior))
    log_targets = _corrected_targets(fit, _combined_predictions(fit, name, members), prior)
    init = _supervised_init(fit)
    if name == SELF_TRAINING:
        teacher, logits = _teacher(fit, pool, log_targets, prior)
        teachers = log_softmax(logits / fit_temperature_to_confidence(logits[heldback], expected), axis=1)
        both = teachers + log_targets
        both = log_softmax(both / fit_temperature_to_confidence(both[heldback], expected), axis=1)
        log_targets = _corrected_targets(fit, both, prior)
        init = teacher if fit.config.teacher_backbone == fit.config.backbone else init
    student = _student(fit, name, pool, log_targets, init)
    return _calibrated_student(fit, student, log_targets, heldback, oof, expected, prior)


def _combined_predictions(fit: _Fit, name: str, members: OutOfFold) -> np.ndarray:
    """Combined logits float32 [N, K] of all images, by learners that were trained on all labels."""
    split, rows, logits = all_labels(fit.pool), np.arange(len(fit.pool.source)), {}
    for member in members.weights.used:
        logits[member] = fit.learner(member).predict_logits(fit.pool, split, fit.seconds_for(member, name), rows)
    offsets = class_frequency_offsets(fit.pool.labels, fit.pool.num_classes)
    return members.weights.combine(logits, offsets)


def _corrected_targets(fit: _Fit, logits: np.ndarray, prior: PriorEstimate) -> np.ndarray:
    """Log-probabilities float [N, K], corrected to the class prior."""
    masked = mask_absent_classes(logits, fit.pool.labels)
    corrected: np.ndarray = log_softmax(adjust_logits(masked, prior, masked[fit.sample]), axis=1)
    return corrected


def _supervised_init(fit: _Fit) -> Classifier | None:
    """The supervised network of the first split, if there is one: a start for the student."""
    if not fit.splits or not fit.schedule.has("supervised"):
        return None
    learner, split = fit.learner("supervised"), fit.splits[0]
    assert isinstance(learner, NetworkLearner)
    return learner.fit(fit.pool, split, fit.schedule.seconds("supervised", "fit", split.name)).network


def _teacher(
    fit: _Fit, pool: LabeledPool, log_prior: np.ndarray, prior: PriorEstimate
) -> tuple[Classifier, np.ndarray]:
    """The network that is self-trained on all labels, and its logits float32 [N, K] of all images."""
    split, seconds = all_labels(pool), fit.seconds_for(SELF_TRAINING, SELF_TRAINING)
    learner = SelfTraining(fit.context, fit.config.teacher_backbone, prior.prior, {split.name: log_prior})
    fitted = learner.fit(pool, split, seconds)
    if fitted.warning:
        fit.messages.add(f"{SELF_TRAINING}: {fitted.warning}")
    return fitted.network, learner.predict_logits(pool, split, seconds, np.arange(len(pool.source)))


def _student(fit: _Fit, name: str, pool: LabeledPool, log_targets: np.ndarray, init: Classifier | None) -> Classifier:
    """The student; or the network that it starts from, if that agrees more with the targets on images held back."""
    rows, heldback = pool.unlabelled, np.setdiff1d(fit.pool.unlabelled, pool.unlabelled)
    student = Student(fit.context, fit.config.backbone, rows, np.exp(log_targets[rows]), init)
    network = student.fit(pool, all_labels(pool), fit.seconds_for(STUDENT, name)).network
    images, targets = fit.pool.source.subset(heldback), log_targets[heldback]
    agrees = agreement(outputs(network, images), targets)
    about = f"with its targets on {len(heldback):,} images held back"
    fit.messages.add(f"{STUDENT}: agrees {about} for {agrees:.1%}")
    if init is not None and (before := agreement(outputs(init, images), targets)) > agrees:
        fit.messages.add(f"{STUDENT}: the network that it starts from agrees {about} for {before:.1%}, and is shipped")
        return init
    return network


def _calibrated_student(
    fit: _Fit,
    network: Classifier,
    log_targets: np.ndarray,
    heldback: np.ndarray,
    oof: OutOfFold,
    expected: float,
    prior: PriorEstimate,
) -> Trained:
    """Temperature, thresholds and expected loss of a student, by images held back and its targets' held-out score."""
    logits, targets = outputs(network, fit.pool.source.subset(heldback)), np.exp(log_targets[heldback])
    losses = disagreement_losses(logits.argmax(axis=1), targets, fit.config.performance)
    temperature = fit_temperature_to_confidence(logits, expected - float(losses.mean()), fit.config.calibration)
    confidence, weights = softmax(oof.held_out, axis=1).max(axis=1), _weights(oof, prior)
    thresholds = transfer_thresholds(
        selective_thresholds(confidence, oof.correct, weights),
        confidence,
        softmax(logits / temperature, axis=1).max(axis=1),
        weights,
    )
    loss, counts = mean_over_classes(losses, targets.argmax(axis=1)), _class_counts(fit, log_targets)
    fit.messages.add(_describe(counts, float(np.exp(log_targets[fit.pool.unlabelled].max(axis=1)).mean())))
    offsets = np.zeros(fit.pool.num_classes)
    return Trained(network, 1 / temperature, offsets, thresholds, oof, prior, loss, counts)


def _without_holdout(fit: _Fit) -> Trained:
    """The one candidate that is scheduled where no label can be held out."""
    name, pool = fit.schedule.candidates[0], fit.pool
    fit.messages.add(f"no label can be held out: {name} is shipped, neither compared, calibrated nor estimated")
    prior, offsets = label_frequencies(pool.labels, pool.num_classes), np.zeros(pool.num_classes)
    learner = fit.learner(name)
    if name not in DISTILLED:
        assert isinstance(learner, NetworkLearner)
        network = learner.fit(pool, all_labels(pool), fit.seconds_for(name, name)).network
        return Trained(network, 1.0, offsets, {}, None, prior)
    logits = learner.predict_logits(pool, all_labels(pool), 0.0, np.arange(len(pool.source)))
    confidence = fit.config.calibration.confidence_without_holdout
    temperature = fit_temperature_to_confidence(logits[pool.unlabelled], confidence, fit.config.calibration)
    log_targets = fit.log_probabilities(logits / temperature)
    heldback = heldback_rows(pool.unlabelled, fit.context.seed, fit.config.distillation)
    network = _student(fit, name, replace(pool, unlabelled=np.setdiff1d(pool.unlabelled, heldback)), log_targets, None)
    return Trained(network, 1.0, offsets, {}, None, prior, pseudo_labels=_class_counts(fit, log_targets))


def _weights(oof: OutOfFold, prior: PriorEstimate) -> np.ndarray:
    """Weights of held-out labels that give classes the prior's frequencies, and count groups as fewer images."""
    weights: np.ndarray = prior_weights(oof.labels, prior.prior) / design_effect(oof.correct, oof.groups)
    return weights


def _class_counts(fit: _Fit, log_targets: np.ndarray) -> dict[str, int]:
    """How many unlabelled images are predicted to be of each class."""
    predicted = log_targets[fit.pool.unlabelled].argmax(axis=1)
    counts = np.bincount(predicted, minlength=fit.pool.num_classes).tolist()
    return dict(zip(fit.pool.source.class_names, counts, strict=True))


def _describe(counts: Mapping[str, int], confidence: float) -> str:
    fewest, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    return (
        f"pseudo-labels of {sum(counts.values()):,} images: fewest {sanitize(fewest)} ({counts[fewest]:,}), "
        f"most {sanitize(most)} ({counts[most]:,}); mean confidence {confidence:.0%}"
    )


def _result(fit: _Fit, trained: Trained, candidates: Mapping[str, OutOfFold], test_images: int | None) -> FitResult:
    """The calibrated classifier with its estimate."""
    best = rank_models(candidates)[0] if candidates else fit.schedule.candidates[0]
    scores = {name: score_of(oof) for name, oof in candidates.items()}
    top = max(scores, key=lambda name: scores[name]) if scores else best
    errors = {name: 0.0 if name == top else standard_error(oof, candidates[top]) for name, oof in candidates.items()}
    absent = np.setdiff1d(np.arange(fit.pool.num_classes), fit.pool.labels)
    network = trained.network.cpu()
    network.rescale_logits(trained.scale, trained.offsets, absent)
    network.thresholds = trained.thresholds
    return FitResult(
        network,
        best,
        None if trained.oof is None else _estimate(fit, best, trained, trained.oof, test_images),
        {name: CandidateScore(scores[name], errors[name]) for name in candidates},
        fit.messages.lines,
        dict(trained.pseudo_labels or {}),
        fit.schedule,
        round(fit.context.cache.seconds(), 1),
    )


def _estimate(fit: _Fit, best: str, trained: Trained, oof: OutOfFold, test_images: int | None) -> Estimate:
    """The expected macro-F1 of the final model, from held-out predictions of models trained on fewer labels."""
    train_fraction = float(np.mean([len(split.train) for split in fit.splits])) / len(fit.pool.labelled)
    if len(fit.schedule.candidates) > 1:  # the best of several on the same labels looks better than it is
        train_fraction **= fit.config.performance.selection_exponent
    not_held_out = None
    if fit.pool.groups is None:  # of few labels without groups a hold-out may lack a class by chance
        not_held_out = np.bincount(fit.pool.labels, minlength=fit.pool.num_classes) < 2
    return expected_macro_f1(
        confusion_of(oof), trained.prior.prior, fit.context.seed, test_images, train_fraction, trained.loss,
        design_effect(oof.correct, oof.groups), not_held_out, fit.config.performance,
    )  # fmt: skip
