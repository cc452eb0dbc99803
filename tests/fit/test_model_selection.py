import numpy as np
import pytest
from sklearn.metrics import f1_score

from fewlabels.data.source import ArraySource
from fewlabels.fit.data import LabeledPool, Split
from fewlabels.fit.ensemble import OutOfFold
from fewlabels.fit.model_selection import rank_models, score_of, standard_error

LABELS = np.arange(100) % 2


def out_of_fold(wrong: range, labels: np.ndarray = LABELS, groups: np.ndarray | None = None) -> OutOfFold:
    """Of 100 held-out images of two classes, these are predicted wrongly."""
    source = ArraySource(np.zeros((100, 1, 1, 1), np.uint8), labels, ("a", "b"), groups=groups)
    predicted = labels.copy()
    predicted[wrong] = 1 - predicted[wrong]
    split = Split("fold-1", np.empty(0, np.int64), np.arange(100))
    empty = np.empty(0, np.int64)
    return OutOfFold(LabeledPool.from_source(source), [split], np.eye(2)[predicted], empty, [np.empty((0, 2))])


def ranked(**wrong: range) -> list[str]:
    return rank_models({name.replace("_", "-"): out_of_fold(rows) for name, rows in wrong.items()})


def test_score_is_macro_f1_over_the_held_out_classes():
    oof = out_of_fold(range(0, 30, 2))
    assert score_of(oof) == pytest.approx(f1_score(oof.labels, oof.held_out.argmax(axis=1), average="macro"))


def test_the_best_score_is_shipped():
    assert ranked(kernel=range(30), supervised=range(10), finetune=range(40)) == ["supervised", "kernel", "finetune"]


def test_of_equal_scores_the_first_candidate_is_shipped():
    assert ranked(kernel=range(10), supervised=range(10))[0] == "kernel"


@pytest.mark.parametrize(("errors", "first"), [(14, "self-training"), (34, "ensemble")])
def test_self_training_is_shipped_only_within_a_standard_error_of_the_best(errors, first):
    """The ensemble has 10 errors where self-training has none, and self-training others."""
    assert ranked(ensemble=range(10), self_training=range(10, 10 + errors))[0] == first


@pytest.mark.parametrize(("errors", "first"), [(14, "ensemble"), (34, "label-spreading")])
def test_the_ensemble_is_shipped_only_within_a_standard_error_of_the_best(errors, first):
    assert ranked(label_spreading=range(10), ensemble=range(10, 10 + errors))[0] == first


def test_self_training_is_preferred_to_an_ensemble_that_is_as_good():
    assert ranked(kernel=range(10), ensemble=range(10), self_training=range(10))[0] == "self-training"


@pytest.mark.parametrize("seed", range(20))
def test_the_shipped_candidate_is_never_more_than_a_standard_error_below_another(seed):
    rng = np.random.default_rng(seed)
    names = ("kernel", "supervised", "ensemble", "self-training")
    candidates = {}
    for name in names:
        start = int(rng.integers(0, 60))
        candidates[name] = out_of_fold(range(start, start + int(rng.integers(1, 40))))
    shipped = rank_models(candidates)[0]
    for other in names:
        gap = score_of(candidates[other]) - score_of(candidates[shipped])
        assert gap <= standard_error(candidates[shipped], candidates[other]) + 1e-12


def test_standard_error_is_that_of_paired_differences_by_hand():
    """In each class 5 of 50 differ; a pseudo-disagreement of one image per class is added."""
    found = standard_error(out_of_fold(range(10)), out_of_fold(range(0)))
    assert found == pytest.approx(np.sqrt(10 / 50**2 + 1 / 50**2) / 2)


def test_standard_error_is_not_zero_where_predictions_are_equal():
    assert standard_error(out_of_fold(range(10)), out_of_fold(range(10))) > 0


def test_standard_error_counts_a_rare_class_as_much_as_a_frequent_one():
    labels = np.repeat([0, 1], [98, 2])
    one_of_two = standard_error(out_of_fold(range(99, 100), labels), out_of_fold(range(0), labels))
    one_of_many = standard_error(out_of_fold(range(0, 1), labels), out_of_fold(range(0), labels))
    assert one_of_two > 0.25 > one_of_many / 1.3


def test_standard_error_of_groups_is_larger():
    groups = np.arange(100) // 10
    plain = standard_error(out_of_fold(range(20)), out_of_fold(range(0)))
    assert standard_error(out_of_fold(range(20), groups=groups), out_of_fold(range(0), groups=groups)) > plain
