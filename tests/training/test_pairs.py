from dataclasses import replace
from itertools import islice

import pytest
import torch

from fewlabels.augment.recipes import RECIPES
from fewlabels.data.source import ArraySource
from fewlabels.training.pairs import ViewPairs

PLAIN = torch.contiguous_format


def unchanged(images, key, first_row=0):
    return images.float()


@pytest.fixture(scope="module")
def pairs(fmnist) -> ViewPairs:
    source = ArraySource(fmnist.train.images[:50], None, ())
    return ViewPairs(source, RECIPES["gray-small"], 0, 12, True, 1, torch.device("cpu"))


def test_epoch_has_each_image_at_most_once_in_another_order_per_epoch(pairs):
    numbered = ArraySource(torch.arange(50, dtype=torch.uint8)[:, None, None].numpy(), None, ())
    plain = replace(pairs, source=numbered, views=unchanged)
    first, second = (torch.cat([x0 for x0, _ in plain.from_step(s, s + 4, PLAIN)]).flatten() for s in (0, 4))
    assert len(first.unique()) == len(second.unique()) == 48
    assert not torch.equal(first, second)


def test_from_step_starts_at_the_pairs_of_that_step(pairs):
    whole = list(pairs.from_step(0, 10, PLAIN))
    later = list(pairs.from_step(6, 10, PLAIN))  # in the second epoch of four steps
    assert len(later) == 4
    for (x0, x1), (y0, y1) in zip(whole[6:], later, strict=True):
        assert torch.equal(x0, y0)
        assert torch.equal(x1, y1)
    assert not torch.equal(*whole[0])


def test_parts_of_a_batch_equal_the_whole_batch(pairs):
    whole = next(pairs.from_step(5, 6, PLAIN))
    parts = list(islice(replace(pairs, parts=3).from_step(5, 6, PLAIN), 3))
    assert [len(x0) for x0, _ in parts] == [4, 4, 4]
    for view in (0, 1):
        torch.testing.assert_close(torch.cat([part[view] for part in parts]), whole[view], rtol=0, atol=0)


def test_views_have_the_requested_memory_format(pairs):
    rgb = replace(pairs, source=ArraySource(pairs.source.images.repeat(3, axis=1), None, ()))
    x0, x1 = next(rgb.from_step(0, 1, torch.channels_last))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (x0, x1))
