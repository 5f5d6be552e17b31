"""The cap on polls per second. No await, no clock."""

from __future__ import annotations

from attrs import define, field

__all__ = ["RateCap"]

TOLERANCE = 0.05
"""The seconds of the rate that may be saved up: a loop that wakes a little late does not lose its rate."""


@define
class RateCap:
    """At most `rate` polls a second, evenly spaced but for `TOLERANCE`.

    This is the generic cell rate algorithm (ITU-T I.371).
    """

    rate: float
    _next: float = field(default=float("-inf"), init=False)

    def ready_at(self) -> float:
        """Return the time from which one more poll is allowed."""
        return self._next - TOLERANCE

    def allowance(self, now: float) -> int:
        """Return the number of polls that are allowed now, one after the other."""
        return 1 + int((now + TOLERANCE - max(self._next, now)) * self.rate) if self.ready_at() <= now else 0

    def acquire(self, now: float) -> None:
        """Count one poll that goes out now."""
        self._next = max(self._next, now) + 1 / self.rate
