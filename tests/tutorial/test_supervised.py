import numpy as np
import pytest
import torch

from fewlabels._internal.errors import InputError
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.data.source import ArraySource
from fewlabels.metrics.classification import evaluate
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.supervised import SupervisedSettings, train_supervised

CPU = torch.device("cpu")


def train(source, **settings):
    model = Classifier("article", source.class_names, seed=0, hidden=32)
    return train_supervised(model, source, SupervisedSettings(**settings), 0, Observer("test"), CPU)


def test_train_supervised_with_a_thousand_labels_is_better_than_chance(fmnist):
    model, test = train(fmnist.train.first_k(1000), epochs=15), fmnist.test.first_k(2000)
    assert evaluate(outputs(model, test), test).macro_f1 > 0.6  # chance is 0.1; the full 100 epochs give 0.8


def test_train_supervised_with_frozen_backbone_changes_only_the_head(fmnist):
    before = Classifier("article", fmnist.train.class_names, seed=0, hidden=32)
    after = train(fmnist.train.first_k(100), epochs=1, freeze_backbone=True)
    for name, parameter in after.backbone.named_parameters():
        assert torch.equal(parameter, before.backbone.get_parameter(name))
    assert not torch.equal(after.head[0].weight, before.head[0].weight)


def test_train_supervised_ignores_unlabelled_images(fmnist):
    few = fmnist.train.first_k(64)
    padded = ArraySource(
        np.concatenate([few.images, fmnist.train.images[64:128]]),
        np.concatenate([few.labels, np.full(64, -1)]),
        few.class_names,
    )
    a, b = (train(source, epochs=2).state_dict() for source in (few, padded))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_train_supervised_refuses_images_without_labels(fmnist):
    images = fmnist.train.first_k(10).images
    with pytest.raises(InputError, match="0 labelled images"):
        train(ArraySource(images, None, ("a", "b")), epochs=1)
