import numpy as np
import pytest

from fewlabels._internal.errors import InputError
from fewlabels.data.source import ArraySource
from fewlabels.data.splits import folds
from fewlabels.fit.pool import MANY, Pool, held_out


def source(labels) -> ArraySource:
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    return ArraySource(images, np.array(labels), ("a", "b", "c"))


def test_images_with_and_without_labels_are_told_apart():
    pool = Pool.of(source([-1, 2, 0, -1, 2]))
    assert pool.labelled.tolist() == [1, 2, 4]
    assert pool.unlabelled.tolist() == [0, 3]
    assert pool.labels.tolist() == [2, 0, 2]
    assert [rows.tolist() for rows in pool.by_class()] == [[2], [1, 4]]


def test_what_is_held_out_is_in_no_list():
    held = Pool.of(source([-1, 2, 0, -1, 2])).without(np.array([0]))
    assert held.labelled.tolist() == [2, 4]
    assert held.unlabelled.tolist() == [0, 3]


@pytest.mark.parametrize("labels", [[-1, -1], [1, 1, -1]])
def test_fewer_than_two_classes_are_refused(labels):
    with pytest.raises(InputError, match=r"[01] class(es)? with labels: 2 are needed"):
        Pool.of(source(labels))


def test_folds_spread_every_class_and_keep_the_only_one_of_its_class():
    labels = np.repeat([0, 1, 2, 3], [50, 3, 1, 20])
    held = folds(labels, 3, seed=1)
    counts = np.array([np.bincount(labels[fold], minlength=4) for fold in held])
    assert (counts.sum(axis=0) == [50, 3, 0, 20]).all()
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    assert abs(len(held[0]) - len(held[2])) <= 1
    assert len(np.unique(np.concatenate(held))) == 73
    assert not np.array_equal(held[0], folds(labels, 3, seed=2)[0])


@pytest.mark.parametrize(("number", "sizes"), [(MANY, [1667, 1667, 1666]), (MANY + 1, [501])])
def test_of_many_labels_one_part_is_held_out(number, sizes):
    assert [len(part) for part in held_out(np.arange(number) % 7, seed=0)] == sizes


def test_a_group_is_held_out_as_a_whole():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 300)
    labels = rng.integers(0, 3, 300)
    labels[groups == 7] = 3  # a class that only one patient has
    parts = held_out(labels, 0, groups)
    assert len(parts) == 3
    for part in parts:
        assert not set(groups[part]) & set(np.delete(groups, part))
        assert 3 not in labels[part]
    counts = [len(part) for part in parts]
    assert sum(counts) == (labels != 3).sum()
    assert min(counts) > 60


def test_of_many_labels_in_groups_one_part_is_held_out_only_if_it_tells_of_all_classes():
    labels = np.arange(6000) % 3
    (small,) = held_out(labels, 0, (np.arange(6000) >= 5400).astype(np.int64))  # two plates
    assert small.tolist() == list(range(5400, 6000))
    by_class = np.sort(np.arange(6000) % 10)  # plates of one class each
    plates = np.arange(6000) // 200
    parts = held_out(by_class, 0, plates)
    assert len(parts) == 3
    assert set(by_class[np.concatenate(parts)]) == set(range(10))


def test_a_patient_who_alone_has_a_class_is_learned_from_with_all_images():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 30, 200)
    labels = rng.integers(0, 2, 200)
    labels[np.flatnonzero(groups == 7)[::2]] = 2  # the other images of patient 7 show what others have, too
    for part in held_out(labels, 0, groups):
        assert not set(groups[part]) & set(np.delete(groups, part))
        assert 7 not in groups[part]


def test_groups_of_few_labels_are_divided_as_far_as_it_goes():
    labels = np.repeat(np.arange(5), 2)  # two of each: not enough for three folds
    parts = held_out(labels, 0, np.arange(10))
    assert sorted(np.concatenate(parts)) == list(range(10))
    assert held_out(np.arange(5), 0, np.arange(5)) == []


def test_one_group_cannot_be_divided():
    assert held_out(np.array([0, 1, 0, 1]), 0, np.zeros(4, np.int64)) == []


def test_groups_go_with_their_images():
    grouped = ArraySource(source([0, -1, 2]).images, np.array([0, -1, 2]), ("a", "b", "c"), groups=np.array([5, 6, 7]))
    assert Pool.of(grouped).groups.tolist() == [5, 7]
    assert Pool.of(grouped).labelled_alone().groups.tolist() == [5, 7]
    assert Pool.of(grouped.hiding_all_but(np.array([0, 2]))).groups.tolist() == [5, 7]
