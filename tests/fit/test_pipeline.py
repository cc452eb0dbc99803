import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import f1_score

from fewlabels._internal.errors import InputError
from fewlabels.augment.recipes import fit_views
from fewlabels.backbones.architectures import ArticleBackbone
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import save_backbone, save_classifier
from fewlabels.data.source import ArraySource, balanced_indices
from fewlabels.fit.config import FitConfig
from fewlabels.fit.data import LabeledPool
from fewlabels.fit.pipeline import plan_fit, run_fit
from fewlabels.fit.schedule import Schedule
from fewlabels.training.callbacks import Observer
from fewlabels.training.trainer import OptimizerConfig
from tests.fit.small_fits import COSTS, DEFAULT, SMALL, fitted, many, pool_of

SCHEDULE = DEFAULT.schedule


def macro_f1_of(result, fmnist) -> float:
    test = fmnist.test.first_k(500)
    return f1_score(test.labels, outputs(result.network, test).argmax(axis=1), average="macro")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    save_backbone(ArticleBackbone(), tmp_path / "backbone.safetensors", "article")
    return str(tmp_path / "backbone.safetensors")


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_auto_compares_all_candidates_and_ships_a_good_one(fmnist, weights, tmp_path: Path):
    result = many(pool_of(fmnist), tmp_path / "fit", init_from=weights)
    names = ["kernel", "label-spreading", "probe", "supervised", "finetune", "ensemble", "self-training"]
    assert list(result.candidates) == names
    best = max(score.macro_f1 for score in result.candidates.values())
    shipped = result.candidates[result.strategy]
    assert shipped.macro_f1 >= best - shipped.standard_error
    assert result.estimate.low < result.estimate.macro_f1 < result.estimate.high
    assert macro_f1_of(result, fmnist) > 0.6
    assert result.messages[-1].startswith("pseudo-labels of 300 images") or result.strategy in ("probe", "supervised")


@pytest.mark.parametrize("strategy", ["kernel", "label-spreading", "selftrain", "supervised"])
def test_a_named_strategy_ships_what_it_names_and_learns(strategy, fmnist, tmp_path: Path):
    result = many(pool_of(fmnist), tmp_path, strategy=strategy)
    name = {"selftrain": "self-training"}.get(strategy, strategy)
    assert result.strategy == name
    assert list(result.candidates) == [name]
    assert macro_f1_of(result, fmnist) > 0.55


@pytest.mark.parametrize("strategy", ["probe", "finetune"])
def test_a_named_pretrained_strategy_ships_what_it_names(strategy, fmnist, weights, tmp_path: Path):
    result = fitted(pool_of(fmnist), tmp_path / "fit", strategy=strategy, init_from=weights)
    assert (result.strategy, list(result.candidates)) == (strategy, [strategy])


def test_a_distilled_network_is_as_confident_as_its_targets_were_right(fmnist, tmp_path: Path):
    pool = pool_of(fmnist)
    result = many(pool, tmp_path, strategy="kernel")
    assert sum(result.pseudo_labels.values()) == len(pool.unlabelled)
    assert list(result.pseudo_labels) == list(pool.source.class_names)
    logits = outputs(result.network, pool.source.subset(pool.unlabelled))
    confidence = softmax(logits, axis=1).max(axis=1).mean()
    assert confidence == pytest.approx(result.candidates["kernel"].macro_f1, abs=0.12)


def test_thresholds_of_a_distilled_network_are_of_its_own_confidence(fmnist, tmp_path: Path):
    """About as many images are accepted as the held-out predictions promise."""
    pool = pool_of(fmnist)
    result = many(pool, tmp_path, strategy="kernel")
    logits = outputs(result.network, pool.source.subset(pool.unlabelled))
    confidence = softmax(logits, axis=1).max(axis=1)
    accepted = {precision: (confidence >= at).mean() for precision, at in result.network.thresholds.items()}
    assert accepted["0.50"] == pytest.approx(1, abs=0.1)
    correct = logits.argmax(axis=1) == fmnist.train.labels[pool.unlabelled]
    surest = confidence >= result.network.thresholds["0.85"]
    assert 0.2 < surest.mean() < 1
    assert correct[surest].mean() > correct.mean()


def test_student_that_learned_nothing_is_not_shipped_if_its_start_is_better(fmnist, tmp_path: Path):
    """Weight decay that destroys the supervised weights that the student starts from."""
    wild = replace(SMALL.distillation, optimizer=OptimizerConfig(lr=0.01, weight_decay=100.0, warmup=1.0, ema=0.0))
    result = many(pool_of(fmnist), tmp_path, strategy="auto", config=replace(SMALL, distillation=wild))
    assert result.strategy in ("kernel", "label-spreading", "ensemble", "self-training")
    assert any("the network that it starts from agrees" in line for line in result.messages)
    assert macro_f1_of(result, fmnist) > 0.25  # chance is 0.1


def uneven_pool(fmnist) -> LabeledPool:
    """Trousers and bags, 40 labels of each, but nine bags for each pair of trousers without a label."""
    rows = [np.flatnonzero(fmnist.train.labels == cls)[:number] for cls, number in ((1, 240), (8, 1840))]
    labels = np.repeat([0, 1], [240, 1840])
    whole = ArraySource(fmnist.train.images[np.concatenate(rows)], labels, ("trousers", "bag"))
    return LabeledPool.from_source(whole.mask_labels(balanced_indices(labels, 80, 0)))


@pytest.mark.parametrize("few_labels_per_class", [50, 9])
def test_pseudo_labels_follow_the_class_prior_of_the_unlabelled_images(few_labels_per_class, fmnist, tmp_path: Path):
    limits = replace(SCHEDULE, few_labels_per_class=few_labels_per_class)
    pool = uneven_pool(fmnist)
    result = fitted(pool, tmp_path, strategy="kernel", schedule=limits)
    assert result.pseudo_labels["trousers"] / len(pool.unlabelled) == pytest.approx(0.1, abs=0.04)


def test_fully_labelled_data_are_supervised_with_a_reason(fmnist, tmp_path: Path):
    result = fitted(LabeledPool.from_source(fmnist.train.first_k(120)), tmp_path)
    assert list(result.candidates) == ["supervised"]
    assert result.pseudo_labels == {}
    assert "200 images without a label are needed, there are 0" in result.messages[0]


@pytest.mark.parametrize("strategy", ["kernel", "label-spreading", "selftrain"])
def test_strategies_that_need_unlabelled_images_are_refused_without_them(strategy, fmnist, tmp_path: Path):
    with pytest.raises(InputError, match=f"strategy {strategy}: 200 images .* needed, there are 150"):
        fitted(pool_of(fmnist, labels=100, images=250), tmp_path / "fit", strategy=strategy)
    assert not any((tmp_path / "fit").glob("stages/*.npy"))


@pytest.mark.parametrize(
    ("strategy", "shipped"),
    [("auto", "label-spreading"), ("kernel", "kernel"), ("supervised", "supervised"), ("probe", "probe")],
)
def test_one_label_per_class_ships_what_is_asked_for_without_an_estimate(
    strategy, shipped, fmnist, weights, tmp_path: Path
):
    result = fitted(pool_of(fmnist, labels=10), tmp_path / "fit", strategy=strategy, init_from=weights)
    assert result.strategy == shipped
    assert result.estimate is None
    assert result.candidates == {}
    assert any("no label can be held out" in line for line in result.messages)


def test_one_label_per_class_and_label_spreading_learn_something(fmnist, tmp_path: Path):
    result = many(pool_of(fmnist, labels=10, images=1000), tmp_path)
    assert macro_f1_of(result, fmnist) > 0.4


def test_one_group_leaves_no_estimate(fmnist, tmp_path: Path):
    few = fmnist.train.first_k(60)
    patient = ArraySource(few.images, few.labels, few.class_names, groups=np.zeros(60, np.int64))
    result = fitted(LabeledPool.from_source(patient), tmp_path)
    assert result.estimate is None
    assert result.strategy == "supervised"


def test_many_labels_hold_out_a_tenth_once(fmnist, tmp_path: Path):
    many_labels = replace(DEFAULT.splits, many_labels=99)
    result = fitted(pool_of(fmnist), tmp_path, strategy="supervised", splits=many_labels)
    assert {stage.split for stage in result.schedule.stages} == {"fold-1", "all"}
    assert any("on 10 held-out labels" in line for line in result.messages)


@pytest.mark.parametrize("what", ["groups", "class_names", "labels", "seed", "budget"])
def test_the_folder_of_another_fit_is_refused(what, fmnist, tmp_path: Path):
    few = fmnist.train.first_k(60)
    plain = {"labels": few.labels, "class_names": few.class_names, "groups": None}
    changed = {"groups": np.arange(60) // 2, "class_names": tuple("abcdefghij"), "labels": np.roll(few.labels, 1)}
    about = {**plain, **({what: changed[what]} if what in changed else {})}
    first, second = (LabeledPool.from_source(ArraySource(few.images, **each)) for each in (plain, about))
    fitted(first, tmp_path, strategy="supervised")
    options = {"seed": {"seed": 1}, "budget": {"budget": 50.0}}.get(what, {})
    with pytest.raises(InputError, match=f"holds a fit with {what}"):
        fitted(second, tmp_path, strategy="supervised", **options)


def test_weights_are_recognised_by_content_whatever_their_path(fmnist, weights, tmp_path: Path):
    pool = pool_of(fmnist)
    first = fitted(pool, tmp_path / "fit", strategy="probe", init_from=weights)
    other = tmp_path / "elsewhere" / ".." / "copy.safetensors"
    (tmp_path / "elsewhere").mkdir()
    other.write_bytes(Path(weights).read_bytes())
    again = fitted(pool, tmp_path / "fit", strategy="probe", init_from=str(other))
    assert same(first.network, again.network)


class Stopping(Observer):
    """Ctrl-C at a step of one training."""

    def step(self, step, loss, status=""):
        super().step(step, loss, status)
        if self.name == "supervised-fold-2" and step == 2:
            raise KeyboardInterrupt


def test_a_stopped_fit_resumes_and_trains_nothing_twice(fmnist, tmp_path: Path):
    pool = pool_of(fmnist)
    whole = fitted(pool, tmp_path / "whole", strategy="supervised")
    with pytest.raises(KeyboardInterrupt):
        fitted(pool, tmp_path / "parts", strategy="supervised", observer=Stopping)
    (first,) = (tmp_path / "parts" / "stages").glob("supervised-fold-1-*.safetensors")
    before = first.stat().st_mtime_ns
    parts = fitted(pool, tmp_path / "parts", strategy="supervised")
    assert first.stat().st_mtime_ns == before
    assert parts.candidates == whole.candidates
    assert same(parts.network, whole.network)


def test_a_finished_fit_is_read_back(fmnist, tmp_path: Path):
    pool = pool_of(fmnist)

    class Failing(Observer):
        def step(self, step, loss, status=""):
            raise AssertionError("nothing is to be trained")

    first = fitted(pool, tmp_path, strategy="supervised")
    assert same(first.network, fitted(pool, tmp_path, strategy="supervised", observer=Failing).network)


def test_stages_of_other_code_are_computed_again(fmnist, tmp_path: Path, monkeypatch):
    pool = pool_of(fmnist)
    first = fitted(pool, tmp_path, strategy="supervised")
    monkeypatch.setattr("fewlabels.fit.cache.code_digest", lambda package: "another version")
    again = fitted(pool, tmp_path, strategy="supervised")
    assert len(list((tmp_path / "stages").glob("supervised-fold-1-*.safetensors"))) == 2
    assert same(first.network, again.network)


def test_the_same_seed_gives_the_same_classifier(fmnist, tmp_path: Path):
    pool = pool_of(fmnist)
    first, again, other = (fitted(pool, tmp_path / str(n), seed) for n, seed in enumerate((0, 0, 1)))
    assert same(first.network, again.network)
    assert not same(first.network, other.network)


def test_the_schedule_is_written_once_and_kept(fmnist, tmp_path: Path):
    result = fitted(pool_of(fmnist), tmp_path)
    (file,) = (tmp_path / "stages").glob("schedule-*.json")
    assert Schedule.from_json(json.loads(file.read_text())["schedule"]) == result.schedule


def test_by_the_clock_a_fit_ends_within_its_budget(fmnist, tmp_path: Path):
    limits = replace(SMALL.schedule, reserve_fraction=0.1)
    config = replace(SMALL, budget=15.0, schedule=limits)
    result = run_fit(pool_of(fmnist), config, fit_views(1), tmp_path, 0, Observer)
    assert result.seconds < 1.1 * 15
    assert result.network.class_names == fmnist.train.class_names


def test_plan_fit_writes_and_trains_nothing(fmnist, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schedule = plan_fit(pool_of(fmnist), FitConfig(), fit_views(1), 0, torch.device("cpu"))
    assert "kernel" in schedule.candidates
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_labels_is_reported_and_never_predicted(fmnist, tmp_path: Path):
    few = fmnist.train.first_k(200)
    labels = np.where(few.labels == 8, -1, few.labels)
    pool = LabeledPool.from_source(ArraySource(few.images, labels, few.class_names))
    result = fitted(pool, tmp_path, strategy="supervised")
    assert "no image is labelled 'Bag': it is never predicted" in result.messages
    probabilities = softmax(outputs(result.network, few), axis=1)
    assert probabilities[:, 8].max() == 0


def test_groups_of_copies_widen_the_interval(fmnist, tmp_path: Path):
    """Every image is there four times: the labels tell as much as a quarter of them."""
    rows = np.repeat(np.arange(100), 4)
    images, labels = fmnist.train.images[rows], fmnist.train.labels[rows]
    widths = []
    for name, groups in (("plain", None), ("grouped", rows)):
        source = ArraySource(images, labels, fmnist.train.class_names, groups=groups)
        result = many(LabeledPool.from_source(source), tmp_path / name, strategy="supervised")
        widths.append(result.estimate.high - result.estimate.low)
    assert widths[1] > 1.3 * widths[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "selftrian"}, "Did you mean selftrain"),
        ({"budget": 0.0}, "budget 0 s: must be above 0"),
        ({"budget": float("inf")}, "budget inf s: must be above 0 and finite"),
        ({"strategy": "finetune"}, "strategy finetune: needs a pretrained backbone"),
        ({"init_from": "none.safetensors"}, "no such model file"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words, fmnist, tmp_path: Path):
    with pytest.raises(InputError, match=words):
        fitted(pool_of(fmnist), tmp_path / "fit", **options)
    assert not (tmp_path / "fit").exists()


def test_a_classifier_is_refused_as_pretrained_weights(fmnist, tmp_path: Path):
    save_classifier(Classifier("article", ["a", "b"]), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="a classifier, trained on labels that would be held out here"):
        fitted(pool_of(fmnist), tmp_path / "fit", init_from=str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("shape", "backbone", "words"),
    [
        ((4, 3), "small", "images of 4x3 pixels: the longer side needs 5"),
        ((32, 32), "article", "images of 32x32 pixels: backbone article takes 28x28"),
    ],
)
def test_images_of_a_wrong_size_are_refused(shape, backbone, words, tmp_path: Path):
    images = np.zeros((4, *shape), np.uint8)
    pool = LabeledPool.from_source(ArraySource(images, np.array([0, 1, 0, 1]), ("a", "b")))
    with pytest.raises(InputError, match=words):
        fitted(pool, tmp_path / "fit", backbone=backbone)


def test_counted_seconds_do_not_depend_on_the_clock(fmnist, tmp_path: Path):
    assert not COSTS.clock
    result = fitted(pool_of(fmnist), tmp_path, strategy="supervised")
    assert result.schedule.seconds("supervised", "fit", "fold-1") == pytest.approx(0.98 * 40 * 3 / 9 / 3)
