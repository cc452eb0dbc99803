import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from fewlabels._internal.errors import InputError
from fewlabels._internal.seeding import seed_from
from fewlabels.augment.recipes import fit_views
from fewlabels.backbones.architectures import ArticleBackbone
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import load_classifier, save_backbone, save_classifier
from fewlabels.data.source import ArraySource, balanced_indices
from fewlabels.fit import arms, fit
from fewlabels.fit.budget import Budget
from fewlabels.fit.cross_fit import RARE, CrossFitted
from fewlabels.fit.fit import Fit
from fewlabels.fit.pool import Pool, held_out
from fewlabels.fit.settings import FitSettings
from fewlabels.fit.stages import Stages
from fewlabels.metrics.classification import evaluate, probabilities
from fewlabels.training.callbacks import Observer
from tests.fit.small_fits import (
    STEPS,
    all_are_heard,
    any_student_is_taken,
    are_scored,
    fitted,
    later_is_better,
    pool_of,
    untrained,
)


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
    assert evaluate(outputs(made.network, fmnist.test.first_k(500)), fmnist.test.first_k(500)).macro_f1 > 0.6


def test_a_teacher_that_has_learned_nothing_is_not_listened_to(short, monkeypatch, fmnist, tmp_path: Path):
    monkeypatch.setattr(arms.SelfTrain, "train", untrained)
    made = fitted(pool_of(fmnist), tmp_path, strategy="selftrain")
    assert made.tried["selftrain"] == pytest.approx(made.tried["committee"], abs=0.03)
    assert evaluate(outputs(made.network, fmnist.test.first_k(500)), fmnist.test.first_k(500)).macro_f1 > 0.6


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
    assert evaluate(outputs(made.network, fmnist.test.first_k(500)), fmnist.test.first_k(500)).macro_f1 > 0.6


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
    assert evaluate(outputs(made.network, fmnist.test.first_k(500)), fmnist.test.first_k(500)).macro_f1 > 0.4


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
    assert evaluate(outputs(made.network, fmnist.test.first_k(500)), fmnist.test.first_k(500)).macro_f1 > 0.6


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
    """And so have the hints of the folds' teachers, and they who are judged on labels held out."""
    later_is_better(monkeypatch)
    monkeypatch.setattr("fewlabels.fit.plan.FEW", 9)
    shares, learned, judged = np.linspace(0.15, 0.05, 10), [], []
    teacher = arms.Arms.teacher

    def noting(self: arms.Arms, hints, prior=None):
        learned.extend([] if prior is None else hints.values())  # else it is asked how long it takes
        return teacher(self, hints, prior)

    monkeypatch.setattr(arms.Arms, "teacher", noting)
    monkeypatch.setattr(fit, "class_prior", lambda folds, learned_from: shares)
    monkeypatch.setattr(Fit, "_tell_apart", lambda self, logs: learned.append(logs) or {})
    monkeypatch.setattr(Fit, "_right", lambda self, fitted: judged.append(fitted) or 0.1)
    pool = pool_of(fmnist)
    fitted(pool, tmp_path)
    assert len(learned) == 3 + 1 + 1  # the folds', the last teacher's, and the student's
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


def judged_by(work: Fit) -> CrossFitted:
    """Folds that are unsure of what they hold out, and of no class more than of others."""
    right = np.eye(10)[np.maximum(work.pool.source.labels, 0)]
    noise = np.random.default_rng(0).normal(size=right.shape)
    return CrossFitted(work.pool, work.parts, [2 * right + noise] * len(work.parts))


def test_few_labels_tell_the_shares_on_average_and_only_if_they_differ(shortest, monkeypatch, fmnist, tmp_path: Path):
    """Expectation maximisation would go on from there; what differs no more than by chance is equal, and made so."""
    pool, found = pool_of(fmnist), {}
    for few in (10, 9):  # labels a class
        monkeypatch.setattr("fewlabels.fit.plan.FEW", few)
        work = Fit(pool, FitSettings("supervised", 30.0), fit_views(1), tmp_path / str(few), 0, Observer)
        judged = judged_by(work)
        for most in (3.0, 1.6):
            alphas = np.linspace(most, 1.0, 10)
            folds = [np.log(np.random.default_rng(fold).dirichlet(alphas, 300)) for fold in range(3)]
            work._find_shares(judged, [logs.astype(np.float32) for logs in folds])
            found[few, most] = work.shares, np.mean([np.exp(logs) for logs in folds], axis=(0, 1))
            logs = np.log(np.random.default_rng(0).dirichlet(alphas, 400))
            brought = softmax(work._brought_logs(logs), axis=1)[work._some].mean(axis=0)
            shares = np.exp(logs)[work._some].mean(axis=0) if (few, most) == (10, 3.0) else work.shares
            np.testing.assert_allclose(brought, shares, atol=1e-3)
    shares, mean = found[10, 3.0]
    np.testing.assert_allclose(shares, mean, rtol=1e-5)
    assert shares.sum() == pytest.approx(1, abs=1e-12)  # else images cannot be drawn by them
    assert found[10, 1.6][0].tolist() == [0.1] * 10
    for most in (3.0, 1.6):
        shares, mean = found[9, most]
        assert shares[0] > mean[0] + 0.02


def test_neither_many_labels_nor_a_single_fold_bring_anything_to_the_shares(
    shortest, monkeypatch, fmnist, tmp_path: Path
):
    """Many labels know better; a part of a few in groups cannot tell."""
    pool, logs = pool_of(fmnist), np.log(np.tile(np.linspace(0.11, 0.09, 10), (400, 1)))

    def brought(source: ArraySource, folder: str) -> np.ndarray:
        made = Fit(Pool.of(source), FitSettings("supervised", 30.0), fit_views(1), tmp_path / folder, 0, Observer)
        made._find_shares(judged_by(made), [logs] * len(made.parts))
        return made._brought_logs(logs)

    np.testing.assert_allclose(softmax(brought(pool.source, "three"), axis=1).mean(axis=0), 0.1, atol=1e-3)
    groups = np.zeros(400, np.int64)  # of two patients, without the first of whom some class could not be learned
    groups[pool.labelled[-5:]] = 1
    in_groups = ArraySource(pool.source.images, pool.source.labels, pool.source.class_names, groups=groups)
    assert brought(in_groups, "groups") is logs
    alone = Fit(Pool.of(in_groups), FitSettings("supervised", 30.0), fit_views(1), tmp_path / "alone", 0, Observer)
    shares = alone.shares
    alone._find_shares(judged_by(alone), [logs])
    assert alone.shares is shares
    monkeypatch.setattr("fewlabels.fit.pool.MANY", 99)
    monkeypatch.setattr("fewlabels.fit.plan.FEW", 9)  # else labels held out alone, one of a class, tell nothing
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
    said = outputs(made.network, few)
    assert 8 not in said.argmax(axis=1)
    assert probabilities(said)[:, 8].max() == 0


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


def test_warnings_of_an_earlier_start_are_told(tmp_path: Path):
    stages = Stages(tmp_path, {}, Observer, torch.device("cpu"))
    for name, warning in (("selftrain-fold-0", "late drop"), ("supervised-all", "")):
        (stages.folder / f"{name}.safetensors").touch()
        (stages.folder / f"{name}.json").write_text(json.dumps({"steps": 3, "warning": warning}))
    assert stages.warnings() == {"selftrain-fold-0": "late drop"}


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
