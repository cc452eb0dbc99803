import numpy as np
import scipy.sparse as sparse
from sklearn.metrics import f1_score

from fewlabels.features.hog import gradient_features
from fewlabels.features.kernel_ridge import fit_kernel_ridge
from fewlabels.features.knn_graph import neighbour_graph
from fewlabels.features.label_spreading import LabelSpreadingConfig, spread_labels


def test_label_spreading_solves_its_linear_system():
    """After many steps F = (1 - alpha) (I - alpha S)^-1 Y."""
    alpha = LabelSpreadingConfig.alpha
    graph = sparse.csr_matrix(np.array([[0, 0.5, 0, 0], [0.5, 0, 0.3, 0], [0, 0.3, 0, 0.6], [0, 0, 0.6, 0]]))
    given = np.zeros((4, 2))
    given[0, 0] = given[3, 1] = 1
    solved = np.linalg.solve(np.eye(4) - alpha * graph.toarray(), given)
    mass = solved / (solved * (1 - alpha)).sum(axis=0) ** 0.5
    logits = spread_labels(graph, np.array([0, 3]), np.array([0, 1]), 2)
    np.testing.assert_allclose(np.exp(logits), mass / mass.sum(axis=1, keepdims=True), atol=1e-4)


def test_an_unreached_image_has_equal_probabilities_of_the_labelled_classes():
    logits = spread_labels(sparse.csr_matrix((4, 4)), np.array([0, 1]), np.array([0, 2]), 3)
    np.testing.assert_allclose(np.exp(logits[3]), [0.5, 0, 0.5], atol=1e-3)


def test_label_spreading_beats_kernel_ridge_with_two_labels_per_class(fmnist):
    source = fmnist.train.first_k(5000)
    features = gradient_features(source)
    rows = np.concatenate([np.flatnonzero(source.labels == cls)[:2] for cls in range(10)])
    spread = spread_labels(neighbour_graph(features), rows, source.labels[rows], 10).argmax(axis=1)
    ridge = fit_kernel_ridge(features[rows], source.labels[rows], 10).scores(features).argmax(axis=1)
    scores = [f1_score(source.labels, predicted, average="macro") for predicted in (spread, ridge)]
    assert scores[0] > scores[1] + 0.02
