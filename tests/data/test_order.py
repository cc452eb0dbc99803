import numpy as np

from fewlabels.data.order import Stream

GROUPS = [np.arange(10), np.arange(10, 13)]


def test_stream_draws_groups_equally_and_every_row_before_any_repeats():
    stream = Stream(GROUPS, 8, 0, "test")
    seen = np.concatenate([stream.at(step) for step in range(5)])
    assert (seen < 10).sum() == 20
    assert np.bincount(seen[seen < 10]).tolist() == [2] * 10
    assert sorted(seen[seen >= 10][:3]) == [10, 11, 12]


def test_stream_batch_depends_only_on_key_and_step():
    first, again, other = Stream(GROUPS, 8, 0, "a"), Stream(GROUPS, 8, 0, "a"), Stream(GROUPS, 8, 1, "a")
    for step in range(20):
        first.at(step)
    assert np.array_equal(first.at(7), again.at(7))
    assert not np.array_equal(first.at(7), other.at(7))
    assert not np.array_equal(first.at(7), first.at(8))
