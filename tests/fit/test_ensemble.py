import numpy as np
import pytest
from scipy.special import softmax

from fewlabels.data.source import ArraySource
from fewlabels.fit.calibration import class_frequency_offsets
from fewlabels.fit.data import LabeledPool, Split
from fewlabels.fit.ensemble import OpinionPool, OutOfFold, combine, fit_opinion_pool
from fewlabels.metrics.classification import calibration_error

NO_OFFSETS = np.zeros(4)


def pool_of(labels: np.ndarray, classes: int) -> LabeledPool:
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    return LabeledPool.from_source(ArraySource(images, labels, [str(cls) for cls in range(classes)]))


def two_folds(images: int) -> list[Split]:
    rows = np.arange(images)
    halves = rows[: images // 2], rows[images // 2 :]
    return [Split("fold-1", halves[1], halves[0]), Split("fold-2", halves[0], halves[1])]


def out_of_fold(labels: np.ndarray, logits: np.ndarray, others: list[np.ndarray]) -> OutOfFold:
    pool = pool_of(labels, logits.shape[1])
    return OutOfFold(pool, two_folds(len(labels)), logits, np.arange(len(others[0])), others)


def drawn(temperature: float, number: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(number, 4)) * 3
    return logits, np.array([rng.choice(4, p=p) for p in softmax(logits / temperature, axis=1)])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_opinion_pool_of_one_member_is_temperature_scaling(temperature):
    logits, labels = drawn(temperature)
    weight = fit_opinion_pool({"one": logits}, labels, NO_OFFSETS).weights["one"]
    assert 1 / weight == pytest.approx(temperature, rel=0.08)
    assert calibration_error(softmax(logits * weight, axis=1), labels) < 0.02
    if temperature != 1:
        assert calibration_error(softmax(logits, axis=1), labels) > 0.05


def test_opinion_pool_of_few_correct_images_is_not_certain():
    logits = np.eye(3)[np.array([0, 1, 2, 0])] * 2
    weight = fit_opinion_pool({"one": logits}, np.array([0, 1, 2, 0]), np.zeros(3)).weights["one"]
    assert 0.7 < softmax(logits * weight, axis=1).max() < 0.95


def test_opinion_pool_finds_the_weights_that_drew_the_labels():
    rng = np.random.default_rng(0)
    one, other, noise = (rng.normal(size=(6000, 4)) * size for size in (1.0, 20.0, 0.1))
    labels = np.array([rng.choice(4, p=p) for p in softmax(0.8 * one + 0.06 * other, axis=1)])
    weights = fit_opinion_pool({"one": one, "other": other, "noise": noise}, labels, NO_OFFSETS).weights
    np.testing.assert_allclose([weights["one"], weights["other"]], [0.8, 0.06], rtol=0.1)
    assert weights["noise"] * 0.1 < 0.05


def test_opinion_pool_gives_a_wrong_member_no_weight():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(6000, 4)), rng.normal(size=(6000, 4))
    labels = np.array([rng.choice(4, p=p) for p in softmax(one + other, axis=1)])
    assert fit_opinion_pool({"one": one, "wrong": -other}, labels, NO_OFFSETS).used == ["one"]


def test_opinion_pool_corrects_members_trained_on_imbalanced_labels():
    """They give Bayes' posterior under the label frequencies, which are not to count."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, size=3000, p=[0.8, 0.15, 0.05])
    seen = rng.normal(size=(len(labels), 3)) + 2 * np.eye(3)[labels]
    offsets = class_frequency_offsets(labels, 3)
    fitted = fit_opinion_pool({"one": 2 * seen - offsets}, labels, offsets)
    assert fitted.weights["one"] == pytest.approx(1, rel=0.1)
    assert fitted.frequency_weight == pytest.approx(1, rel=0.1)
    np.testing.assert_allclose(np.exp(-offsets), [0.8, 0.15, 0.05], atol=0.02)


def test_opinion_pool_combines_logits_and_offsets_by_hand():
    pool = OpinionPool({"a": 2.0, "b": 0.5}, 0.1)
    combined = pool.combine({"a": np.array([[1.0, 0.0]]), "b": np.array([[0.0, 4.0]])}, np.array([0.0, 10.0]))
    np.testing.assert_allclose(combined, [[2.0, 3.0]])


def test_combined_predictions_of_a_fold_do_not_depend_on_its_own_labels():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    logits = {name: rng.normal(size=(30, 3)) + np.eye(3)[labels] for name in "xy"}
    others = {name: [rng.normal(size=(7, 3)) for _ in range(2)] for name in "xy"}
    shuffled = labels.copy()
    shuffled[:15] = np.roll(labels[:15], 1)  # as many of each class

    def combined(labels: np.ndarray) -> OutOfFold:
        return combine({name: out_of_fold(labels, logits[name], others[name]) for name in "xy"})

    first, second = combined(labels), combined(shuffled)
    np.testing.assert_array_equal(first.held_out[:15], second.held_out[:15])
    np.testing.assert_array_equal(first.others[0], second.others[0])
    assert not np.array_equal(first.held_out[15:], second.held_out[15:])
    assert not np.array_equal(first.others[1], second.others[1])
    assert first.weights != second.weights


@pytest.mark.parametrize("absent", [-30.0, 30.0])
def test_combine_ignores_logits_of_a_class_without_labels(absent):
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    two = rng.normal(size=(30, 2)) + np.eye(2)[labels]
    three = np.column_stack([two, np.full(30, absent)])
    expected = combine({"x": out_of_fold(labels, two, [two, two])})
    found = combine({"x": out_of_fold(labels, three, [three, three])})
    assert found.weights.weights == pytest.approx(expected.weights.weights, rel=1e-5)


def test_combine_keeps_the_rows_that_all_members_predict():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    everything = out_of_fold(labels, rng.normal(size=(30, 2)), [rng.normal(size=(30, 2)) for _ in range(2)])
    rows = np.array([3, 8, 20])
    some = OutOfFold(everything.pool, everything.splits, everything.held_out, rows, [np.zeros((3, 2))] * 2)
    found = combine({"all": everything, "some": some})
    assert found.rows.tolist() == [3, 8, 20]
    alone = everything.of_rows(rows)[1]
    np.testing.assert_array_equal(alone, everything.others[1][rows])
