"""The tutorial's experiments, among them its bug: it does not load the pretrained weights."""

from pathlib import Path

import pytest
import torch

from fewlabels._internal.seeding import seeded
from fewlabels.backbones.architectures import ArticleBackbone
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import save_backbone
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.arms import HEAD_HIDDEN_WIDTH, ArticlePlan, load_as_printed, train_experiment

EXPERIMENTS = {experiment.name: experiment for experiment in ArticlePlan(head_epochs=1).experiments(60_000)}


@pytest.fixture
def pretrained(tmp_path: Path) -> tuple[ArticleBackbone, Path]:
    with seeded("pretrained"):
        backbone = ArticleBackbone()
    path = tmp_path / "backbone.safetensors"
    save_backbone(backbone, path, "article")
    return backbone, path


def weights_equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_load_as_printed_loads_nothing(pretrained):
    model, unchanged = (Classifier("article", ["a"], seed=5, hidden=32) for _ in range(2))
    load_as_printed(model, pretrained[1])
    assert weights_equal(model, unchanged)


@pytest.mark.parametrize(
    ("name", "is_loaded"),
    [("frozen-as-intended", True), ("frozen-simclr", True), ("frozen-as-printed", False)],
)
def test_train_experiment_loads_pretrained_weights_except_as_printed(name, is_loaded, pretrained, fmnist):
    backbone, path = pretrained
    labelled = fmnist.train.first_k(100)
    model = train_experiment(EXPERIMENTS[name], labelled, path, 0, Observer("test"), torch.device("cpu"))
    assert weights_equal(model.backbone, backbone) is is_loaded
    random = Classifier("article", fmnist.train.class_names, seed=0, hidden=HEAD_HIDDEN_WIDTH)
    assert weights_equal(model.backbone, random.backbone) is not is_loaded


def test_article_plan_has_the_settings_of_the_tutorial():
    experiments = {experiment.name: experiment for experiment in ArticlePlan().experiments(60_000)}
    full, few = experiments["supervised-60000"], experiments["supervised-1000"]
    frozen = experiments["frozen-as-intended"]
    assert (full.labels, full.settings.epochs, full.settings.batch_size) == (60_000, 10, 64)
    assert (few.labels, few.settings.epochs, few.settings.batch_size) == (1000, 100, 64)
    assert (frozen.labels, frozen.settings.epochs, frozen.settings.batch_size) == (1000, 100, 32)
    assert (frozen.pretrain_epochs, frozen.settings.freeze_backbone) == (100, True)
    for experiment in (full, few, frozen):
        sgd = experiment.settings.optimizer
        assert (sgd.name, sgd.lr, sgd.momentum, sgd.weight_decay) == ("sgd", 1e-3, 0.9, 1e-5)
