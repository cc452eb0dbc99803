"""What there is time for, and who has it."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewlabels.augment.recipes import fit_views
from fewlabels.backbones.architectures import ArticleBackbone
from fewlabels.backbones.weights import save_backbone
from fewlabels.fit import arms, fit
from fewlabels.fit.budget import Budget
from fewlabels.fit.fit import Fit
from fewlabels.fit.paces import features_paces
from fewlabels.fit.plan import NEIGHBOUR, SMOOTHED, Plan
from fewlabels.fit.settings import FitSettings
from fewlabels.fit.stages import Stages
from fewlabels.training.callbacks import Observer
from fewlabels.training.trainer import Loop
from tests.fit.small_fits import (
    STEPS,
    all_are_heard,
    any_student_is_taken,
    are_scored,
    fitted,
    later_is_better,
    pool_of,
    takes,
    takes_all_its_time,
    untrained,
)


def test_too_little_time_for_self_training(shortest, monkeypatch, fmnist, tmp_path: Path):
    later_is_better(monkeypatch)
    any_student_is_taken(monkeypatch)
    monkeypatch.setattr(arms.SelfTrain, "fewest", STEPS["selftrain"] + 1)
    made = fitted(pool_of(fmnist), tmp_path)
    assert made.strategy == "committee"
    assert f"too few for the {STEPS['selftrain'] + 1} steps it needs" in "".join(made.said)


def test_where_a_student_would_have_no_time_the_baseline_has_it_all(shortest, monkeypatch, fmnist, tmp_path: Path):
    later_is_better(monkeypatch)
    monkeypatch.setattr(arms.SelfTrain, "fewest", 10**9)
    monkeypatch.setattr(arms.Student, "fewest", STEPS["student"] + 1)
    made = fitted(pool_of(fmnist), tmp_path)
    assert list(made.tried) == ["supervised", "kernel", "propagate", "committee"]
    assert made.strategy == "supervised"
    assert "kernel: too little time is left to ask it of all images" in "".join(made.said)
    assert {file.stem for file in (tmp_path / "stages").glob("*-final.safetensors")} == {"supervised-final"}
    assert not list((tmp_path / "stages").glob("*-all-of-all.npy"))


def test_asking_is_counted_before_a_student_is_given_time(shortest, monkeypatch, fmnist, tmp_path: Path):
    """Kernel ridge takes three seconds a fold, and one to be asked of 100 of the 400 images, as the folds are.

    It is asked so twice in the trial that tells what its features take.
    """
    pool, now, given = pool_of(fmnist), [0.0], {}
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("fewlabels.fit.plan.features_paces", features_paces)
    monkeypatch.setattr(arms, "TRIED", 100)

    def steps(self, pool, part, seconds):
        given[part] = seconds
        return 0

    monkeypatch.setattr(arms, "kernel_ridge", takes(now, 3.0, arms.kernel_ridge))
    monkeypatch.setattr(arms.KernelRidge, "scores", takes(now, 1.0, arms.KernelRidge.scores))
    monkeypatch.setattr(arms.Student, "steps_in", steps)
    later_is_better(monkeypatch)
    fitted(pool, tmp_path, strategy="kernel", budget=30.0)
    its_own_part = 0.2 / 3
    assert given == {"of-kernel": pytest.approx((30.0 - 2.0 - 9.0 - 3.0 - 1.0 - 1.0 - 4.0) * (1 - its_own_part))}


def test_a_student_has_some_time_however_late_it_is(shortest, monkeypatch, fmnist, tmp_path: Path):
    later_is_better(monkeypatch)
    any_student_is_taken(monkeypatch)
    monkeypatch.setattr(Budget, "share", lambda self, weight, *_: 0.0)
    given: dict[str, float] = {}
    trained = arms.Student.train

    def noted(self, pool, part, seconds):
        given[part] = seconds
        return trained(self, pool, part, seconds)

    monkeypatch.setattr(arms.Student, "train", noted)
    fitted(pool_of(fmnist), tmp_path, strategy="selftrain", budget=336.0)
    assert given == {"of-selftrain": pytest.approx(336 * 2 / 36.6)}  # its part


def test_where_no_time_is_left_the_baseline_has_what_a_fold_had(shortest, monkeypatch, fmnist, tmp_path: Path):
    later_is_better(monkeypatch)
    monkeypatch.setattr(arms.Student, "train", untrained)
    monkeypatch.setattr(Budget, "share", lambda self, weight, *_: 0.0)
    made = fitted(pool_of(fmnist), tmp_path, strategy="selftrain", teacher="small")
    assert made.strategy == "supervised"
    assert (tmp_path / "stages" / "supervised-all.safetensors").is_file()
    assert not (tmp_path / "stages" / "supervised-final.safetensors").is_file()


def test_what_was_planned_for_a_baseline_that_is_not_asked_is_for_others(shortest, monkeypatch, fmnist, tmp_path: Path):
    paces, parts = dict.fromkeys(("image", "teacher", "features", "kernel"), 0.0), {}
    monkeypatch.setattr(arms.SelfTrain, "fewest", 10**9)
    for few in (10, 9):
        monkeypatch.setattr("fewlabels.fit.plan.FEW", few)
        settings = FitSettings(budget=84.0)
        plan = Fit(pool_of(fmnist), settings, fit_views(1), tmp_path / str(few), 0, Observer, paces=paces).plan
        parts[few] = plan.budget.part(4.0)
    # On three folds the baseline 1, others 0.2 each; those once more, and the baseline if it is asked; a student 4.
    assert parts == pytest.approx({10: 84 * 4 / 8.6, 9: 84 * 4 / 8.8})


def test_what_tells_how_frequent_classes_are_takes_a_part_of_the_budget(fmnist, tmp_path: Path):
    pool, paces = pool_of(fmnist), {"supervised": 1.0, "image": 0.01}
    made = Fit(pool, FitSettings("supervised", 600.0), fit_views(1), tmp_path, 0, Observer, paces=paces)
    made.plan.budget.kept = 0.0
    before = made.plan.budget.part(float("inf"))
    assert made.plan.may_ask(["supervised"], 100) == 100
    assert before - made.plan.budget.part(float("inf")) == pytest.approx(100 * 6 * 3 * 0.01)
    assert made.plan.may_ask(["supervised"], 2000) == 166  # which take 30 seconds


def test_the_time_of_all_starts_is_counted(shortest, monkeypatch, fmnist, tmp_path: Path):
    """Even where one was killed after its first training."""
    pool, now = pool_of(fmnist), [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    trained = Loop.run

    def takes_a_second(self, *args):
        now[0] += 1.0
        return trained(self, *args)

    monkeypatch.setattr(Loop, "run", takes_a_second)

    def start() -> Fit:
        return Fit(pool, FitSettings("supervised", 30.0), fit_views(1), tmp_path, 0, Observer)

    def stops(self, *args):
        if now[0]:
            raise KeyboardInterrupt
        return takes_a_second(self, *args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Loop, "run", stops)
        start()._go()  # go() itself does not get to its end
    again = start()
    assert again.seconds() == 1.0
    assert again.plan.budget.share(float("inf")) == pytest.approx(29.0)
    again.go()
    assert again.seconds() == 4.0  # two folds more, and the final one


def test_time_is_handed_out_by_weight_and_what_is_left_over_goes_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    budget = Budget(90, weights=9)
    assert budget.share(3) == pytest.approx(30)
    now[0] += 10  # it took less
    assert budget.share(2) == pytest.approx(80 / 3)
    now[0] += 200
    assert budget.share(4) == 0


def test_by_plan_no_clock_is_looked_at(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: float("nan"))
    budget = Budget(90, weights=9, planned=True)
    assert budget.share(3) == pytest.approx(30)
    assert budget.share(2) == pytest.approx(20)
    budget.spend(10)
    assert budget.share(2, at_most=5) == pytest.approx(5)  # of 15; what it cannot use is for others
    assert budget.share(float("inf")) == pytest.approx(25)
    assert budget.share(1) == 0


def test_a_plan_pays_for_features_neighbours_and_what_networks_are_asked(fmnist, tmp_path: Path):
    pool, views = pool_of(fmnist), fit_views(1)
    images, folds = len(pool.source), 3
    free = {"supervised": 1.0, "selftrain": 0.1, "student": 1.0, "image": 0.0, "teacher": 0.0}
    free |= {"features": 0.0, "kernel": 0.0}

    def left(name: str, **paces: float) -> float:
        settings = FitSettings("auto", 600.0, teacher="article")
        made = Fit(pool, settings, views, tmp_path / name, 0, Observer, paces=free | paces)
        before = made.plan.budget.part(float("inf"))
        made.plan.share(made.arms.expert("kernel"), 0.0, images)  # has been paid for
        assert made.plan.budget.part(float("inf")) == pytest.approx(before)
        return before

    assert left("free") == 600
    assert left("features", features=0.001) == pytest.approx(600 - images * 0.001)
    times, known = folds, len(pool.labelled)
    of_kernel = images * (images * NEIGHBOUR + SMOOTHED) * 1e-6 + times * images * known * 1e-6
    assert left("kernel", kernel=1e-6) == pytest.approx(600 - of_kernel)
    assert left("network", image=1e-4) == pytest.approx(600 - known * 6e-4)  # each fold of what it held out
    assert left("teacher", teacher=1e-3) == pytest.approx(600 - times * images * 2e-3)
    assert left("few", features=0.6) == pytest.approx(600 - images * 0.6)
    assert left("far", features=0.6, kernel=1e-4) == pytest.approx(600 - images * 0.6 - times * images * known * 1e-4)
    assert left("dear", features=0.9) == 600  # kernel and neighbours are not tried


@pytest.mark.parametrize(
    ("paces", "told", "experts"),
    [
        ({"features": 0.0, "kernel": 0.0}, "", ["supervised", "kernel", "propagate"]),
        ({"features": 0.6, "kernel": 1e-4}, "204 s, too long for it; propagate is not tried", ["supervised", "kernel"]),
        ({"features": 0.9, "kernel": 0.0}, "kernel and propagate: features of 400 images take 360 s", ["supervised"]),
    ],
)
def test_what_takes_half_of_the_time_is_left_out_and_told(fmnist, tmp_path: Path, paces, told, experts):
    free = {"supervised": 1.0, "selftrain": 0.1, "student": 1.0, "image": 0.0, "teacher": 0.0}
    settings = FitSettings("auto", 600.0, teacher="article")
    made = Fit(pool_of(fmnist), settings, fit_views(1), tmp_path, 0, Observer, paces=free | paces)
    assert made.plan.experts == experts
    assert made.arms.features.by_neighbours == ("propagate" in experts) or experts == ["supervised"]
    assert told in "\n".join(made.said)
    assert bool(told) == bool(made.said)


def test_by_plan_trainings_have_what_asking_leaves(shortest, fmnist, tmp_path: Path):
    settings, paces = FitSettings("supervised", 60.0), {"supervised": 1.0, "image": 0.001}
    made = Fit(pool_of(fmnist), settings, fit_views(1), tmp_path, 0, Observer, paces=paces)
    given: list[float] = []
    share = made.plan.budget.share
    made.plan.budget.share = lambda *about: given.append(share(*about)) or given[-1]  # type: ignore[method-assign]
    made.go()
    # A hundred images in six views: 0.6 seconds; in the end the others, which tell how frequent classes are: 1.8.
    assert given == pytest.approx([9.9, 9.9, 9.9, 27.9])


def test_by_plan_no_time_is_kept_where_nothing_can_be_held_out(shortest, fmnist, tmp_path: Path):
    settings, paces = FitSettings("auto", 60.0, teacher="article"), {"supervised": 1.0, "image": 0.01, "kernel": 1e-4}
    made = Fit(pool_of(fmnist, labels=10), settings, fit_views(1), tmp_path, 0, Observer, paces=paces)
    assert made.plan.budget.part(float("inf")) == 60


def test_with_paces_given_a_fit_is_the_same_on_a_slower_machine(narrow, monkeypatch, fmnist, tmp_path: Path):
    paces = {"supervised": 1.0, "selftrain": 1.0, "student": 4.0}
    paces |= dict.fromkeys(("image", "teacher", "features", "kernel"), 0.0)
    monkeypatch.setattr(arms.Student, "fewest", 1)
    pool, views = pool_of(fmnist), fit_views(1)
    settings = FitSettings("auto", 60.0, teacher="article")

    def steps(folder: Path) -> dict[str, int]:
        Fit(pool, settings, views, folder, 0, Observer, paces=paces).go()
        return {file.stem: json.loads(file.read_text())["steps"] for file in (folder / "stages").glob("*-*.json")}

    first, trial = steps(tmp_path / "first"), Loop.seconds_a_step
    monkeypatch.setattr(Loop, "seconds_a_step", lambda self: 100 * trial(self))
    of_observer = Observer.seconds_so_far
    monkeypatch.setattr(Observer, "seconds_so_far", lambda self: 100 * of_observer(self))
    assert steps(tmp_path / "second") == first
    assert first["supervised-fold-0"] > 1


@pytest.mark.parametrize(("teacher", "budget", "student"), [("small", 386.0, 40.0), ("article", 366.0, 20.0)])
def test_no_training_gets_more_than_its_share_of_the_time(
    teacher, budget, student, narrow, monkeypatch, fmnist, tmp_path: Path
):
    """Each training takes all that it is given; a student with its teacher's backbone is given half."""
    now, given = [0.0], {}
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(Stages, "seconds", lambda self: 0.0)  # of the true clock
    for arm in (arms.Supervised, arms.SelfTrain, arms.Student):
        monkeypatch.setattr(arm, "train", takes_all_its_time(now, given))
    for name in ("kernel_ridge", "propagated"):
        monkeypatch.setattr(arms, name, takes(now, 2.0, getattr(arms, name)))
    monkeypatch.setattr(arms.SelfTrain, "fewest", 1)
    monkeypatch.setattr(arms.SelfTrain, "seconds_to_ask", lambda *args: 0.0)  # of the true clock, too
    later_is_better(monkeypatch)
    all_are_heard(monkeypatch)
    fitted(pool_of(fmnist), tmp_path, budget=budget, teacher=teacher)
    expected = {
        f"{name}-fold-{n}": weight * 10.0 for name, weight in (("supervised", 1), ("selftrain", 2)) for n in range(3)
    }
    expected |= {"selftrain-all": 240.0, "student-of-selftrain": student}
    assert {name: given[name] for name in expected} == pytest.approx(expected, rel=1e-3)  # asking takes true time


def test_a_trial_is_of_the_budget(monkeypatch, fmnist, tmp_path: Path):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(Plan, "_time_to_self_train", takes(now, 100.0, lambda self, seconds: True))
    begun = Fit(pool_of(fmnist), FitSettings(budget=336.0), fit_views(1), tmp_path, 0, Observer)
    assert begun.plan.budget.share(np.inf) == pytest.approx(236.0, abs=5.0)


@pytest.mark.parametrize("lost", [0.0, 3.0, 6.0])
def test_a_part_held_out_alone_has_most_of_the_time(lost, monkeypatch, fmnist, tmp_path: Path):
    """The final training goes on from it; where a quarter of its time is not left, its network is taken as it is."""
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    now, given = [0.0], {}
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(Stages, "seconds", lambda self: 0.0)  # of the true clock
    monkeypatch.setattr(arms.Supervised, "train", takes_all_its_time(now, given))
    cross_fit = fit.cross_fit

    def slowly(*args):
        found = cross_fit(*args)
        now[0] += lost
        return found

    monkeypatch.setattr(fit, "cross_fit", slowly)
    fitted(pool_of(fmnist), tmp_path, strategy="supervised", budget=60.0)
    left = 15.0 - lost
    assert given == pytest.approx({"supervised-fold-0": 45.0} | ({"supervised-final": left} if left > 11.25 else {}))


def test_a_backbone_that_has_no_time_as_a_student_has_no_teacher(shortest, monkeypatch, fmnist, tmp_path: Path):
    monkeypatch.setattr(arms.Student, "fewest", 10**9)
    made = fitted(pool_of(fmnist), tmp_path, backbone="small")
    assert "selftrain" not in made.tried
    assert any("small has no time for" in line for line in made.said)


@pytest.mark.parametrize(
    ("budget", "committee", "teacher"), [(55e3, False, False), (57e3, True, False), (230e3, True, True)]
)
def test_of_many_labels_others_have_the_time_that_the_baseline_cannot_use(
    budget, committee, teacher, shortest, monkeypatch, fmnist, tmp_path: Path
):
    """A step takes a second, and it has 3 of 8.4 parts beside a committee, of 34.4 beside a teacher."""
    monkeypatch.setattr(Stages, "_steps", lambda self, arm, training, seconds, *args: int(seconds))
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    paces = dict.fromkeys(("image", "teacher", "features", "kernel"), 0.0)
    begun = Fit(pool_of(fmnist), FitSettings(budget=budget), fit_views(1), tmp_path, 0, Observer, paces=paces)
    assert (begun.plan.together, begun.plan.teaches) == (committee, teacher)
    assert ("kernel" in begun.plan.experts) == committee
    not_tried = [line.split(":")[0] for line in begun.said if "supervised training can use 20,000 steps" in line]
    assert not_tried == ([] if teacher else ["selftrain"] if committee else ["committee and selftrain"])


@pytest.mark.parametrize(
    ("strategy", "probed", "expected"),
    [
        ("auto", 0.4, {"supervised-fold-0": 45.0, "supervised-final": 15.0}),
        ("auto", 0.6, {"supervised-fold-0": 45.0, "finetune-fold-0": 7.5}),
        ("finetune", None, {"supervised-fold-0": 40.0, "finetune-fold-0": 60 / 9, "supervised-final": 120 / 9}),
    ],
)
def test_of_many_labels_finetuning_has_half_of_the_last_training(
    strategy, probed, expected, shortest, monkeypatch, fmnist, tmp_path: Path
):
    """Beside it, if it was asked for; else out of it, and nothing where a probe is worse than the baseline's fold."""
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    now, given = [0.0], {}
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for arm in (arms.Supervised, arms.FineTune):
        monkeypatch.setattr(arm, "train", takes_all_its_time(now, given))
    are_scored(monkeypatch, supervised=0.5, probe=probed, finetune=0.1)
    weights = tmp_path / "backbone.safetensors"
    save_backbone(ArticleBackbone(), weights, "article")
    pool = pool_of(fmnist).labelled_alone()
    fitted(pool, tmp_path / "fit", strategy=strategy, start_from=str(weights), budget=60.0)
    assert given == pytest.approx(expected, rel=0.05)


def test_what_was_planned_for_finetuning_that_is_left_out_is_for_others(shortest, monkeypatch, fmnist, tmp_path: Path):
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    monkeypatch.setattr(arms.Supervised, "at_most", 1)
    monkeypatch.setattr(arms.SelfTrain, "fewest", 10**9)
    weights = tmp_path / "backbone.safetensors"
    save_backbone(ArticleBackbone(), weights, "article")
    paces = dict.fromkeys(("image", "teacher", "features", "kernel"), 0.0)
    settings = FitSettings(budget=95.0, start_from=str(weights))
    plan = Fit(pool_of(fmnist), settings, fit_views(1), tmp_path / "fit", 0, Observer, paces=paces).plan
    # Supervised training 3, probe 0.1, kernels and neighbours 0.4, fine-tuning 1, a student 4, a last training 1.
    assert plan.budget.part(4.0) == pytest.approx(95 * 4 / 9.5)
    plan.leave_out("finetune")
    assert plan.budget.part(4.0) == pytest.approx(95 * 4 / 8.5)


def test_what_was_kept_for_asking_finetuning_that_is_left_out_is_for_others(
    shortest, monkeypatch, fmnist, tmp_path: Path
):
    """Of all images, in six views; what teachers are asked is still kept."""
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    monkeypatch.setattr(arms.Supervised, "at_most", 1)
    weights = tmp_path / "backbone.safetensors"
    save_backbone(ArticleBackbone(), weights, "article")
    paces = {"supervised": 1.0, "finetune": 1.0, "selftrain": 0.1, "student": 1.0, "features": 0.0, "kernel": 0.0}
    paces |= {"image": 1e-3, "teacher": 1e-3}
    settings = FitSettings(budget=600.0, start_from=str(weights), teacher="article")
    plan = Fit(pool_of(fmnist), settings, fit_views(1), tmp_path / "fit", 0, Observer, paces=paces).plan
    assert plan.teaches
    kept = plan.budget.kept
    plan.leave_out("finetune")
    assert kept - plan.budget.kept == pytest.approx(400 * 6 * 1e-3)


@pytest.mark.parametrize(("name", "part"), [("committee", 4 / 5), ("selftrain", 2 / 3)])
def test_of_many_labels_each_student_leaves_time_for_the_last_training(
    name, part, shortest, monkeypatch, fmnist, tmp_path: Path
):
    """A student has 4 parts, one with its teacher's backbone 2, the last training 1, whatever became of the others."""
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    monkeypatch.setattr(arms.Supervised, "at_most", 1)
    paces = dict.fromkeys(("image", "teacher", "features", "kernel"), 0.0)
    paces |= {"supervised": 1.0, "selftrain": 0.1, "student": 1.0}
    settings = FitSettings(budget=300.0, teacher="article")
    plan = Fit(pool_of(fmnist), settings, fit_views(1), tmp_path, 0, Observer, paces=paces).plan
    assert plan.teaches
    assert plan.for_a_student(name) == pytest.approx(part * 300)
    assert plan.for_a_student("committee") == pytest.approx(4 / 5 * (1 - part) * 300)
    assert plan.for_the_last("supervised")[1] == pytest.approx((1 - part) / 5 * 300)


def test_by_the_clock_a_teacher_leaves_time_to_be_asked(shortest, monkeypatch, fmnist, tmp_path: Path):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(Stages, "seconds", lambda self: 0.0)  # of the true clock
    monkeypatch.setattr(arms.SelfTrain, "fewest", 1)
    plan = Fit(pool_of(fmnist), FitSettings(budget=400.0), fit_views(1), tmp_path, 0, Observer).plan
    arm = plan.arms.teacher({})
    monkeypatch.setattr(arms.SelfTrain, "seconds_to_ask", lambda *args: 40.0)
    before = plan.budget.part(24.0)
    assert plan.for_a_teacher(arm, 0) == pytest.approx(before * 360 / 400)
    plan.budget.kept = 0.0
    assert plan.budget.part(float("inf")) == pytest.approx(400)
