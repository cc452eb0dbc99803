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
from fewlabels.ssl.pretrain import ComputeConfig, PretrainSettings, build_method
from fewlabels.ssl.scores import _rotation_probe
from fewlabels.ssl.select import AutoPretraining, Selection, best_or_default
from fewlabels.training.callbacks import Observer

SETTINGS = PretrainSettings("simclr", 2, batch_size=100)
RECIPES = ("gray-small", "randaugment")


@pytest.fixture(scope="module")
def source(fmnist):
    return fmnist.train.first_k(300)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("fewlabels.ssl.select.TRIAL_STEPS", 3)
    monkeypatch.setattr("fewlabels.ssl.scores.SCORE_IMAGES", 100)
    monkeypatch.setattr("fewlabels.ssl.select.logistic_probe", knn_probe)  # 50 times faster


def arguments(source, labelled, folder: Path, console=None, settings=SETTINGS):
    return source, labelled, settings, RECIPES, folder, 0, Observer("auto", None, console), ComputeConfig(tune=False)


def test_selection_with_labels_is_by_cross_validation_then_by_score(source, tmp_path: Path, capsys):
    settings, recipe = AutoPretraining(*arguments(source, source.first_k(200), tmp_path, Console(width=300))).run()
    found = json.loads((tmp_path / "choice.json").read_text())
    trials = found["trials"]
    first = trials[: len(METHODS)]
    assert [trial["method"] for trial in first] == list(METHODS)
    assert settings.method == max(first, key=lambda trial: trial["cv_macro_f1"])["method"]
    assert all(0 < trial["cv_macro_f1"] < 1 for trial in trials)
    within = [trial for trial in trials if trial["method"] == settings.method]
    assert len(within) == len(trials) - len(METHODS) + 1 == 4
    rate = best_or_default(1.0, {trial["rate"]: trial["score"] for trial in within if trial["views"] == "gray-small"})
    assert settings.lr == pytest.approx(rate * METHODS[settings.method].settings.optimizer.lr)
    assert recipe in RECIPES
    assert len(found["chosen"]["reasons"]) == 4
    assert "by cross-validation on 200 labels" in capsys.readouterr().out
    last, best = (read_weights(tmp_path / name / "backbone.safetensors")[0] for name in ("epoch-2", "."))
    assert last.keys() == best.keys()
    # A second start finds a finished run and changes nothing.
    assert AutoPretraining(*arguments(source, source.first_k(200), tmp_path)).run() == (settings, recipe)
    assert json.loads((tmp_path / "choice.json").read_text()) == found
    with pytest.raises(InputError, match=r"choice.json: a choice with labels 200, not 0"):
        AutoPretraining(*arguments(source, None, tmp_path))


@pytest.mark.parametrize(
    ("scores", "selected"),
    [
        ({1: 0.90, 2: 0.95}, 2),
        ({1: 0.90, 2: 0.905}, 1),  # the gain may be chance
        ({1: 0.25, 2: 0.45}, 1),  # no score is usable
        ({1: 0.25, 2: 0.75}, 2),
        ({1: 0.95, 2: 0.90}, 1),
    ],
)
def test_best_or_default_needs_a_usable_and_clearly_better_score(scores, selected):
    assert best_or_default(1, scores) == selected


def test_selection_without_labels_takes_default_method(source, tmp_path: Path):
    chosen = AutoPretraining(*arguments(source, None, tmp_path)).select()
    assert chosen.method == "mocov2"
    assert "no labels" in chosen.reasons[0]
    assert {trial["method"] for trial in json.loads((tmp_path / "choice.json").read_text())["trials"]} == {"mocov2"}


def test_selection_ignores_classes_that_cross_validation_cannot_hold_out(source, tmp_path: Path):
    few = source.first_k(200)
    single = np.flatnonzero(few.labels == 3)[:1]
    labelled = few.subset(np.append(np.flatnonzero(few.labels != 3), single))
    auto = AutoPretraining(*arguments(source, labelled, tmp_path))
    assert len(auto.labelled) == (few.labels != 3).sum()
    alone = few.subset(np.append(np.flatnonzero(few.labels == 1), single))
    assert AutoPretraining(*arguments(source, alone, tmp_path)).labelled is None
    few.groups = few.labels.copy()  # one group per class
    assert AutoPretraining(*arguments(source, few, tmp_path)).labelled is None


def test_scored_weights_are_the_saved_weights(source, monkeypatch, tmp_path: Path):
    scored = []

    def score(method, *rest):
        scored.append(method.backbone.state_dict()["0.weight"].clone())
        return 0.5

    monkeypatch.setattr("fewlabels.ssl.select.selection_score", score)
    settings = replace(SETTINGS, ema=0.9)
    AutoPretraining(*arguments(source, None, tmp_path, settings=settings)).run()
    saved = [read_weights(tmp_path / f"epoch-{epoch}" / "backbone.safetensors")[0]["0.weight"] for epoch in (1, 2)]
    assert all(torch.equal(*pair) for pair in zip(scored[-2:], saved, strict=True))


def test_rotation_probe_resizes_images_for_a_backbone_of_fixed_size(source):
    pytest.importorskip("timm")
    method = build_method(replace(SETTINGS, backbone="timm/vit_tiny_patch16_224"), 1, 0)
    assert 0 <= _rotation_probe(method, source.read(slice(0, 8))) <= 1


def test_selection_is_refused_if_every_trial_collapses(source, monkeypatch, tmp_path: Path):
    weak = METHODS["mocov2"].settings
    monkeypatch.setitem(METHODS, "mocov2", METHODS["mocov2"]._replace(settings=replace(weak, batch_size=2)))
    unset = replace(SETTINGS, batch_size=None)
    with pytest.raises(InputError, match=r"every trial collapsed\. The first: batch too small"):
        AutoPretraining(*arguments(source.first_k(40), None, tmp_path, settings=unset)).select()


def test_collapsed_run_is_replaced_by_fallback_method(source, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("fewlabels.ssl.collapse.CHECK_INTERVAL", 2)
    first_start = AutoPretraining(*arguments(source, None, tmp_path))
    first_start.save(Selection("byol", 100.0, "gray-small", ["as it was"], "simclr"))
    (tmp_path / "verdicts.json").write_text('{"restarts": 3, "verdicts": ["of byol"]}')
    auto = AutoPretraining(*arguments(source, None, tmp_path))
    settings, _ = auto.run()
    assert settings == replace(SETTINGS, lr=None, keep_epochs=(1, 2))
    chosen = json.loads((tmp_path / "choice.json").read_text())["chosen"]
    assert chosen["method"] == "simclr"
    assert chosen["reasons"][1].startswith("byol collapsed; training simclr instead: divergence at step 2")
    assert (tmp_path / "collapsed-byol" / "engine.json").is_file()
    # Verdicts, restarts and loss curve of the collapsed run are not those of the new run.
    assert (tmp_path / "collapsed-byol" / "verdicts.json").is_file()
    assert not (tmp_path / "verdicts.json").exists()
    assert auto.observer.curve.steps == [1, 2, 3, 4, 5, 6]
    assert asdict(settings)["method"] == "simclr"
    assert read_weights(tmp_path / "epoch-2" / "method.safetensors")[1]["method"] == "simclr"


def test_damaged_selection_file_is_refused(source, tmp_path: Path):
    (tmp_path / "choice.json").write_text("{")
    with pytest.raises(InputError, match=r"choice.json: damaged"):
        AutoPretraining(*arguments(source, None, tmp_path))


def test_trial_of_many_images_does_not_take_a_whole_epoch(source, tmp_path: Path):
    """An epoch of 300 images in batches of 10 has 30 steps, a trial three."""
    small = replace(SETTINGS, batch_size=10)
    selection = AutoPretraining(*arguments(source, None, tmp_path, settings=small))
    selection.run_trial("simclr", 1.0, "gray-small")
    (state,) = (tmp_path / "trials").glob("*/state.json")
    assert json.loads(state.read_text())["curve"]["steps"] == [1, 2, 3]


def test_trial_of_few_images_has_whole_epochs(source, tmp_path: Path):
    selection = AutoPretraining(*arguments(source, None, tmp_path, settings=replace(SETTINGS, batch_size=150)))
    selection.run_trial("simclr", 1.0, "gray-small")
    (state,) = (tmp_path / "trials").glob("*/state.json")
    assert len(json.loads(state.read_text())["curve"]["steps"]) in (2, 3)
