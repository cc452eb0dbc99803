"""The schedule as a table: what goes in, what comes out."""

from dataclasses import replace

import pytest

from fewlabels._internal.errors import InputError
from fewlabels.fit.config import FitConfig
from fewlabels.fit.schedule import CostModel, PoolSize, Schedule, build_schedule

FAST = CostModel(
    clock=True,
    supervised_step=0.02,
    self_training_step=0.07,
    student_image=0.0002,
    step=0.01,
    predict_image=0.00002,
    teacher_predict_image=0.0001,
    feature_image=0.002,
    kernel_value=2e-8,
    neighbour_value=5e-9,
    smoothed_image=1e-4,
)
"""About what Fashion-MNIST costs on two cores."""
LARGE = replace(
    FAST, supervised_step=0.13, self_training_step=1.3, student_image=0.002, predict_image=0.001, feature_image=0.004
)
"""About what 96x96 pixels cost."""
FEW = PoolSize(50_000, 100, 49_900, 10, (34, 33, 33))
SOME = PoolSize(50_000, 1000, 49_000, 100, (334, 333, 333))
MANY = PoolSize(50_000, 10_000, 40_000, 1000, (1000,))
CELLS = PoolSize(1624, 100, 1524, 50, (34, 33, 33))
NONE_LEFT = PoolSize(1000, 1000, 0, 100, (334, 333, 333))
ONE_EACH = PoolSize(1000, 10, 990, 1, ())
ALL = ("kernel", "label-spreading", "supervised", "ensemble", "self-training")


def scheduled(pool: PoolSize, costs: CostModel = FAST, **options) -> Schedule:
    return build_schedule(FitConfig(**options), pool, costs)


@pytest.mark.parametrize(
    ("pool", "costs", "options", "candidates"),
    [
        (FEW, FAST, {}, ALL),
        (SOME, FAST, {}, ("kernel", "supervised", "ensemble", "self-training")),
        (CELLS, LARGE, {}, ("kernel", "label-spreading", "supervised", "ensemble")),
        (MANY, FAST, {}, ("supervised",)),
        (MANY, FAST, {"budget": 12_000}, ("kernel", "supervised", "ensemble", "self-training")),
        (NONE_LEFT, FAST, {}, ("supervised",)),
        (ONE_EACH, FAST, {}, ("label-spreading",)),
        (replace(FEW, images=250_000), FAST, {"budget": 3600}, ("kernel", "supervised", "ensemble", "self-training")),
        (replace(ONE_EACH, images=250_000), FAST, {"budget": 3600}, ("kernel",)),
        (replace(ONE_EACH, has_weights=True), FAST, {"budget": 1}, ("probe",)),
        (FEW, FAST, {"budget": 20}, ("supervised",)),
        (
            replace(FEW, has_weights=True),
            FAST,
            {},
            ("kernel", "label-spreading", "probe", "supervised", "finetune", "ensemble", "self-training"),
        ),
        (replace(NONE_LEFT, has_weights=True), FAST, {}, ("probe", "supervised", "finetune")),
        (FEW, FAST, {"strategy": "supervised"}, ("supervised",)),
        (FEW, FAST, {"strategy": "kernel"}, ("kernel",)),
        (FEW, FAST, {"strategy": "label-spreading"}, ("label-spreading",)),
        (ONE_EACH, FAST, {"strategy": "kernel"}, ("kernel",)),
        (FEW, FAST, {"strategy": "selftrain"}, ("self-training",)),
    ],
)
def test_candidates_of_a_schedule(pool, costs, options, candidates):
    assert scheduled(pool, costs, **options).candidates == candidates


@pytest.mark.parametrize(
    ("pool", "costs", "options", "dropped", "reason"),
    [
        (CELLS, LARGE, {}, "self-training", "per fold are too few for the 150 steps"),
        (MANY, FAST, {}, "self-training", "supervised training can use 20,000 steps"),
        (MANY, FAST, {}, "ensemble", "supervised training can use 20,000 steps"),
        (NONE_LEFT, FAST, {}, "ensemble", "200 images without a label are needed, there are 0"),
        (FEW, FAST, {"budget": 150}, "features", "features of 50,000 images take 100 s, more than half of the budget"),
        (FEW, FAST, {"budget": 210}, "graph", "nearest neighbours of 50,000 images take 18 s, too long"),
        (replace(CELLS, labels_per_class=60), replace(LARGE, student_image=0.02), {}, "ensemble", "too few"),
    ],
)
def test_reasons_of_what_is_skipped(pool, costs, options, dropped, reason):
    skipped = {stage.learner: stage.reason_skipped for stage in scheduled(pool, costs, **options).skipped}
    assert reason in skipped[dropped]


@pytest.mark.parametrize(
    ("pool", "costs", "options", "words"),
    [
        (CELLS, LARGE, {"strategy": "selftrain"}, "strategy selftrain: .* 150 steps .*--budget, or choose auto"),
        (FEW, FAST, {"strategy": "kernel", "budget": 150}, "strategy kernel: features of 50,000 images take 100 s"),
        (FEW, FAST, {"strategy": "label-spreading", "budget": 210}, "strategy label-spreading: nearest neighbours"),
        (CELLS, LARGE, {"strategy": "kernel", "budget": 20}, "strategy kernel: .* steps that the student needs"),
        (NONE_LEFT, FAST, {"strategy": "kernel"}, "strategy kernel: 200 images without a label are needed"),
        (NONE_LEFT, FAST, {"strategy": "selftrain"}, "strategy selftrain: 200 images without a label are needed"),
        (ONE_EACH, FAST, {"strategy": "selftrain"}, "strategy selftrain: no label can be held out"),
    ],
)
def test_a_named_strategy_that_cannot_run_is_refused(pool, costs, options, words):
    with pytest.raises(InputError, match=words):
        scheduled(pool, costs, **options)


@pytest.mark.parametrize("pool", [FEW, SOME, MANY, CELLS, NONE_LEFT, ONE_EACH])
@pytest.mark.parametrize("costs", [FAST, LARGE])
@pytest.mark.parametrize("budget", [60, 600, 3600])
def test_whatever_is_shipped_the_schedule_fits_the_budget_and_leaves_the_last_stage_most(pool, costs, budget):
    schedule = scheduled(pool, costs, budget=budget)
    for candidate in schedule.candidates:
        assert schedule.total_seconds(candidate) <= budget
        last = [stage for stage in schedule.stages if stage.ships == candidate][-1]
        assert last.task == "fit"
        assert last.seconds > 0


@pytest.mark.parametrize("pool", [FEW, SOME, CELLS, ONE_EACH])
def test_every_candidate_has_all_that_it_takes_to_ship_it(pool):
    costs = LARGE if pool is CELLS else FAST
    schedule = scheduled(pool, costs)
    batch_size = FitConfig().distillation.batch_size(pool.images)
    for candidate in schedule.candidates:
        if candidate == "supervised":
            assert schedule.seconds("supervised", "fit", "all", candidate) > 0
            continue
        student = schedule.seconds("student", "fit", "all", candidate)
        assert student >= FitConfig().distillation.min_steps * costs.student_step(batch_size)
        learners = {"ensemble": schedule.members, "self-training": (*schedule.members, "self-training")}
        for learner in learners.get(candidate, (candidate,)):
            stages = [stage.task for stage in schedule.stages if stage.ships == candidate and stage.learner == learner]
            assert stages == ["fit", "predict"]


def test_supervised_training_is_in_the_ensemble_only_with_enough_labels():
    assert scheduled(FEW).members == ("kernel", "label-spreading")
    assert scheduled(SOME).members == ("kernel", "supervised")


def test_trials_take_their_weights_of_what_predictions_and_features_leave():
    schedule = scheduled(FEW)
    supervised = schedule.seconds("supervised", "fit", "fold-1")
    assert schedule.seconds("self-training", "fit", "fold-1") == pytest.approx(2 * supervised)
    assert schedule.seconds("supervised", "fit", "fold-3") == supervised
    teacher = schedule.seconds("self-training", "fit", "all", "self-training")
    student = schedule.seconds("student", "fit", "all", "self-training")
    assert teacher / student == pytest.approx(24 / 4)
    assert schedule.seconds("features", "features", "") == pytest.approx(100)


def test_training_stops_at_its_most_steps():
    schedule = scheduled(MANY, budget=100_000, strategy="supervised")
    assert schedule.seconds("supervised", "fit", "fold-1") == pytest.approx(20_000 * 0.02)
    assert schedule.seconds("supervised", "fit", "all", "supervised") == pytest.approx(20_000 * 0.02)


def test_time_that_a_capped_trial_leaves_goes_to_the_last_stage():
    capped = replace(FitConfig(), supervised=replace(FitConfig().supervised, max_steps=10))
    plain, short = (build_schedule(config, FEW, FAST) for config in (FitConfig(), capped))
    assert short.seconds("student", "fit", "all", "kernel") > plain.seconds("student", "fit", "all", "kernel") + 30


def test_a_schedule_survives_json():
    import json

    schedule = scheduled(FEW)
    assert Schedule.from_json(json.loads(json.dumps(schedule.as_json()))) == schedule


def test_a_schedule_cannot_be_changed():
    schedule = scheduled(FEW)
    with pytest.raises(AttributeError):
        schedule.candidates = ()
    with pytest.raises(AttributeError):
        schedule.stages[0].seconds = 1.0
