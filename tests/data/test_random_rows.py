import numpy as np

from fewlabels.data.source import evenly_spaced, random_rows


def test_random_rows_represent_classes_in_a_periodic_order():
    """19,991 images that cycle through ten classes: 2,000 evenly spaced ones are all of one class."""
    labels = np.arange(19_991) % 10
    assert len(np.unique(labels[evenly_spaced(labels, 2000)])) == 1
    counts = np.bincount(labels[random_rows(np.arange(len(labels)), 2000, 0)])
    assert counts.min() > 150


def test_random_rows_are_ascending_and_depend_on_the_key_alone():
    rows = np.arange(100, 400, 3)
    first, again, other = (random_rows(rows, 20, *key) for key in ((0, "a"), (0, "a"), (1, "a")))
    assert first.tolist() == again.tolist() == sorted(set(first))
    assert set(first) <= set(rows)
    assert first.tolist() != other.tolist()


def test_random_rows_are_all_rows_where_there_are_no_more():
    assert random_rows(np.array([7, 3]), 2, 0).tolist() == [7, 3]
