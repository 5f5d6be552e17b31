"""The cap on polls per second. No await, no clock."""

from __future__ import annotations

import math
from collections import deque

from attrs import define, field

__all__ = ["RateCap"]

TOLERANCE = 0.05
"""The seconds of the rate that spaced polls may save up: a loop that wakes a little late does not lose its rate."""


@define
class RateCap:
    """At most `rate` polls in any second; in a longer time if the rate is no whole number.

    Tasks that began together end together: if their polls were evenly spaced, the end of the last one would be seen
    after most of a second. So half of the polls may go out at once. The others are spaced, by the generic cell rate
    algorithm (ITU-T I.371), so that a poll that is urgent waits for a moment and not for the rest of the second. None
    goes out later than it would with even spaces alone.
    """

    rate: float
    _count: int = field(init=False)
    _at_once: int = field(init=False)
    _seconds: float = field(init=False)
    _recent: deque[float] = field(factory=deque, init=False)
    _spaced: float = field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._count = math.ceil(self.rate)
        self._at_once = (self._count + 1) // 2
        self._seconds = self._count / self.rate

    def ready_at(self) -> float:
        """Return the time from which one more poll is allowed."""
        recent = len(self._recent)
        if recent < self._at_once:
            return -math.inf
        ready = min(self._spaced - TOLERANCE, self._recent[-self._at_once] + self._seconds)
        return ready if recent < self._count else max(ready, self._recent[-self._count] + self._seconds)

    def allowance(self, now: float, wanted: int) -> int:
        """Return how many of the wanted polls are allowed now, together."""
        self._forget(now)
        recent = len(self._recent)
        if recent < self._at_once:
            return min(wanted, self._at_once - recent)
        allowed, spaced = 0, self._spaced
        while allowed < min(wanted, self._count - recent) and spaced - TOLERANCE <= now:
            allowed, spaced = allowed + 1, max(spaced, now) + 1 / self.rate
        return allowed

    def acquire(self, now: float) -> None:
        """Count one poll that goes out now."""
        recent = self._recent
        if recent and recent[0] + self._seconds <= now:
            self._forget(now)
        begin = now + TOLERANCE if len(recent) < self._at_once else max(self._spaced, now)
        self._spaced = begin + 1 / self.rate
        recent.append(now)

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0] + self._seconds <= now:
            self._recent.popleft()
