"""Ctrl-C and SIGTERM as a request to stop, which a training loop handles between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the user or the operating system has requested a stop."""

    def __init__(self) -> None:
        self.received = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first sets ``received``, the second raises KeyboardInterrupt."""
        if self.received:
            raise KeyboardInterrupt
        self.received = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Inside the block, a signal only sets ``received``; outside the main thread signals are not caught."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
