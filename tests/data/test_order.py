import numpy as np

from fewlabels.data.order import Stream

GROUPS = [np.arange(10), np.arange(10, 13)]


def test_every_group_has_its_share_and_none_comes_again_before_all_have():
    stream = Stream(GROUPS, 8, 0, "test")
    seen = np.concatenate([stream.at(step) for step in range(5)])
    assert (seen < 10).sum() == 20
    assert np.bincount(seen[seen < 10]).tolist() == [2] * 10
    assert sorted(seen[seen >= 10][:3]) == [10, 11, 12]


def test_a_batch_is_a_function_of_key_and_step():
    first, again, other = Stream(GROUPS, 8, 0, "a"), Stream(GROUPS, 8, 0, "a"), Stream(GROUPS, 8, 1, "a")
    for step in range(20):
        first.at(step)
    assert np.array_equal(first.at(7), again.at(7))
    assert not np.array_equal(first.at(7), other.at(7))
    assert not np.array_equal(first.at(7), first.at(8))
