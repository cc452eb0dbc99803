from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewlabels._internal.errors import InputError
from fewlabels.data.source import ArraySource, balanced_indices


def source(n: int = 10, classes: int = 3) -> ArraySource:
    images = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((n, 4, 4), np.uint8)
    return ArraySource(images, np.arange(n) % classes, [str(c) for c in range(classes)])


def test_read_returns_a_batch_in_the_given_order():
    batch = source().read(torch.tensor([7, 2]))
    assert batch.dtype == torch.uint8
    assert batch.shape == (2, 1, 4, 4)
    assert batch[:, 0, 0, 0].tolist() == [7, 2]


def test_first_k_returns_the_first_k_images():
    assert source().first_k(4).read(slice(None))[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_array_source_keeps_a_memory_map_and_reads_copies(tmp_path: Path):
    mapped = np.memmap(tmp_path / "images", np.uint8, "w+", shape=(5, 4, 4))
    mapped[:] = np.arange(5)[:, None, None]
    mapped.flush()
    images = np.memmap(tmp_path / "images", np.uint8, "r", shape=(5, 4, 4))
    mapped_source = ArraySource(images, None, ())
    assert isinstance(mapped_source.subset(slice(3)).images, np.memmap)
    batch = mapped_source.read(np.array([4, 0]))
    batch[:] = 9  # changes a copy, not the file
    assert mapped_source.read(slice(None))[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.integers(0, 5), st.data())
def test_balanced_indices_are_labelled_and_as_equal_as_possible(labels, seed, data):
    labels = np.array(labels)
    labelled = int((labels >= 0).sum())
    if not labelled:
        return
    k = data.draw(st.integers(1, labelled))
    drawn = balanced_indices(labels, k, seed)
    assert len(set(drawn)) == k
    counts = np.bincount(labels[drawn], minlength=5)  # fails on a -1
    available = np.bincount(labels[labels >= 0], minlength=5)
    unfinished = counts[counts < available]
    assert len(unfinished) == 0 or counts.max() - unfinished.min() <= 1
    assert np.array_equal(drawn, balanced_indices(labels, k, seed))


def test_balanced_depends_on_the_seed(fmnist):
    first, again, other = (fmnist.train.balanced(100, seed).images for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.bincount(fmnist.train.balanced(100, 0).labels).tolist() == [10] * 10


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4)), [0, 0], "float64"),
        (np.zeros((2, 4), np.uint8), [0, 0], "shape"),
        (np.zeros((2, 4, 4), np.uint8), [0], "2 images but 1 labels"),
        (np.zeros((2, 4, 4), np.uint8), [0, 3], "row 1: label 3"),
        (np.zeros((2, 4, 4), np.uint8), [-2, 0], "row 0: label -2"),
    ],
)
def test_array_source_refuses_invalid_images_and_labels(images, labels, message):
    with pytest.raises(InputError, match=message):
        ArraySource(images, np.array(labels), ("a", "b"))


@pytest.mark.parametrize("k", [0, -1, 11])
def test_first_k_refuses_more_labels_than_there_are(k):
    with pytest.raises(InputError, match="Ask for 1 to 10"):
        source().first_k(k)
