import threading
import time

import pytest

from fewlabels.training.prefetch import prefetched


def test_prefetched_yields_same_items_in_same_order():
    assert list(prefetched(iter(range(100)))) == list(range(100))


def test_prefetched_makes_a_limited_number_of_items_in_advance():
    made = []

    def items():
        for item in range(50):
            made.append(item)
            yield item

    ahead = prefetched(items(), ahead=2)
    next(ahead)
    time.sleep(0.3)
    assert 2 <= len(made) <= 4  # the first one, two in the queue, one in the thread
    ahead.close()


def test_prefetched_raises_error_of_an_item():
    def items():
        yield 1
        raise ValueError("damaged")

    ahead = prefetched(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)


def test_prefetched_ends_thread_when_closed():
    ahead = prefetched(iter(range(1000)))
    next(ahead)
    ahead.close()
    assert not any(thread.name == "views" for thread in threading.enumerate())
