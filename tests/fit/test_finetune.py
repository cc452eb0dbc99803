import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize

from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.data.source import ArraySource
from fewlabels.features.probes import logistic_probe
from fewlabels.fit.finetune import layerwise, probed_head, with_head
from fewlabels.fit.pool import Pool
from fewlabels.metrics.classification import probabilities


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 1], [0, 2]])
def test_the_head_says_what_the_probe_says(classes, fmnist):
    train = fmnist.train
    rows = np.flatnonzero(np.isin(train.labels[:300], classes))
    labels = np.full(300, -1)
    labels[rows] = train.labels[rows]
    pool = Pool.of(ArraySource(train.images[:300], labels, ("a", "b", "c")))
    network = Classifier("article", pool.source.class_names, seed=0)
    with_head(network, probed_head(network, pool))
    probe = logistic_probe(outputs(network.backbone, pool.source.subset(rows)), labels[rows]).estimator
    said = probabilities(outputs(network, train.subset(slice(300, 500))))
    wanted = probe.predict_proba(outputs(network.backbone, train.subset(slice(300, 500))))
    np.testing.assert_allclose(said[:, classes], wanted, atol=2e-3)
    absent = [c for c in range(3) if c not in classes]
    assert (said[:, absent] < 0.01).all()


@pytest.mark.parametrize("shots", [1, 5])
def test_few_labels_are_the_nearest_class_mean(shots, fmnist):
    train = fmnist.train
    labels = np.full(300, -1)
    for cls in (0, 2):
        rows = np.flatnonzero(train.labels[:300] == cls)[:shots]
        labels[rows] = cls
    pool = Pool.of(ArraySource(train.images[:300], labels, ("a", "b", "c")))
    network = Classifier("article", pool.source.class_names, seed=0)
    with_head(network, probed_head(network, pool))
    features = normalize(outputs(network.backbone, pool.source))
    means = np.stack([features[labels == cls].mean(axis=0) for cls in (0, 2)])
    nearest = np.array([0, 2])[euclidean_distances(features, means).argmin(axis=1)]
    np.testing.assert_array_equal(outputs(network, pool.source).argmax(axis=1), nearest)


def test_a_head_with_a_hidden_layer_has_no_place_for_it():
    with pytest.raises(TypeError, match="hidden layer"):
        with_head(Classifier("article", ["a", "b"], hidden=8), np.zeros((2, 2049)))


@pytest.mark.parametrize(("backbone", "layers"), [("article", 7), ("resnet18", 11), ("timm/vit_tiny_patch16_224", 15)])
def test_rates_fall_from_the_head_down(backbone, layers):
    network = Classifier(backbone, ["a", "b"])
    groups = layerwise(network, lr=1.0, decay=0.5)
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in network.parameters()}
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(network.head.weight)] == rate[id(network.head.bias)] == 1
    lowest = 0.5 ** (layers - 1)
    assert rate[id(next(network.backbone.parameters()))] == lowest
    if backbone.startswith("timm"):
        assert rate[id(network.backbone.network.pos_embed)] == lowest  # it belongs to no layer
    assert len({group["lr"] for group in groups}) == layers
    decayed = {id(p): group.get("weight_decay") for group in groups for p in group["params"]}
    assert decayed[id(network.head.bias)] == 0
    assert decayed[id(network.head.weight)] is None
    torch.optim.AdamW(groups)
