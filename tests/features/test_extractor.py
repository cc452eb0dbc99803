import math

import numpy as np
import scipy.sparse as sparse
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score

from fewlabels.data.source import ArraySource
from fewlabels.features import knn_graph
from fewlabels.features.extractor import FeatureConfig, Features
from fewlabels.features.hog import gradient_features
from fewlabels.features.kernel_ridge import fit_kernel_ridge
from fewlabels.features.knn_graph import ONE_SIDED_WEIGHT, neighbour_graph, smoothed_features
from fewlabels.features.patches import Patches


def test_features_are_computed_once_and_have_length_1(fmnist):
    def embed(images: ArraySource) -> np.ndarray:
        calls.append(len(images))
        return images.images.reshape(len(images), -1).astype(np.float32)

    calls: list[int] = []
    source, rows = fmnist.train.first_k(60), np.array([50, 3, 3])
    features = Features(source, embed=embed)
    found = features.of(rows)
    np.testing.assert_array_equal(features.of(rows), found)
    assert calls == [60]
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    assert found.shape[1] == 3 * 60  # principal components of 60 images, at three numbers of steps


def test_features_without_graph_are_the_first_part_of_those_with_it(fmnist):
    source = fmnist.train.first_k(300)
    own, with_graph = Features(source, graph=False), Features(source)
    alone = own.of(np.arange(300))
    assert alone.shape == (300, FeatureConfig().dimensions(graph=False))
    first_columns = with_graph.of(np.arange(300))[:, : alone.shape[1]]
    np.testing.assert_allclose(first_columns * math.sqrt(3), alone, atol=1e-3)


def test_components_are_whitened_by_half(fmnist):
    source = fmnist.train.first_k(400)
    found = Features(source).own(source)
    whole = np.hstack([gradient_features(source), Patches.of(source).features(source)])
    plain = PCA(256, svd_solver="full").fit_transform(whole)
    np.testing.assert_allclose(found[:, :40].std(axis=0) ** 2, plain[:, :40].std(axis=0), rtol=0.02)


def test_features_without_patches_are_hog_features_only(fmnist):
    source = fmnist.train.first_k(100)
    found = Features(source, FeatureConfig(patches=False)).own(source)
    plain = PCA(100, svd_solver="full").fit_transform(gradient_features(source))
    np.testing.assert_allclose(found[:, :20].std(axis=0) ** 2, plain[:, :20].std(axis=0), rtol=0.02)


def test_a_one_sided_neighbour_has_a_small_weight_in_the_graph(monkeypatch):
    """Directions at 0, 10 and 30 degrees: the first two are each other's nearest, the last is nearest to none."""
    monkeypatch.setattr(knn_graph, "NUM_NEIGHBOURS", 1)
    angles = np.radians([0, 10, 30])
    graph = neighbour_graph(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)).toarray()
    both, one = (1 + ONE_SIDED_WEIGHT) * np.cos(np.radians(10)) ** 4, ONE_SIDED_WEIGHT * np.cos(np.radians(20)) ** 4
    degrees = [both, both + one, one]
    expected = np.array([[0, both, 0], [both, 0, one], [0, one, 0]]) / np.sqrt(np.outer(degrees, degrees))
    np.testing.assert_allclose(graph, expected, atol=1e-5)


def test_graph_neighbours_mostly_have_the_same_class(fmnist):
    source = fmnist.train.first_k(1000)
    graph = neighbour_graph(gradient_features(source))
    assert abs(graph - graph.T).max() < 1e-6
    assert graph.diagonal().max() == 0
    rows, others = graph.nonzero()
    assert (source.labels[rows] == source.labels[others]).mean() > 0.65


def test_smoothed_features_equal_powers_of_the_mixing_matrix():
    graph = np.array([[0, 0.5, 0], [0.5, 0, 0.3], [0, 0.3, 0]])
    features = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = smoothed_features(sparse.csr_matrix(graph), features, (0, 1, 5))
    for steps, mixed in zip((0, 1, 5), found, strict=True):
        expected = np.linalg.matrix_power((np.eye(3) + graph) / 2, steps) @ features
        np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_kernel_ridge_is_better_with_smoothed_features(fmnist):
    source = fmnist.train.first_k(3000)
    by_class = [np.flatnonzero(source.labels == cls) for cls in range(10)]
    draws = [np.concatenate([rows[start : start + 10] for rows in by_class]) for start in (0, 10, 20, 30)]

    def mean_f1(graph: bool) -> float:
        vectors = Features(source, graph=graph).of(np.arange(3000))
        scores = [fit_kernel_ridge(vectors[rows], source.labels[rows], 10).scores(vectors) for rows in draws]
        return float(np.mean([f1_score(source.labels, each.argmax(axis=1), average="macro") for each in scores]))

    assert mean_f1(True) > mean_f1(False) + 0.01
