import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from fewlabels._internal.errors import InputError
from fewlabels.backbones.inference import outputs
from fewlabels.data.source import ArraySource
from fewlabels.features.probes import KNN_K, LOGISTIC_C, _selection_rows, knn_curve, knn_probe, logistic_probe
from fewlabels.ssl.pretrain import PretrainSettings, build_method

PROBES = pytest.mark.parametrize("probe", [knn_probe, logistic_probe])


def blobs(per_class: int, noise: float = 0.5, seed: int = 0):
    """Features of three classes, each a direction in ten dimensions, with noise; and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    return (np.eye(10)[labels] + noise * rng.normal(size=(len(labels), 10)) / math.sqrt(10)).astype(np.float32), labels


@PROBES
def test_probe_is_accurate_and_estimates_its_macro_f1(probe):
    features, labels = blobs(20)
    found = probe(features, labels)
    others, truth = blobs(100, seed=1)
    score = f1_score(truth, found.estimator.predict(others), average="macro")
    assert score > 0.95
    assert found.cv_macro_f1 == pytest.approx(score, abs=0.06)
    assert found.chosen in (KNN_K if found.kind == "knn" else LOGISTIC_C)
    np.testing.assert_allclose(found.estimator.predict_proba(others).sum(axis=1), 1, rtol=1e-5)


@PROBES
def test_probe_on_random_labels_scores_at_chance(probe):
    rng = np.random.default_rng(0)
    found = probe(rng.normal(size=(150, 10)), rng.permutation(np.repeat(np.arange(3), 50)))
    assert found.cv_macro_f1 < 0.5


@PROBES
def test_probe_ignores_length_of_features(probe):
    features, labels = blobs(20, noise=0.1)
    lengths = np.random.default_rng(0).uniform(0.01, 10, len(labels))[:, None]
    assert probe(features * lengths, labels).cv_macro_f1 == 1
    assert probe(features * lengths, labels).cv_macro_f1 == probe(features, labels).cv_macro_f1


def test_knn_probe_selects_many_neighbours_for_noisy_labels():
    features, labels = blobs(100, noise=0.3)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(labels)) < 0.3
    labels = np.where(wrong, rng.integers(0, 3, len(labels)), labels)
    assert knn_probe(features, labels).chosen >= 10


def test_logistic_probe_selects_c_with_least_cross_validated_log_loss():
    features, labels = blobs(20, noise=2)
    splits = StratifiedKFold(5, shuffle=True, random_state=0)

    def cross_validated_log_loss(c: float) -> float:
        estimator = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(C=c))
        return log_loss(labels, cross_val_predict(estimator, features, labels, cv=splits, method="predict_proba"))

    found = logistic_probe(features, labels)
    assert found.chosen == min(LOGISTIC_C, key=cross_validated_log_loss)
    assert found.chosen < max(LOGISTIC_C) / 2


def test_selection_rows_samples_large_classes_but_not_rare_ones(monkeypatch):
    monkeypatch.setattr("fewlabels.features.probes.MAX_SELECTION_LABELS", 30)
    labels = np.array([0, 1] * 100 + [2] * 5)
    some = _selection_rows(labels)
    assert np.bincount(labels[some]).tolist() == [15, 15, 5]
    assert (np.diff(some) > 0).all()
    np.testing.assert_array_equal(_selection_rows(labels[:30]), np.arange(30))


@PROBES
def test_probe_with_a_class_of_one_image_has_no_cross_validated_score(probe):
    features, labels = blobs(5)
    found = probe(features[:11], labels[:11])  # 5, 5, 1
    assert math.isnan(found.cv_macro_f1)
    assert found.estimator.predict(features[:11]).shape == (11,)


@PROBES
def test_probe_with_groups_is_evaluated_on_held_out_groups(probe):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 6)
    labels = rng.permutation(np.arange(30) % 2)[groups]  # classes are random, so that one group says nothing of another
    features = rng.normal(size=(30, 40))[groups] + 0.1 * rng.normal(size=(len(groups), 40))
    assert probe(features, labels).cv_macro_f1 > 0.95
    assert probe(features, labels, groups=groups).cv_macro_f1 < 0.7


@PROBES
def test_probe_never_holds_out_a_class_of_one_group(probe):
    features, labels = blobs(20)
    groups = np.where(labels == 2, 0, 1 + np.arange(60) // 4)
    assert probe(features, labels, groups=groups).cv_macro_f1 > 0.9  # of the two classes that are held out
    assert math.isnan(probe(features, labels, groups=np.zeros(60, int)).cv_macro_f1)


@PROBES
def test_probe_of_one_class_is_refused(probe):
    with pytest.raises(InputError, match="two or more"):
        probe(np.zeros((5, 3)), np.zeros(5, dtype=int))


@PROBES
def test_probe_is_reproducible_with_a_seed(probe):
    features, labels = blobs(20, noise=1.5)
    assert probe(features, labels, 3).cv_macro_f1 == probe(features, labels, 3).cv_macro_f1


def test_knn_curve_equals_knn_probe_on_backbone_features(fmnist):
    labelled = fmnist.train.first_k(100)
    backbone = build_method(PretrainSettings("simclr", 1), 1, 0).backbone
    backbone.double()
    features = outputs(backbone, labelled)
    assert features.dtype == np.float32
    assert knn_curve(labelled, backbone) == {"knn_cv_macro_f1": knn_probe(features, labelled.labels).cv_macro_f1}


def test_outputs_refuses_images_of_another_size(fmnist):
    backbone = build_method(PretrainSettings("simclr", 1), 1, 0).backbone
    larger = ArraySource(np.zeros((4, 32, 32), np.uint8), None, ())
    with pytest.raises(InputError, match="images of 32x32 pixels: the network takes 28x28"):
        outputs(backbone, larger)
