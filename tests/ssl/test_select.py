"""``--method auto`` on real images, with trials of a few steps."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels._internal.tensors import read_weights
from fewlabels.features.probes import knn_probe
from fewlabels.ssl.methods import METHODS
from fewlabels.ssl.pretrain import Engine, PretrainSettings, build_method
from fewlabels.ssl.scores import _rotation_probe
from fewlabels.ssl.select import AutoPretraining, Chosen, better
from fewlabels.training.callbacks import Observer

SETTINGS = PretrainSettings("simclr", 2, batch_size=100)
RECIPES = ("gray-small", "randaugment")


@pytest.fixture(scope="module")
def source(fmnist):
    return fmnist.train.first_k(300)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("fewlabels.ssl.select.TRIAL_STEPS", 3)
    monkeypatch.setattr("fewlabels.ssl.scores.IMAGES", 100)
    monkeypatch.setattr("fewlabels.ssl.select.logistic_probe", knn_probe)  # 50 times as fast


def arguments(source, labelled, folder: Path, console=None, settings=SETTINGS):
    return source, labelled, settings, RECIPES, folder, 0, Observer("auto", None, console), Engine(tune=False)


def test_with_labels_the_best_by_cross_validation_and_then_by_score(source, tmp_path: Path, capsys):
    settings, recipe = AutoPretraining(*arguments(source, source.first_k(200), tmp_path, Console(width=300))).go()
    found = json.loads((tmp_path / "choice.json").read_text())
    trials = found["trials"]
    first = trials[: len(METHODS)]
    assert [trial["method"] for trial in first] == list(METHODS)
    assert settings.method == max(first, key=lambda trial: trial["cv_macro_f1"])["method"]
    assert all(0 < trial["cv_macro_f1"] < 1 for trial in trials)
    within = [trial for trial in trials if trial["method"] == settings.method]
    assert len(within) == len(trials) - len(METHODS) + 1 == 4
    rate = better(1.0, {trial["rate"]: trial["score"] for trial in within if trial["views"] == "gray-small"})
    assert settings.lr == pytest.approx(rate * METHODS[settings.method].settings.optimizer.lr)
    assert recipe in RECIPES
    assert len(found["chosen"]["reasons"]) == 4
    assert "by cross-validation on 200 labels" in capsys.readouterr().out
    last, best = (read_weights(tmp_path / name / "backbone.safetensors")[0] for name in ("epoch-2", "."))
    assert last.keys() == best.keys()
    # A second start finds everything done, and changes nothing.
    assert AutoPretraining(*arguments(source, source.first_k(200), tmp_path)).go() == (settings, recipe)
    assert json.loads((tmp_path / "choice.json").read_text()) == found
    with pytest.raises(InputError, match=r"choice.json: a choice with labels 200, not 0"):
        AutoPretraining(*arguments(source, None, tmp_path))


@pytest.mark.parametrize(
    ("scores", "taken"),
    [
        ({1: 0.90, 2: 0.95}, 2),
        ({1: 0.90, 2: 0.905}, 1),  # may be chance
        ({1: 0.25, 2: 0.45}, 1),  # these images have no way up
        ({1: 0.25, 2: 0.75}, 2),
        ({1: 0.95, 2: 0.90}, 1),
    ],
)
def test_another_is_taken_only_if_it_scores_well_and_better(scores, taken):
    assert better(1, scores) == taken


def test_without_labels_methods_are_not_compared(source, tmp_path: Path):
    chosen = AutoPretraining(*arguments(source, None, tmp_path)).choose()
    assert chosen.method == "mocov2"
    assert "no labels" in chosen.reasons[0]
    assert {trial["method"] for trial in json.loads((tmp_path / "choice.json").read_text())["trials"]} == {"mocov2"}


def test_a_class_with_a_single_label_does_not_compare_methods(source, tmp_path: Path):
    few = source.first_k(200)
    single = np.flatnonzero(few.labels == 3)[:1]
    labelled = few.subset(np.append(np.flatnonzero(few.labels != 3), single))
    auto = AutoPretraining(*arguments(source, labelled, tmp_path))
    assert len(auto.labelled) == (few.labels != 3).sum()
    alone = few.subset(np.append(np.flatnonzero(few.labels == 1), single))
    assert AutoPretraining(*arguments(source, alone, tmp_path)).labelled is None
    few.groups = few.labels.copy()  # a patient for each class
    assert AutoPretraining(*arguments(source, few, tmp_path)).labelled is None


def test_what_is_scored_is_what_is_kept(source, monkeypatch, tmp_path: Path):
    scored = []

    def score(method, *rest):
        scored.append(method.backbone.state_dict()["0.weight"].clone())
        return 0.5

    monkeypatch.setattr("fewlabels.ssl.select.score_of", score)
    settings = replace(SETTINGS, ema=0.9)
    AutoPretraining(*arguments(source, None, tmp_path, settings=settings)).go()
    kept = [read_weights(tmp_path / f"epoch-{epoch}" / "backbone.safetensors")[0]["0.weight"] for epoch in (1, 2)]
    assert all(torch.equal(*pair) for pair in zip(scored[-2:], kept, strict=True))


def test_a_backbone_of_a_fixed_size_is_scored_on_images_of_that_size(source):
    pytest.importorskip("timm")
    method = build_method(replace(SETTINGS, backbone="timm/vit_tiny_patch16_224"), 1, 0)
    assert 0 <= _rotation_probe(method, source.read(slice(0, 8))) <= 1


def test_trials_that_collapse_are_passed_over(source, monkeypatch, tmp_path: Path):
    weak = METHODS["mocov2"].settings
    monkeypatch.setitem(METHODS, "mocov2", METHODS["mocov2"]._replace(settings=replace(weak, batch_size=2)))
    unset = replace(SETTINGS, batch_size=None)
    with pytest.raises(InputError, match=r"every trial collapsed\. The first: batch too small"):
        AutoPretraining(*arguments(source.first_k(40), None, tmp_path, settings=unset)).choose()


def test_a_run_that_collapses_falls_back(source, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("fewlabels.ssl.collapse.LOOK_EVERY", 2)
    chooser = AutoPretraining(*arguments(source, None, tmp_path))
    chooser.keep(Chosen("byol", 100.0, "gray-small", ["as it was"], "simclr"))
    (tmp_path / "verdicts.json").write_text('{"restarts": 3, "verdicts": ["of byol"]}')
    auto = AutoPretraining(*arguments(source, None, tmp_path))
    settings, _ = auto.go()
    assert settings == replace(SETTINGS, lr=None, keep_epochs=(1, 2))
    chosen = json.loads((tmp_path / "choice.json").read_text())["chosen"]
    assert chosen["method"] == "simclr"
    assert chosen["reasons"][1].startswith("byol collapsed, simclr takes its place: divergence at step 2")
    assert (tmp_path / "collapsed-byol" / "engine.json").is_file()
    # Neither the halvings of the rate nor the curve are those of the run that was set aside.
    assert (tmp_path / "collapsed-byol" / "verdicts.json").is_file()
    assert not (tmp_path / "verdicts.json").exists()
    assert auto.observer.curve.steps == [1, 2, 3, 4, 5, 6]
    assert asdict(settings)["method"] == "simclr"
    assert read_weights(tmp_path / "epoch-2" / "method.safetensors")[1]["method"] == "simclr"


def test_a_damaged_choice_is_refused(source, tmp_path: Path):
    (tmp_path / "choice.json").write_text("{")
    with pytest.raises(InputError, match=r"choice.json: damaged"):
        AutoPretraining(*arguments(source, None, tmp_path))
