import numpy as np
import pytest
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize

from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.data.source import ArraySource
from fewlabels.features.probes import linear_head, logistic_probe
from fewlabels.metrics.classification import probabilities

NAMES = ("a", "b", "c")


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 1], [0, 2]])
def test_classifier_with_the_head_predicts_what_the_probe_predicts(classes, fmnist):
    train, test = fmnist.train, fmnist.train.subset(slice(300, 500))
    rows = np.flatnonzero(np.isin(train.labels[:300], classes))
    network = Classifier("article", NAMES, seed=0)
    features, labels = outputs(network.backbone, train.subset(rows)), train.labels[rows]
    network.set_head(linear_head(features, labels, 3))
    probe = logistic_probe(features, labels).estimator
    found = probabilities(outputs(network, test))
    expected = probe.predict_proba(outputs(network.backbone, test))
    np.testing.assert_allclose(found[:, classes], expected, atol=2e-3)
    absent = [cls for cls in range(3) if cls not in classes]
    assert (found[:, absent] < 0.01).all()


@pytest.mark.parametrize("shots", [1, 5])
def test_head_of_few_labels_predicts_the_nearest_class_mean(shots, fmnist):
    train = ArraySource(fmnist.train.images[:300], np.minimum(fmnist.train.labels[:300], 2), NAMES)
    rows = np.concatenate([np.flatnonzero(fmnist.train.labels[:300] == cls)[:shots] for cls in (0, 2)])
    network = Classifier("article", NAMES, seed=0)
    features = outputs(network.backbone, train)
    network.set_head(linear_head(features[rows], train.labels[rows], 3))
    unit, labels = normalize(features), train.labels[rows]
    means = np.stack([unit[rows][labels == cls].mean(axis=0) for cls in (0, 2)])
    nearest = np.array([0, 2])[euclidean_distances(unit, means).argmin(axis=1)]
    np.testing.assert_array_equal(outputs(network, train).argmax(axis=1), nearest)
