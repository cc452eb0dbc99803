"""Seconds, handed out by weight."""

import math
import time


class Budget:
    """Seconds, handed out by weight; what one part leaves over goes to those after it, unless no clock is looked at."""

    def __init__(self, seconds: float, weights: float, planned: bool = False) -> None:
        self._until, self._weights = time.monotonic() + seconds, weights
        self._planned = seconds if planned else None
        self.kept = 0.0
        """Seconds that are not handed out for now: what they are for takes what it takes."""

    def share(self, weight: float, at_most: float = math.inf) -> float:
        """Seconds for a part of this weight, which begins now; of an infinite one: all."""
        seconds = min(self.part(weight), at_most)
        self.forgo(weight)
        if self._planned is not None:
            self._planned -= seconds
        return seconds

    def part(self, weight: float) -> float:
        """What :meth:`share` would hand out."""
        return self._left() * min(1.0, weight / self._weights)

    def forgo(self, weight: float) -> None:
        """A part of this weight is not wanted; the others share its time."""
        self._weights = max(self._weights - weight, 1e-9)

    def spend(self, seconds: float) -> None:
        """What is no training takes so long by plan; a clock sees it by itself."""
        if self._planned is not None:
            self._planned -= seconds
            self.kept = max(0.0, self.kept - seconds)

    def left_after(self, seconds: float, weight: float) -> float:
        """Seconds that are left after some that are not planned, and after parts of this weight together."""
        return max(0.0, self._left() - seconds) * max(0.0, 1 - weight / self._weights)

    def _left(self) -> float:
        return max(0.0, (self._until - time.monotonic() if self._planned is None else self._planned) - self.kept)
