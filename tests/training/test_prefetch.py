import threading
import time

import pytest

from fewlabels.training.prefetch import prefetched


def test_the_same_items_in_the_same_order():
    assert list(prefetched(iter(range(100)))) == list(range(100))


def test_items_are_made_ahead_but_not_without_end():
    made = []

    def items():
        for item in range(50):
            made.append(item)
            yield item

    ahead = prefetched(items(), ahead=2)
    next(ahead)
    time.sleep(0.3)
    assert 2 <= len(made) <= 4  # the first, two waiting, one in the hand
    ahead.close()


def test_an_error_is_raised_where_the_item_is_wanted():
    def items():
        yield 1
        raise ValueError("torn")

    ahead = prefetched(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="torn"):
        next(ahead)


def test_the_thread_ends_with_the_iterator():
    ahead = prefetched(iter(range(1000)))
    next(ahead)
    ahead.close()
    assert not any(thread.name == "views" for thread in threading.enumerate())
