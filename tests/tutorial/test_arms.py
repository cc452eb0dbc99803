"""The tutorial's bug: its 'pretrained' weights are never loaded. Ours are, and a test would notice."""

from pathlib import Path

import pytest
import torch

from fewlabels._internal.seeding import seeded
from fewlabels.backbones.architectures import ArticleBackbone
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import save_backbone
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.arms import HIDDEN, ArticlePlan, load_as_printed, train_arm

ARMS = {arm.name: arm for arm in ArticlePlan(head_epochs=1).arms(60_000)}


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


def test_as_printed_nothing_is_loaded(pretrained):
    model, untouched = (Classifier("article", ["a"], seed=5, hidden=32) for _ in range(2))
    load_as_printed(model, pretrained[1])
    assert weights_equal(model, untouched)


@pytest.mark.parametrize(
    ("arm", "loaded"),
    [("frozen-as-intended", True), ("frozen-simclr", True), ("frozen-as-printed", False)],
)
def test_the_trained_classifier_stands_on_the_backbone_it_claims(arm, loaded, pretrained, fmnist):
    backbone, path = pretrained
    model = train_arm(ARMS[arm], fmnist.train.first_k(100), path, 0, Observer("test"), torch.device("cpu"))
    assert weights_equal(model.backbone, backbone) is loaded
    fresh = Classifier("article", fmnist.train.class_names, seed=0, hidden=HIDDEN)
    assert weights_equal(model.backbone, fresh.backbone) is not loaded


def test_the_settings_are_the_tutorials():
    plan = ArticlePlan()
    arms = {arm.name: arm for arm in plan.arms(60_000)}
    full, few, frozen = arms["supervised-60000"], arms["supervised-1000"], arms["frozen-as-intended"]
    assert (full.labels, full.settings.epochs, full.settings.batch_size) == (60_000, 10, 64)
    assert (few.labels, few.settings.epochs, few.settings.batch_size) == (1000, 100, 64)
    assert (frozen.labels, frozen.settings.epochs, frozen.settings.batch_size) == (1000, 100, 32)
    assert (frozen.pretrain_epochs, frozen.settings.freeze_backbone) == (100, True)
    for arm in (full, few, frozen):
        sgd = arm.settings.optimizer
        assert (sgd.name, sgd.lr, sgd.momentum, sgd.weight_decay) == ("sgd", 1e-3, 0.9, 1e-5)
