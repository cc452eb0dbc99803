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
from fewlabels.features.probes import KNN_K, LOGISTIC_C, _some, knn_curve, knn_probe, logistic_probe
from fewlabels.ssl.pretrain import PretrainSettings, build_method

PROBES = pytest.mark.parametrize("probe", [knn_probe, logistic_probe])


def blobs(per_class: int, noise: float = 0.5, seed: int = 0):
    """Three directions in ten dimensions, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    return (np.eye(10)[labels] + noise * rng.normal(size=(len(labels), 10)) / math.sqrt(10)).astype(np.float32), labels


@PROBES
def test_it_learns_what_is_to_be_learned_and_says_how_well(probe):
    features, labels = blobs(20)
    found = probe(features, labels)
    others, truth = blobs(100, seed=1)
    score = f1_score(truth, found.estimator.predict(others), average="macro")
    assert score > 0.95
    assert found.cv_macro_f1 == pytest.approx(score, abs=0.06)
    assert found.chosen in (KNN_K if found.kind == "knn" else LOGISTIC_C)
    np.testing.assert_allclose(found.estimator.predict_proba(others).sum(axis=1), 1, rtol=1e-5)


@PROBES
def test_labels_without_meaning_give_a_score_of_chance(probe):
    rng = np.random.default_rng(0)
    found = probe(rng.normal(size=(150, 10)), rng.permutation(np.repeat(np.arange(3), 50)))
    assert found.cv_macro_f1 < 0.5


@PROBES
def test_images_are_told_apart_by_direction_not_length(probe):
    features, labels = blobs(20, noise=0.1)
    lengths = np.random.default_rng(0).uniform(0.01, 10, len(labels))[:, None]
    assert probe(features * lengths, labels).cv_macro_f1 == 1
    assert probe(features * lengths, labels).cv_macro_f1 == probe(features, labels).cv_macro_f1


def test_many_neighbours_are_taken_where_labels_are_noisy():
    features, labels = blobs(100, noise=0.3)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(labels)) < 0.3
    labels = np.where(wrong, rng.integers(0, 3, len(labels)), labels)
    assert knn_probe(features, labels).chosen >= 10


def test_the_penalty_is_the_one_that_makes_unseen_labels_likeliest():
    features, labels = blobs(20, noise=2)
    splits = StratifiedKFold(5, shuffle=True, random_state=0)

    def surprise(c: float) -> float:
        estimator = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(C=c))
        return log_loss(labels, cross_val_predict(estimator, features, labels, cv=splits, method="predict_proba"))

    found = logistic_probe(features, labels)
    assert found.chosen == min(LOGISTIC_C, key=surprise)
    assert found.chosen < max(LOGISTIC_C) / 2


def test_many_labels_are_thinned_out_to_choose_by_but_not_a_rare_class(monkeypatch):
    monkeypatch.setattr("fewlabels.features.probes.CHOSEN_BY", 30)
    labels = np.array([0, 1] * 100 + [2] * 5)
    some = _some(labels)
    assert np.bincount(labels[some]).tolist() == [15, 15, 5]
    assert (np.diff(some) > 0).all()
    np.testing.assert_array_equal(_some(labels[:30]), np.arange(30))


@PROBES
def test_a_class_of_one_image_leaves_nothing_to_choose_by(probe):
    features, labels = blobs(5)
    found = probe(features[:11], labels[:11])  # 5, 5, 1
    assert math.isnan(found.cv_macro_f1)
    assert found.estimator.predict(features[:11]).shape == (11,)


@PROBES
def test_how_well_it_does_is_judged_by_patients_it_has_not_seen(probe):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 6)
    labels = rng.permutation(np.arange(30) % 2)[groups]  # no patient's images tell the class of another's
    features = rng.normal(size=(30, 40))[groups] + 0.1 * rng.normal(size=(len(groups), 40))
    assert probe(features, labels).cv_macro_f1 > 0.95
    assert probe(features, labels, groups=groups).cv_macro_f1 < 0.7


@PROBES
def test_a_class_of_one_patient_stays_with_those_who_learn(probe):
    features, labels = blobs(20)
    groups = np.where(labels == 2, 0, 1 + np.arange(60) // 4)
    assert probe(features, labels, groups=groups).cv_macro_f1 > 0.9  # of the two classes that are held out
    assert math.isnan(probe(features, labels, groups=np.zeros(60, int)).cv_macro_f1)


@PROBES
def test_one_class_is_refused(probe):
    with pytest.raises(InputError, match="two or more"):
        probe(np.zeros((5, 3)), np.zeros(5, dtype=int))


@PROBES
def test_the_same_seed_gives_the_same_choice(probe):
    features, labels = blobs(20, noise=1.5)
    assert probe(features, labels, 3).cv_macro_f1 == probe(features, labels, 3).cv_macro_f1


def test_a_point_of_the_curve_is_the_probe_on_the_networks_features(fmnist):
    labelled = fmnist.train.first_k(100)
    backbone = build_method(PretrainSettings("simclr", 1), 1, 0).backbone
    backbone.double()
    features = outputs(backbone, labelled)
    assert features.dtype == np.float32
    assert knn_curve(labelled, backbone) == {"knn_cv_macro_f1": knn_probe(features, labelled.labels).cv_macro_f1}


def test_a_network_of_one_size_refuses_others(fmnist):
    backbone = build_method(PretrainSettings("simclr", 1), 1, 0).backbone
    larger = ArraySource(np.zeros((4, 32, 32), np.uint8), None, ())
    with pytest.raises(InputError, match="images of 32x32 pixels: the network takes 28x28"):
        outputs(backbone, larger)
