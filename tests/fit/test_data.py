import numpy as np
import pytest

from fewlabels._internal.errors import InputError
from fewlabels.data.source import ArraySource
from fewlabels.fit.config import SplitConfig
from fewlabels.fit.data import LabeledPool, all_labels, make_splits

MANY = SplitConfig().many_labels


def source(labels, groups=None) -> ArraySource:
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    return ArraySource(images, np.array(labels), ("a", "b", "c"), groups=groups)


def test_pool_lists_labelled_and_unlabelled_rows():
    pool = LabeledPool.from_source(source([-1, 2, 0, -1, 2]))
    assert pool.labelled.tolist() == [1, 2, 4]
    assert pool.unlabelled.tolist() == [0, 3]
    assert pool.labels.tolist() == [2, 0, 2]
    assert pool.classes.tolist() == [0, 2]
    assert pool.num_classes == 3
    assert pool.labels_per_class == 1.5


@pytest.mark.parametrize(
    ("labels", "message"), [([-1, -1], "No class is labelled"), ([1, 1, -1], "Only one class is labelled")]
)
def test_pool_with_fewer_than_two_labelled_classes_is_refused(labels, message):
    with pytest.raises(InputError, match=message):
        LabeledPool.from_source(source(labels))


def test_pool_keeps_the_groups_of_labelled_rows():
    pool = LabeledPool.from_source(source([0, -1, 2], groups=np.array([5, 6, 7])))
    assert pool.groups.tolist() == [5, 7]


def test_splits_hold_out_every_label_once_and_never_a_whole_class():
    labels = np.repeat([0, 1, 2], [50, 3, 1])
    splits = make_splits(labels, None, seed=0)
    assert [split.name for split in splits] == ["fold-1", "fold-2", "fold-3"]
    assert sorted(np.concatenate([split.held_out for split in splits])) == list(range(53))
    for split in splits:
        assert sorted([*split.train, *split.held_out]) == list(range(54))
        assert set(labels[split.train]) == {0, 1, 2}
    assert not np.array_equal(splits[0].held_out, make_splits(labels, None, seed=1)[0].held_out)


@pytest.mark.parametrize(("number", "sizes"), [(MANY, [1667, 1667, 1666]), (MANY + 1, [501])])
def test_splits_of_many_labels_are_one_holdout_of_a_tenth(number, sizes):
    assert [len(split.held_out) for split in make_splits(np.arange(number) % 7, None, seed=0)] == sizes


def test_splits_do_not_divide_groups():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 300)
    labels = rng.integers(0, 3, 300)
    labels[groups == 7] = 3  # a class that only one patient has
    splits = make_splits(labels, groups, seed=0)
    assert len(splits) == 3
    for split in splits:
        assert not set(groups[split.held_out]) & set(groups[split.train])
        assert 3 not in labels[split.held_out]
    sizes = [len(split.held_out) for split in splits]
    assert sum(sizes) == (labels != 3).sum()
    assert min(sizes) > 60


def test_splits_of_many_grouped_labels_are_one_holdout_only_if_it_has_every_class():
    labels = np.arange(6000) % 3
    (small,) = make_splits(labels, (np.arange(6000) >= 5400).astype(np.int64), seed=0)  # two plates
    assert small.held_out.tolist() == list(range(5400, 6000))
    by_class = np.sort(np.arange(6000) % 10)  # plates of one class each
    splits = make_splits(by_class, np.arange(6000) // 200, seed=0)
    assert len(splits) == 3
    assert set(by_class[np.concatenate([split.held_out for split in splits])]) == set(range(10))


def test_splits_never_hold_out_the_only_group_of_a_class():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 30, 200)
    labels = rng.integers(0, 2, 200)
    labels[np.flatnonzero(groups == 7)[::2]] = 2  # the other images of patient 7 are of the other classes
    for split in make_splits(labels, groups, seed=0):
        assert not set(groups[split.held_out]) & set(groups[split.train])
        assert 7 not in groups[split.held_out]


def test_splits_of_few_grouped_labels_are_as_many_as_possible():
    splits = make_splits(np.repeat(np.arange(5), 2), np.arange(10), seed=0)  # two of each: too few for three folds
    assert sorted(np.concatenate([split.held_out for split in splits])) == list(range(10))


@pytest.mark.parametrize(
    ("labels", "groups"), [(np.arange(5), np.arange(5)), (np.array([0, 1, 0, 1]), np.zeros(4, np.int64))]
)
def test_splits_are_empty_where_nothing_can_be_held_out(labels, groups):
    assert make_splits(labels, groups, seed=0) == []


def test_all_labels_holds_nothing_out():
    split = all_labels(LabeledPool.from_source(source([0, -1, 2, 1])))
    assert split.train.tolist() == [0, 1, 2]
    assert len(split.held_out) == 0
