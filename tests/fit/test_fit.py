import json
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from fewlabels.data.source import ArraySource, balanced_indices
from fewlabels.errors import InputError
from fewlabels.evaluate import evaluate, outputs, probabilities
from fewlabels.fit import arms, fit
from fewlabels.fit.budget import Budget
from fewlabels.fit.choice import heard, preferred
from fewlabels.fit.cross_fit import RARE, CrossFitted
from fewlabels.fit.fit import Fit, Fitted
from fewlabels.fit.loop import Loop
from fewlabels.fit.objectives import SelfTrainingSettings
from fewlabels.fit.paces import features_paces
from fewlabels.fit.plan import NEIGHBOUR, SMOOTHED, Plan
from fewlabels.fit.pool import Pool, held_out
from fewlabels.fit.settings import FitSettings
from fewlabels.fit.stages import Stages
from fewlabels.models.backbones import BACKBONES, ArticleBackbone, SmallBackbone
from fewlabels.models.classifier import Classifier
from fewlabels.models.weights import load_classifier, save_backbone, save_classifier
from fewlabels.observe import Observer
from fewlabels.seeding import seed_from
from fewlabels.views.recipes import fit_views

STEPS = {"supervised": 50, "finetune": 10, "selftrain": 30, "student": 120}


@pytest.fixture
def short(monkeypatch):
    """Trainings of a few small steps by a narrow teacher, however fast the machine is: no time passes."""
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    monkeypatch.setattr("fewlabels.fit.plan.features_paces", lambda source: {"features": 0.0, "kernel": 0.0})
    monkeypatch.setitem(BACKBONES, "small", partial(SmallBackbone, widths=(12, 24, 32)))
    few = SelfTrainingSettings(batch_size=64)
    monkeypatch.setattr(arms.SelfTrain, "__init__", partialmethod(arms.SelfTrain.__init__, others=few))
    monkeypatch.setattr(arms.Student, "__init__", partialmethod(arms.Student.__init__, batch_size=64))
    monkeypatch.setattr("fewlabels.fit.stages.Stages._steps", lambda self, arm, *args: STEPS[arm])
    monkeypatch.setattr(arms.SelfTrain, "fewest", 1)
    monkeypatch.setattr(arms.Student, "fewest", 1)


@pytest.fixture
def shortest(short, monkeypatch):
    """Of very few steps, where nothing has to be learned."""
    for arm in STEPS:
        monkeypatch.setitem(STEPS, arm, 2)


def pool_of(fmnist, labels: int = 100, images: int = 400) -> Pool:
    few = fmnist.train.first_k(images)
    return Pool.of(few.hiding_all_but(balanced_indices(few.labels, labels, 0)))


def fitted(pool: Pool, folder: Path, seed: int = 0, **settings) -> Fitted:
    wanted = FitSettings(**{"budget": 30.0, "teacher": "article", **settings})
    return Fit(pool, wanted, fit_views(1), folder, seed, Observer).go()


def untrained(arm, pool, part, seconds):
    return arm.lab.fresh("article", pool, part).eval()


def later_is_better(monkeypatch) -> None:
    """What is tried last is taken, whatever it gives; the baseline never, though its training comes after others."""
    tried: list[CrossFitted] = []

    def score(self, fitted) -> float:
        if fitted.weights.keys() == {"supervised", RARE}:
            return -0.1
        if not any(fitted is before for before in tried):
            tried.append(fitted)
        return 0.1 * next(place for place, before in enumerate(tried) if before is fitted)

    monkeypatch.setattr(Fit, "_score", score)


def takes(now: list[float], seconds: float, of):
    """The function, for which a false clock goes on."""

    def taking(*args):
        now[0] += seconds
        return of(*args)

    return taking


def are_scored(monkeypatch, **scores: float) -> None:
    """Each so on the folds, a committee 0.9."""

    def score(self, fitted) -> float:
        names = fitted.weights.keys() - {RARE}
        return 0.9 if len(names) > 1 else scores[names.pop()]

    monkeypatch.setattr(Fit, "_score", score)


def takes_all_its_time(now: list[float], given: dict[str, float]):
    """A training that takes what it is given, and learns nothing."""

    def train(arm, pool, part, seconds):
        now[0] += seconds
        given.setdefault(f"{arm.name}-{part}", seconds)  # asked again, it is read from its file
        return untrained(arm, pool, part, seconds)

    return train


def any_student_is_taken(monkeypatch) -> None:
    """However little of its teachers it has learned."""
    monkeypatch.setattr(Fit, "_right", lambda self, fitted: 0.0)


def all_are_heard(monkeypatch) -> None:
    """Experts without a say are asked, too."""
    monkeypatch.setattr(fit, "heard", lambda weights: [name for name in weights if name != RARE])


def test_all_arms_are_tried_and_the_best_is_taken(short, fmnist, tmp_path: Path):
    save_backbone(ArticleBackbone(), tmp_path / "backbone.safetensors", "article")
    made = fitted(pool_of(fmnist), tmp_path / "fit", start_from=str(tmp_path / "backbone.safetensors"))
    arms = ["supervised", "probe", "finetune", "kernel", "propagate"]
    assert list(made.tried) == [*arms, "committee", "selftrain"]
    best = max(made.tried, key=lambda name: made.tried[name])
    nearly = ["selftrain", *(["committee"] if best in ("kernel", "propagate") else [])]
    assert made.strategy in (best, *nearly)  # which are taken if they are nearly as good
    assert made.estimate.macro_f1 == pytest.approx(made.tried[made.strategy], abs=0.04)
    assert made.estimate.low < made.estimate.macro_f1 < made.estimate.high
    assert evaluate(made.network, fmnist.test.first_k(500)).macro_f1 > 0.6


def test_a_teacher_that_has_learned_nothing_is_not_listened_to(short, monkeypatch, fmnist, tmp_path: Path):
    monkeypatch.setattr(arms.SelfTrain, "train", untrained)
    made = fitted(pool_of(fmnist), tmp_path, strategy="selftrain")
    assert made.tried["selftrain"] == pytest.approx(made.tried["committee"], abs=0.03)
    assert evaluate(made.network, fmnist.test.first_k(500)).macro_f1 > 0.6


def test_self_training_ends_in_a_student_that_learned_from_all_images(short, monkeypatch, fmnist, tmp_path: Path):
    later_is_better(monkeypatch)
    monkeypatch.setitem(STEPS, "selftrain", 15)
    pool = pool_of(fmnist)
    made = fitted(pool, tmp_path, budget=60.0, teacher="small")
    assert made.strategy == "selftrain"
    assert (tmp_path / "stages" / "selftrain-all.safetensors").is_file()
    assert (tmp_path / "stages" / "student-of-selftrain.safetensors").is_file()
    assert sum(made.pseudo_labels.values()) == len(pool.unlabelled)
    assert list(made.pseudo_labels) == list(pool.source.class_names)
    sure = probabilities(outputs(made.network, pool.source.subset(pool.unlabelled))).max(axis=1).mean()
    assert 0.6 < sure < 0.8  # about as often as the folds were right


def test_an_expert_without_a_network_is_learned_by_one(short, monkeypatch, fmnist, tmp_path: Path):
    later_is_better(monkeypatch)
    made = fitted(pool_of(fmnist), tmp_path, strategy="kernel")
    assert list(made.tried) == ["supervised", "kernel"]
    assert made.strategy == "kernel"
    assert evaluate(made.network, fmnist.test.first_k(500)).macro_f1 > 0.6


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


def test_where_every_image_has_a_label_nothing_is_left_to_self_training(shortest, fmnist, tmp_path: Path):
    made = fitted(Pool.of(fmnist.train.first_k(120)), tmp_path, strategy="selftrain")
    assert list(made.tried) == ["supervised"]
    assert made.pseudo_labels == {}
    assert "nothing to train itself on" in made.said[0]


def test_a_student_that_has_not_learned_from_its_teachers_is_not_taken(short, monkeypatch, fmnist, tmp_path: Path):
    later_is_better(monkeypatch)
    monkeypatch.setattr(arms.Student, "train", untrained)
    made = fitted(pool_of(fmnist), tmp_path, strategy="selftrain", teacher="small")
    assert "the next best is taken" in "".join(made.said)
    assert made.strategy == "supervised"
    assert evaluate(made.network, fmnist.test.first_k(500)).macro_f1 > 0.4


def test_a_teacher_with_the_right_backbone_is_taken_where_the_student_has_forgotten(
    short, monkeypatch, fmnist, tmp_path: Path
):
    later_is_better(monkeypatch)
    monkeypatch.setattr(arms.Student, "train", untrained)
    train = arms.SelfTrain.train

    def long_in_the_end(self, pool, part, seconds):
        monkeypatch.setitem(STEPS, "selftrain", 120 if part == "all" else 4)
        return train(self, pool, part, seconds)

    monkeypatch.setattr(arms.SelfTrain, "train", long_in_the_end)
    made = fitted(pool_of(fmnist), tmp_path, strategy="selftrain")
    assert made.strategy == "selftrain"
    assert "teacher: agrees with all before it" in made.said[-2]
    assert evaluate(made.network, fmnist.test.first_k(500)).macro_f1 > 0.6


def test_a_teacher_need_not_agree_with_who_knows_less(shortest, monkeypatch, fmnist, tmp_path: Path):
    """It is told by the committee, which is more often wrong than teachers and committee together."""
    later_is_better(monkeypatch)
    monkeypatch.setattr(arms.Student, "train", untrained)
    monkeypatch.setattr(Fit, "_right", lambda self, fitted: 0.999 if "teachers" in fitted.weights else 0.05)
    made = fitted(pool_of(fmnist), tmp_path, strategy="selftrain")
    assert made.strategy == "selftrain"
    assert "teacher: agrees" in made.said[-2]


@pytest.mark.parametrize(("others", "strategy"), [(1, "selftrain"), (4, "supervised")])
def test_a_student_is_not_refused_for_one_image_of_few(others, strategy, shortest, monkeypatch, fmnist, tmp_path: Path):
    """Of thirty one is more than one in fifty, but may be chance."""
    later_is_better(monkeypatch)
    said, tell = [], Fit._tell_apart
    monkeypatch.setattr(Fit, "_right", lambda self, fitted: 0.98)
    monkeypatch.setattr(
        Fit, "_tell_apart", lambda self, logs: said.append((self._looked_at(), logs)) or tell(self, logs)
    )

    def nearly_the_same(network, source):
        kept, logs = said[-1]
        logits = np.eye(10)[logs[kept].argmax(axis=1)]
        logits[:others] = np.roll(logits[:others], 1, axis=1)
        return logits

    monkeypatch.setattr(fit, "outputs", nearly_the_same)
    made = fitted(pool_of(fmnist), tmp_path, strategy="selftrain", teacher="small")
    assert len(said[-1][0]) == 30
    assert made.strategy == strategy


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


def test_how_frequent_the_classes_are_is_told_by_the_images_without_a_label(short, fmnist, tmp_path: Path):
    """Trousers and bags, 40 labels of each, but nine bags for each pair of trousers in the world."""
    kept = [np.flatnonzero(fmnist.train.labels == cls)[:number] for cls, number in ((1, 240), (8, 1840))]
    images, labels = fmnist.train.images[np.concatenate(kept)], np.repeat([0, 1], [240, 1840])
    whole = ArraySource(images, labels, ("trousers", "bag"))
    pool = Pool.of(whole.hiding_all_but(balanced_indices(labels, 80, 0)))
    work = Fit(pool, FitSettings("supervised", 30.0), fit_views(1), tmp_path, 0, Observer, tested_on=1000)
    assert work.shares.tolist() == [0.5, 0.5]
    assert work.go().estimate is not None
    assert work.shares[0] == pytest.approx(0.1, abs=0.04)


def test_what_is_learned_of_images_has_the_shares_that_were_found(shortest, monkeypatch, fmnist, tmp_path: Path):
    """And so have they who are judged on labels held out; where labels are not few."""
    later_is_better(monkeypatch)
    monkeypatch.setattr("fewlabels.fit.plan.FEW", 9)
    shares, learned, judged = np.linspace(0.15, 0.05, 10), [], []
    monkeypatch.setattr(fit, "class_prior", lambda folds, learned_from: shares)
    monkeypatch.setattr(Fit, "_tell_apart", lambda self, logs: learned.append(logs) or {})
    monkeypatch.setattr(Fit, "_right", lambda self, fitted: judged.append(fitted) or 0.1)
    pool = pool_of(fmnist)
    fitted(pool, tmp_path)
    assert len(learned) == 1
    assert len(judged) == 2  # a student, and a teacher with its backbone
    said = [np.exp(logs) for logs in learned] + [softmax(logits, axis=1) for of in judged for logits in of.logits]
    for of in said:
        np.testing.assert_allclose(of[pool.unlabelled].mean(axis=0), shares, atol=1e-3)


def test_without_a_teacher_each_fold_of_what_is_chosen_is_asked_of_some_images(
    shortest, monkeypatch, fmnist, tmp_path: Path
):
    """What it says of those that it held out was said before."""
    monkeypatch.setattr(arms.SelfTrain, "fewest", 10**9)
    pool = pool_of(fmnist)
    work = Fit(pool, FitSettings(budget=30.0), fit_views(1), tmp_path, 0, Observer)
    tried = work._try_arms()
    for name in ("supervised", "kernel", "committee"):
        for fold, places in enumerate(work.parts):
            held = pool.labelled[places]
            np.testing.assert_allclose(
                work._on_some(tried[name], held)[fold], tried[name].logits[fold][held], atol=1e-4
            )


@pytest.mark.parametrize("teaches", [True, False])
def test_of_few_labels_the_baseline_has_no_say(teaches, shortest, monkeypatch, fmnist, tmp_path: Path):
    """Nor is it asked of all images, or trained once more to be."""
    if not teaches:
        monkeypatch.setattr(arms.SelfTrain, "fewest", 10**9)
    tried = {}
    for few in (10, 9):  # labels a class
        monkeypatch.setattr("fewlabels.fit.plan.FEW", few)
        work = Fit(pool_of(fmnist), FitSettings(budget=30.0), fit_views(1), tmp_path / str(few), 0, Observer)
        tried[few] = work._try_arms()
    assert list(tried[10]) == ["supervised", "kernel", "propagate", "committee", *(["selftrain"] if teaches else [])]
    assert tried[10]["committee"].weights.keys() == {"kernel", "propagate", RARE}
    assert tried[9]["committee"].weights.keys() == {"supervised", "kernel", RARE}
    assert [np.isfinite(of["supervised"].logits).all() for of in (tried[10], tried[9])] == [False, teaches]


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


def test_the_folds_teachers_choose_and_teach_nothing(shortest, monkeypatch, fmnist, tmp_path: Path):
    """Whatever they say, the last teacher is told the same by the experts."""
    later_is_better(monkeypatch)
    pool, told = pool_of(fmnist), []
    as_it_is = arms.Arms.teacher

    def teacher(self, hints, prior=None):
        told.extend([hints["all"]] if "all" in hints else [])
        return as_it_is(self, hints, prior)

    monkeypatch.setattr(arms.Arms, "teacher", teacher)
    fitted(pool, tmp_path / "a")
    right = np.eye(10)[fmnist.train.labels[: len(pool.source)]]
    monkeypatch.setattr(arms.SelfTrain, "_logits", lambda self, pool, part, seconds, rows: right + 0.01)
    monkeypatch.setattr(arms.SelfTrain, "seconds_to_ask", lambda self, pool, part: 0.0)
    fitted(pool, tmp_path / "b")
    assert len(told) == 2
    np.testing.assert_array_equal(*told)


def test_of_few_labels_the_shares_are_what_is_said_on_average(shortest, monkeypatch, fmnist, tmp_path: Path):
    """Expectation maximisation would go on from there."""
    pool = pool_of(fmnist)
    folds = [np.log(np.random.default_rng(fold).dirichlet(np.linspace(2, 1, 10), 300)) for fold in range(3)]
    mean, found = np.mean([np.exp(logs) for logs in folds], axis=(0, 1)), {}
    for few in (10, 9):  # labels a class
        monkeypatch.setattr("fewlabels.fit.plan.FEW", few)
        work = Fit(pool, FitSettings("supervised", 30.0), fit_views(1), tmp_path / str(few), 0, Observer)
        found[few] = work._shares([logs.astype(np.float32) for logs in folds])
    np.testing.assert_allclose(found[10], mean, rtol=1e-5)
    assert found[10].sum() == pytest.approx(1, abs=1e-12)  # else images cannot be drawn by them
    assert found[9][0] > mean[0] + 0.03


def test_neither_few_labels_nor_a_single_fold_bring_anything_to_the_shares(
    shortest, monkeypatch, fmnist, tmp_path: Path
):
    """Many labels know better; few, or a part of them in groups, cannot tell."""
    pool, shares, logs = pool_of(fmnist), np.linspace(0.15, 0.05, 10), np.log(np.full((400, 10), 0.1))

    def brought(source: ArraySource, folder: str) -> np.ndarray:
        made = Fit(Pool.of(source), FitSettings("supervised", 30.0), fit_views(1), tmp_path / folder, 0, Observer)
        made.shares = shares
        return made._brought_logs(logs)

    assert brought(pool.source, "few") is logs
    monkeypatch.setattr("fewlabels.fit.plan.FEW", 9)
    three = softmax(brought(pool.source, "three"), axis=1)
    np.testing.assert_allclose(three.mean(axis=0), shares, atol=1e-3)
    groups = np.zeros(400, np.int64)  # of two patients, without the first of whom some class could not be learned
    groups[pool.labelled[-5:]] = 1
    in_groups = ArraySource(pool.source.images, pool.source.labels, pool.source.class_names, groups=groups)
    assert brought(in_groups, "groups") is logs
    alone = Fit(Pool.of(in_groups), FitSettings("supervised", 30.0), fit_views(1), tmp_path / "alone", 0, Observer)
    alone.shares = shares
    assert alone._shares([logs]) is shares
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    assert brought(pool.source, "many") is logs


def test_too_few_images_without_a_label_teach_nothing(shortest, fmnist, tmp_path: Path):
    pool = pool_of(fmnist, labels=100, images=250)
    made = fitted(pool, tmp_path / "auto")
    assert list(made.tried) == ["supervised"]
    assert "200 images without a label are needed, there are 150: there is nothing to train itself on" in made.said
    with pytest.raises(InputError, match=r"strategy kernel: .* 200 are needed, there are 150. Choose auto"):
        fitted(pool, tmp_path / "kernel", strategy="kernel")
    assert not (tmp_path / "kernel").exists()


def test_one_group_leaves_nothing_to_foretell(shortest, fmnist, tmp_path: Path):
    few = fmnist.train.first_k(60)
    patient = ArraySource(few.images, few.labels, few.class_names, groups=np.zeros(60, np.int64))
    made = fitted(Pool.of(patient), tmp_path)
    assert made.estimate is None
    assert "no label can be held out" in "".join(made.said)


def test_where_nothing_can_be_held_out_the_wish_is_followed(shortest, fmnist, tmp_path: Path):
    save_backbone(ArticleBackbone(), tmp_path / "backbone.safetensors", "article")
    start = str(tmp_path / "backbone.safetensors")
    for wish, taken in (("finetune", "finetune"), ("supervised", "supervised"), ("auto", "probe")):
        made = fitted(pool_of(fmnist, labels=10), tmp_path / wish, strategy=wish, start_from=start)
        assert made.strategy == taken


@pytest.mark.parametrize("what", ["groups", "class_names"])
def test_a_folder_of_other_groups_or_names_is_refused(what, shortest, fmnist, tmp_path: Path):
    few, given = fmnist.train.first_k(60), {"groups": np.arange(60) // 2, "class_names": tuple("abcdefghij")}
    plain = {"class_names": few.class_names, "groups": None}
    both = [Pool.of(ArraySource(few.images, few.labels, **about)) for about in (plain, {**plain, what: given[what]})]
    for place, (before, after) in enumerate([both, both[::-1]]):
        fitted(before, tmp_path / str(place), strategy="supervised", budget=3.0)
        with pytest.raises(InputError, match=f"holds a fit with {what}"):
            fitted(after, tmp_path / str(place), strategy="supervised", budget=3.0)


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


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_fit_that_was_stopped_goes_on(shortest, monkeypatch, fmnist, tmp_path: Path):
    pool = pool_of(fmnist)
    whole = fitted(pool, tmp_path / "whole", strategy="supervised")
    trained = arms.Supervised.train

    def stops(self, pool, part, seconds):
        if part == "fold-2":
            raise KeyboardInterrupt
        return trained(self, pool, part, seconds)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(arms.Supervised, "train", stops)
        fitted(pool, tmp_path / "parts", strategy="supervised")
    before = (tmp_path / "parts" / "stages" / "supervised-fold-0.safetensors").stat().st_mtime_ns
    parts = fitted(pool, tmp_path / "parts", strategy="supervised")
    assert (tmp_path / "parts" / "stages" / "supervised-fold-0.safetensors").stat().st_mtime_ns == before
    assert parts.tried == whole.tried
    assert same(parts.network, whole.network)
    with pytest.raises(InputError, match="holds a fit with seed 0, not 1"):
        fitted(pool, tmp_path / "parts", seed=1, strategy="supervised")


def test_a_fit_that_is_done_trains_nothing_more_however_little_time_is_left(shortest, monkeypatch, fmnist, tmp_path):
    pool = pool_of(fmnist)
    first = fitted(pool, tmp_path, strategy="supervised")
    monkeypatch.setattr(Budget, "share", lambda self, weight, *_: 0.0)
    monkeypatch.setattr(arms, "outputs", None)  # nor is it asked
    again = fitted(pool, tmp_path, strategy="supervised")
    assert not (tmp_path / "stages" / "supervised-all.safetensors").is_file()
    assert same(again.network, first.network)


def test_a_class_without_a_label_is_told_and_never_named(shortest, fmnist, tmp_path: Path):
    few = fmnist.train.first_k(200)
    labels = np.where(few.labels == 8, -1, few.labels)
    made = fitted(Pool.of(ArraySource(few.images, labels, few.class_names)), tmp_path, strategy="supervised")
    assert "no image is labelled 'Bag': it will never be named" in made.said
    assert 8 not in outputs(made.network, few).argmax(axis=1)


def test_one_label_a_class_leaves_nothing_to_foretell(shortest, fmnist, tmp_path: Path):
    made = fitted(pool_of(fmnist, labels=10), tmp_path)
    assert made.estimate is None
    assert made.tried == {}
    assert made.strategy == "supervised"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "selftrian"}, "Did you mean selftrain"),
        ({"budget": 0.0}, "budget 0 s: must be above 0"),
        ({"budget": float("inf")}, "budget inf s: must be above 0, and have an end"),
        ({"strategy": "finetune"}, "strategy finetune: needs a pretrained backbone"),
        ({"start_from": "none.safetensors"}, "no such model file"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words, fmnist, tmp_path: Path):
    with pytest.raises(InputError, match=words):
        fitted(pool_of(fmnist), tmp_path / "fit", **settings)
    assert not (tmp_path / "fit").exists()


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


def test_with_paces_given_a_fit_is_the_same_on_a_slower_machine(monkeypatch, fmnist, tmp_path: Path):
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


def test_without_a_teacher_folds_are_asked_of_what_they_held_out_alone(shortest, monkeypatch, fmnist, tmp_path: Path):
    later_is_better(monkeypatch)
    any_student_is_taken(monkeypatch)
    monkeypatch.setattr(arms.SelfTrain, "fewest", 10**9)
    pool = pool_of(fmnist)
    made = fitted(pool, tmp_path)
    assert "selftrain" not in made.tried
    of_fold, of_all = (
        np.load(tmp_path / "stages" / f"propagate-{what}.npy") for what in ("fold-0-of-some", "all-of-all")
    )
    held = pool.labelled[held_out(pool.labels, 0)[0]]
    assert np.isfinite(of_fold[held]).all()
    assert np.isnan(np.delete(of_fold, held, axis=0)).all()
    assert np.isfinite(of_all).all()


def test_the_same_seed_gives_the_same_classifier(shortest, fmnist, tmp_path: Path):
    pool = pool_of(fmnist)
    first, again, other = (fitted(pool, tmp_path / str(n), seed) for n, seed in enumerate((0, 0, 1)))
    assert same(first.network, again.network)
    assert not same(first.network, other.network)


def test_the_folder_of_other_labels_is_refused(shortest, fmnist, tmp_path: Path):
    fitted(pool_of(fmnist, labels=20), tmp_path, strategy="supervised", budget=3.0)
    few = fmnist.train.first_k(400)
    others = Pool.of(few.hiding_all_but(balanced_indices(few.labels, 20, seed=1)))
    with pytest.raises(InputError, match="holds a fit with labels"):
        fitted(others, tmp_path, strategy="supervised", budget=3.0)


def test_a_classifier_is_no_pretrained_backbone_here(short, fmnist, tmp_path: Path):
    save_classifier(Classifier("article", ["a", "b"]), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="has learned from labels that are to be held out"):
        fitted(pool_of(fmnist), tmp_path / "fit", start_from=str(tmp_path / "model.safetensors"))


def test_images_that_are_hardly_any_are_refused(fmnist, tmp_path: Path):
    pool = Pool.of(ArraySource(np.zeros((4, 4, 3), np.uint8), np.array([0, 1, 0, 1]), ("a", "b")))
    with pytest.raises(InputError, match="images of 4x3 pixels: the longer side needs 5"):
        fitted(pool, tmp_path / "fit", backbone="small")


def test_images_of_a_size_the_backbone_does_not_take(fmnist, tmp_path: Path):
    images = np.zeros((4, 32, 32), np.uint8)
    pool = Pool.of(ArraySource(images, np.array([0, 1, 0, 1]), ("a", "b")))
    with pytest.raises(InputError, match="images of 32x32 pixels: backbone article takes 28x28"):
        fitted(pool, tmp_path / "fit")


@pytest.mark.parametrize(("teacher", "budget", "student"), [("small", 386.0, 40.0), ("article", 366.0, 20.0)])
def test_no_training_gets_more_than_its_share_of_the_time(
    teacher, budget, student, monkeypatch, fmnist, tmp_path: Path
):
    """Each training takes all that it is given; a student with its teacher's backbone is given half."""
    now, given = [0.0], {}
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("fewlabels.fit.stages.Stages.seconds", lambda self: 0.0)  # of the true clock
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


def test_an_expert_without_a_say_is_not_asked():
    assert heard({"supervised": 0.4, "kernel": 0.0, RARE: 1.0}) == ["supervised"]


def test_where_a_part_is_held_out_alone_the_others_are_learned_once(shortest, monkeypatch, fmnist, tmp_path: Path):
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    monkeypatch.setattr(arms.Supervised, "at_most", 1)
    monkeypatch.setattr(arms.SelfTrain, "fewest", 10**9)
    any_student_is_taken(monkeypatch)
    later_is_better(monkeypatch)
    all_are_heard(monkeypatch)
    pool = pool_of(fmnist)
    made = fitted(pool, tmp_path)
    assert made.strategy == "committee"
    trained = {file.stem for file in (tmp_path / "stages").glob("*.safetensors")}
    assert trained == {"supervised-fold-0", "student-of-committee"}
    assert np.isfinite(np.load(tmp_path / "stages" / "supervised-fold-0-of-all.npy")).all()


def test_a_training_with_the_tenth_goes_on_from_the_one_without(shortest, monkeypatch, fmnist, tmp_path: Path):
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    pool = pool_of(fmnist)
    fitted(pool, tmp_path, strategy="supervised")
    fold, final = (
        load_classifier(tmp_path / "stages" / f"supervised-{part}.safetensors") for part in ("fold-0", "final")
    )
    fresh = Classifier("article", pool.source.class_names, 1, seed_from(0, "final"))

    def apart(one: Classifier, other: Classifier) -> float:
        pairs = zip(one.backbone.parameters(), other.backbone.parameters(), strict=True)
        return float(sum((a - b).detach().square().sum() for a, b in pairs))

    assert 0 < apart(final, fold) < apart(final, fresh) / 4


def test_images_of_one_group_make_what_is_foretold_less_sure(shortest, monkeypatch, fmnist, tmp_path: Path):
    few = fmnist.train.first_k(400)
    alike = few.labels * 5 + np.arange(400) % 5  # each group is of one class, so it is named right as a whole, or wrong
    shown = ArraySource(few.images, few.labels, few.class_names, groups=alike)
    pool = Pool.of(shown.hiding_all_but(balanced_indices(few.labels, 100, 0)))
    wide = fitted(pool, tmp_path, strategy="supervised").estimate
    monkeypatch.setattr(fit, "design_effect", lambda right, groups: 1.0)
    narrow = fitted(pool, tmp_path, strategy="supervised").estimate
    assert wide.high - wide.low > 1.1 * (narrow.high - narrow.low)


def hundred(errors: range, groups: np.ndarray | None = None) -> CrossFitted:
    """Of 100 held-out images, these are named wrong."""
    source = ArraySource(np.zeros((100, 1, 1, 1), np.uint8), np.arange(100) % 2, ("a", "b"), groups=groups)
    pool = Pool.of(source)
    said = pool.labels.copy()
    said[errors] = 1 - said[errors]
    return CrossFitted(pool, [np.arange(100)], [np.eye(2)[said]])


@pytest.mark.parametrize(("wrong", "first"), [(4, "selftrain"), (24, "committee")])
def test_self_training_is_preferred_within_a_standard_error(wrong, first):
    """The committee names 10 wrong that self-training knows, and that errs in some others."""
    errors = {"supervised": range(50), "committee": range(10), "selftrain": range(10, 20 + wrong)}
    scores = {"supervised": 0.5, "committee": 0.9, "selftrain": 0.9 - wrong / 100}
    assert preferred(scores, {name: hundred(of) for name, of in errors.items()})[0] == first
    assert preferred({"supervised": 0.5, "committee": 0.9}, {})[0] == "committee"


@pytest.mark.parametrize(("score", "first"), [(0.895, "selftrain"), (0.88, "committee")])
def test_two_that_name_the_same_images_right_may_differ_on_another(score, first):
    """Who takes the wrong ones for what decides macro-F1, and is no reason."""
    scores = {"supervised": 0.5, "committee": 0.9, "selftrain": score}
    tried = {"supervised": hundred(range(50)), "committee": hundred(range(10)), "selftrain": hundred(range(10))}
    assert preferred(scores, tried)[0] == first


@pytest.mark.parametrize(("wrong", "first"), [(4, "committee"), (24, "propagate")])
def test_all_experts_are_preferred_to_one_within_a_standard_error(wrong, first):
    """Labels that spread name 10 wrong that all together know, who err in others; the baseline stays the safest."""
    tried = {
        "supervised": hundred(range(50)),
        "propagate": hundred(range(10)),
        "committee": hundred(range(10, 20 + wrong)),
    }
    scores = {"supervised": 0.5, "propagate": 0.9, "committee": 0.9 - wrong / 100}
    assert preferred(scores, tried)[0] == first
    assert preferred({**scores, "supervised": 0.91}, tried)[0] == "supervised"


@pytest.mark.parametrize("name", ["probe", "finetune"])
@pytest.mark.parametrize(("wrong", "first"), [(10, "supervised"), (8, "pretrained")])
def test_pretrained_weights_have_to_prove_themselves(name, wrong, first):
    """Fresh weights name 20 wrong that the others know; those err in some, so that they differ in 30 or in 28."""
    tried = {"supervised": hundred(range(20)), name: hundred(range(20, 20 + wrong))}
    scores = {"supervised": 0.8, name: 1 - wrong / 100}
    assert preferred(scores, tried)[0] == {"supervised": "supervised", "pretrained": name}[first]
    assert preferred({**scores, "committee": 0.81}, tried)[0] == ("committee" if first == "supervised" else name)


def test_one_image_of_a_rare_class_proves_nothing():
    """A probe names one of its two, which is a quarter of macro-F1."""
    source = ArraySource(np.zeros((100, 1, 1, 1), np.uint8), np.repeat([0, 1], [98, 2]), ("a", "b"))
    pool = Pool.of(source)
    nothing, one = (
        CrossFitted(pool, [np.arange(100)], [np.eye(2)[np.repeat([0, 1], [n, 100 - n])]]) for n in (100, 99)
    )
    assert preferred({"supervised": 0.5, "probe": 0.75}, {"supervised": nothing, "probe": one})[0] == "supervised"


def test_warnings_of_an_earlier_start_are_told(tmp_path: Path):
    stages = Stages(tmp_path, {}, Observer, torch.device("cpu"))
    for name, warning in (("selftrain-fold-0", "late drop"), ("supervised-all", "")):
        (stages.folder / f"{name}.safetensors").touch()
        (stages.folder / f"{name}.json").write_text(json.dumps({"steps": 3, "warning": warning}))
    assert stages.warnings() == {"selftrain-fold-0": "late drop"}


def test_a_backbone_that_has_no_time_as_a_student_has_no_teacher(shortest, monkeypatch, fmnist, tmp_path: Path):
    monkeypatch.setattr(arms.Student, "fewest", 10**9)
    made = fitted(pool_of(fmnist), tmp_path, backbone="small")
    assert "selftrain" not in made.tried
    assert any("small has no time for" in line for line in made.said)


def test_of_patients_they_have_to_prove_themselves_on_each():
    patients = np.arange(100) // 10
    tried = {"supervised": hundred(range(20), patients), "probe": hundred(range(20, 28), patients)}
    assert preferred({"supervised": 0.8, "probe": 0.92}, tried)[0] == "supervised"


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
    monkeypatch.setattr("fewlabels.fit.stages.Stages.seconds", lambda self: 0.0)  # of the true clock
    monkeypatch.setattr(arms.SelfTrain, "fewest", 1)
    plan = Fit(pool_of(fmnist), FitSettings(budget=400.0), fit_views(1), tmp_path, 0, Observer).plan
    arm = plan.arms.teacher({})
    monkeypatch.setattr(arms.SelfTrain, "seconds_to_ask", lambda *args: 40.0)
    before = plan.budget.part(24.0)
    assert plan.for_a_teacher(arm, 0) == pytest.approx(before * 360 / 400)
    plan.budget.kept = 0.0
    assert plan.budget.part(float("inf")) == pytest.approx(400)


@pytest.mark.parametrize(("student", "taken"), [(0.7, "supervised"), (0.85, "selftrain")])
def test_of_many_labels_a_student_is_judged_by_those_held_out(
    student, taken, shortest, monkeypatch, fmnist, tmp_path: Path
):
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    monkeypatch.setattr(arms.Supervised, "at_most", 1)
    monkeypatch.setattr(Fit, "_right", lambda self, fitted: 0.0)  # it agrees with its teachers often enough
    are_scored(monkeypatch, supervised=0.8, kernel=0.3, propagate=0.2, student=student, teacher=student)
    all_are_heard(monkeypatch)
    learned: dict[str, np.ndarray] = {}
    for arm in (arms.SelfTrain, arms.Student):

        def train(arm, pool, part, seconds, of_arm=arm.train):
            learned[f"{arm.name}-{part}"] = pool.labelled
            return of_arm(arm, pool, part, seconds)

        monkeypatch.setattr(arm, "train", train)
    pool = pool_of(fmnist)
    made = fitted(pool, tmp_path)
    assert made.strategy == taken
    told = [line for line in made.said if line.startswith(("student: macro-F1", "teacher: macro-F1"))]
    assert [line.split(":")[0] for line in told][:2] == (
        ["student"] if taken == "selftrain" else ["student", "teacher"]
    )
    held = pool.labelled[held_out(pool.labels, 0)[0]]
    assert {"selftrain-fold-0", "selftrain-all", "student-of-selftrain"} <= learned.keys()
    assert not any(np.isin(held, rows).any() for rows in learned.values())
