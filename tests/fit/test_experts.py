"""Experts that no gradient trains: kernel ridge, labels that spread along neighbours, and their features."""

import math

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import f1_score

from fewlabels.data.source import ArraySource
from fewlabels.features import knn_graph as neighbours
from fewlabels.features.extractor import COMPARED, Features, kept
from fewlabels.features.hog import ORIENTATIONS, gradient_features, num_features, orientation_votes
from fewlabels.features.knn_graph import ONE_SIDED, neighbour_graph, smoothed
from fewlabels.features.patches import Patches
from fewlabels.fit.choice import is_right
from fewlabels.fit.cross_fit import CrossFitted, pooled
from fewlabels.fit.kernel import CHOSEN_BY, PENALTIES, WIDTHS, _chosen_by, _left_out, _left_out_error, kernel_ridge
from fewlabels.fit.pool import Pool
from fewlabels.fit.propagation import ALPHA, propagated


@pytest.mark.parametrize("turn", [0, 20, 30, 90, 170])
def test_an_edge_votes_for_its_direction(turn):
    """A slope of 0.01 a pixel: the vote is shared by the two nearest of the nine directions."""
    angle = np.deg2rad(turn)
    down, right = np.mgrid[:9, :9]
    image = torch.from_numpy(0.5 + 0.01 * (right * np.cos(angle) + down * np.sin(angle)))[None, None].float()
    votes = orientation_votes(image)[0, :, 4, 4]
    expected = np.zeros(ORIENTATIONS)
    place = turn / 180 * ORIENTATIONS
    low = int(place)
    expected[low % ORIENTATIONS] = 1 - (place - low)
    expected[(low + 1) % ORIENTATIONS] += place - low
    np.testing.assert_allclose(votes, 0.02 * expected, atol=1e-5)


def test_of_several_channels_the_one_that_changes_most_votes():
    images = torch.zeros(1, 2, 5, 5)
    images[0, 0] = torch.arange(5) * 0.1
    images[0, 1] = torch.arange(5)[:, None] * 0.2
    votes = orientation_votes(images)[0, :, 2, 2]
    assert votes.sum() == pytest.approx(0.4)
    assert votes[0] == 0


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 33), (4, 100, 64)])
def test_features_are_of_length_1_and_of_each_image_alone(shape):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    images[4] = 7  # nothing changes anywhere
    features = gradient_features(ArraySource(images, None, ("a", "b")))
    assert features.dtype == np.float32
    assert features.shape == (5, num_features(1 if len(shape) == 2 else shape[0]))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    alone = gradient_features(ArraySource(images[2:3], None, ("a", "b")))
    np.testing.assert_allclose(features[2:3], alone, atol=1e-6)


@pytest.mark.parametrize("groups", [np.arange(12), np.array([7, 3, 3, 7, 3, 0, 0, 3, 9, 9, 9, 9])])
def test_the_error_left_out_is_that_of_leaving_out(groups):
    left_out = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(0)
    points, wanted = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    near = points @ points.T
    errors = []
    for places in left_out:
        rest = np.delete(np.arange(12), places)
        fitted = KernelRidge(alpha=0.3, kernel="precomputed").fit(near[np.ix_(rest, rest)], wanted[rest])
        errors.append(fitted.predict(near[np.ix_(places, rest)]) - wanted[places])
    assert _left_out_error(near, wanted, 0.3, left_out) == pytest.approx(np.square(np.concatenate(errors)).mean())


def test_kernel_ridge_is_that_of_scikit_learn(fmnist):
    features = gradient_features(fmnist.train.first_k(300))
    rows, labels = np.arange(100), fmnist.train.labels[:100]
    scores = kernel_ridge(features[rows], labels, 10).scores(features)
    wanted = np.eye(10)[labels] - 0.1
    theirs = [
        KernelRidge(alpha=penalty, kernel="rbf", gamma=width).fit(features[rows], wanted).predict(features)
        for width in WIDTHS
        for penalty in PENALTIES
    ]
    assert min(abs(scores - of_one).max() for of_one in theirs) < 1e-4


def test_features_are_made_once_and_of_length_1(fmnist):
    def embedded(images: ArraySource) -> np.ndarray:
        asked.append(len(images))
        return images.images.reshape(len(images), -1).astype(np.float32)

    asked: list[int] = []
    source, rows = fmnist.train.first_k(60), np.array([50, 3, 3])
    features = Features(source, embedded)
    found = features.of(rows)
    np.testing.assert_array_equal(features.of(rows), found)
    assert asked == [60]
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    assert found.shape[1] == 3 * 60  # principal components of 60 images, at three numbers of steps


def test_features_without_neighbours_are_an_image_s_own(fmnist):
    source = fmnist.train.first_k(300)
    alone, beside = Features(source, None), Features(source, None)
    alone.by_neighbours = False
    own = alone.of(np.arange(300))
    assert own.shape == (300, kept(COMPARED + 1))
    np.testing.assert_allclose(beside.of(np.arange(300))[:, : own.shape[1]] * math.sqrt(3), own, atol=1e-3)


def test_components_are_brought_half_the_way_to_being_alike(fmnist):
    source = fmnist.train.first_k(400)
    found = Features(source, None).made(source)
    whole = np.hstack([gradient_features(source), Patches.of(source).features(source)])
    plain = PCA(256, svd_solver="full").fit_transform(whole)
    np.testing.assert_allclose(found[:, :40].std(axis=0) ** 2, plain[:, :40].std(axis=0), rtol=0.02)


def test_a_neighbour_counts_little_that_does_not_find_the_image_near(monkeypatch):
    """Directions at 0, 10 and 30 degrees: the first two are each other's nearest, the last is nearest to none."""
    monkeypatch.setattr(neighbours, "NUMBER", 1)
    angles = np.radians([0, 10, 30])
    graph = neighbour_graph(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)).toarray()
    both, one = (1 + ONE_SIDED) * np.cos(np.radians(10)) ** 4, ONE_SIDED * np.cos(np.radians(20)) ** 4
    degrees = [both, both + one, one]
    wanted = np.array([[0, both, 0], [both, 0, one], [0, one, 0]]) / np.sqrt(np.outer(degrees, degrees))
    np.testing.assert_allclose(graph, wanted, atol=1e-5)


def test_smoothing_mixes_neighbours_by_powers_of_a_matrix():
    graph = np.array([[0, 0.5, 0], [0.5, 0, 0.3], [0, 0.3, 0]])
    features = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = smoothed(sparse.csr_matrix(graph), features, (0, 1, 5))
    for steps, mixed in zip((0, 1, 5), found, strict=True):
        wanted = np.linalg.matrix_power((np.eye(3) + graph) / 2, steps) @ features
        np.testing.assert_allclose(mixed, wanted, atol=1e-6)


def test_kernel_ridge_names_more_where_neighbours_are_known(fmnist):
    source = fmnist.train.first_k(3000)
    by_class = [np.flatnonzero(source.labels == cls) for cls in range(10)]
    draws = [np.concatenate([rows[start : start + 10] for rows in by_class]) for start in (0, 10, 20, 30)]

    def right(by_neighbours: bool) -> float:
        features = Features(source, None)
        features.by_neighbours = by_neighbours
        scores = [
            kernel_ridge(features.of(rows), source.labels[rows], 10).scores(features.of(np.arange(3000)))
            for rows in draws
        ]
        return float(np.mean([f1_score(source.labels, of.argmax(axis=1), average="macro") for of in scores]))

    assert right(True) > right(False) + 0.01


def test_a_group_is_left_out_whole_unless_a_class_would_be_gone():
    groups, labels = np.array([5, 2, 5, 2, 8, 8]), np.array([0, 0, 0, 1, 1, 1])
    assert [places.tolist() for places in _left_out(labels, groups)] == [[1, 3], [0, 2], [4, 5]]
    assert sorted(map(tuple, _left_out(np.array([0, 0, 0, 1, 2, 2]), groups))) == [(0, 2), (1,), (3,), (4,), (5,)]


def patients(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of length 1 in which a patient's images resemble each other more than those of a class; labels, groups.

    Args:
        images: of each patient, of whom there are twenty in each of two classes.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(40), images)
    labels = groups % 2
    each = rng.normal(size=(40, 30))
    features = 0.6 * np.eye(30)[labels] * math.sqrt(30) + each[groups] + 0.1 * rng.normal(size=(len(groups), 30))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels, groups


def test_a_kernel_that_knows_patients_is_wider_and_no_worse_on_others():
    features, labels, groups = patients(8)
    known, others = groups < 20, groups >= 20
    alone, together = (kernel_ridge(features[known], labels[known], 2, of) for of in (None, groups[known]))
    assert together.width < alone.width
    right = [(ridge.scores(features[others]).argmax(axis=1) == labels[others]).mean() for ridge in (alone, together)]
    assert right[1] >= right[0]


def test_on_real_images_kernel_ridge_beats_pixels(fmnist):
    """0.8174 is logistic regression's figure for raw pixels, 1,000 labels and scikit-learn's best C."""
    source = fmnist.train.first_k(3000)
    features = gradient_features(source)
    scores = kernel_ridge(features[:1000], source.labels[:1000], 10).scores(features)
    assert f1_score(source.labels[1000:], scores[1000:].argmax(axis=1), average="macro") > 0.84


def test_propagation_solves_its_equation():
    """After many steps F = (1 - alpha) (I - alpha S)^-1 Y."""
    graph = sparse.csr_matrix(np.array([[0, 0.5, 0, 0], [0.5, 0, 0.3, 0], [0, 0.3, 0, 0.6], [0, 0, 0.6, 0]]))
    given = np.zeros((4, 2))
    given[0, 0] = given[3, 1] = 1
    solved = np.linalg.solve(np.eye(4) - ALPHA * graph.toarray(), given)
    mass = solved / (solved * (1 - ALPHA)).sum(axis=0) ** 0.5
    logs = propagated(graph, np.array([0, 3]), np.array([0, 1]), 2)
    np.testing.assert_allclose(np.exp(logs), mass / mass.sum(axis=1, keepdims=True), atol=1e-4)


def test_an_image_that_no_label_reaches_may_be_of_any_class_that_has_one():
    logs = propagated(sparse.csr_matrix((4, 4)), np.array([0, 1]), np.array([0, 2]), 3)
    np.testing.assert_allclose(np.exp(logs[3]), [0.5, 0, 0.5], atol=1e-3)


def test_neighbours_are_alike(fmnist):
    source = fmnist.train.first_k(1000)
    graph = neighbour_graph(gradient_features(source))
    assert abs(graph - graph.T).max() < 1e-6
    assert graph.diagonal().max() == 0
    rows, others = graph.nonzero()
    assert (source.labels[rows] == source.labels[others]).mean() > 0.65


def test_labels_that_spread_beat_kernel_ridge_where_they_are_few(fmnist):
    source = fmnist.train.first_k(5000)
    features = gradient_features(source)
    rows = np.concatenate([np.flatnonzero(source.labels == cls)[:2] for cls in range(10)])
    spread = propagated(neighbour_graph(features), rows, source.labels[rows], 10).argmax(axis=1)
    ridge = kernel_ridge(features[rows], source.labels[rows], 10).scores(features).argmax(axis=1)
    scores = [f1_score(source.labels, named, average="macro") for named in (spread, ridge)]
    assert scores[0] > scores[1] + 0.02


def test_what_a_fold_says_is_not_weighed_by_its_own_labels():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    logits = [[rng.normal(size=(30, 3)) + np.eye(3)[labels] for _ in range(2)] for _ in range(2)]
    parts = [np.arange(15), np.arange(15, 30)]
    other = labels.copy()
    other[:15] = np.roll(labels[:15], 1)  # as many of each class

    def all_together(labels: np.ndarray) -> CrossFitted:
        pool = Pool.of(ArraySource(np.zeros((30, 1, 1, 1), np.uint8), labels, ("a", "b", "c")))
        return pooled({name: CrossFitted(pool, parts, of) for name, of in zip("xy", logits, strict=True)})

    first, second = all_together(labels), all_together(other)
    assert np.array_equal(first.logits[0], second.logits[0])
    assert not np.array_equal(first.logits[1], second.logits[1])
    assert first.weights != second.weights


@pytest.mark.parametrize("absent", [-30.0, 30.0])
def test_what_is_said_of_a_class_without_a_label_has_no_weight(absent):
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    two = rng.normal(size=(30, 2)) + np.eye(2)[labels]
    three = np.column_stack([two, np.full(30, absent)]).astype(np.float32)
    parts = [np.arange(15), np.arange(15, 30)]

    def of(logits: np.ndarray, names: tuple[str, ...]) -> CrossFitted:
        pool = Pool.of(ArraySource(np.zeros((30, 1, 1, 1), np.uint8), labels, names))
        return pooled({"x": CrossFitted(pool, parts, [logits, logits])})

    expected, found = of(two, ("a", "b")), of(three, ("a", "b", "c"))
    assert found.weights == pytest.approx(expected.weights, rel=1e-5)
    assert np.array_equal(is_right(found), is_right(expected))


def test_no_image_is_alone_in_its_class_where_the_kernel_is_chosen():
    """Five labels of each of a thousand classes, in order: every fifth would be one of each."""
    labels = np.repeat(np.arange(1000), 5)
    chosen = labels[_chosen_by(labels)]
    assert len(chosen) == CHOSEN_BY
    assert set(np.unique(chosen, return_counts=True)[1]) == {5}
    assert len(_chosen_by(np.arange(5000) % 10)) == CHOSEN_BY
