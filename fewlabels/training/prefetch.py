"""Prefetching: a thread makes the next items of an iterator while the current one is used."""

import threading
from collections.abc import Iterator
from queue import Full, Queue
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetched(items: Iterator[Item], ahead: int = 2) -> Iterator[Item]:
    """Yield the same items in the same order, with up to ``ahead`` of them computed in advance by a thread.

    An error in the thread is raised here. The thread ends when this iterator is closed.
    """
    queue: Queue[Item | _End] = Queue(maxsize=ahead)
    closed = threading.Event()

    def put(item: Item | _End) -> bool:
        while not closed.is_set():
            try:
                queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_End())
        except BaseException as error:
            put(_End(error))

    thread = threading.Thread(target=make, name="views", daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        thread.join()
