"""A clock that stands still until it is turned by hand."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ManualClock"]


@define(eq=False)
class _Timer:
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


@define(eq=False)
class ManualClock:
    """Time for a `KontextSession` and, by `unix`, for an `Emulator`: it passes only when `advance` is called.

    Attributes:
        started: The date and time at which it begins.
    """

    started: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    _now: float = field(default=0.0, init=False)
    _timers: list[tuple[float, int, _Timer]] = field(factory=list, init=False)
    _sequence: int = field(default=0, init=False)

    def time(self) -> float:
        """Seconds since the clock was made."""
        return self._now

    def utcnow(self) -> datetime:
        """The date and time."""
        return self.started + timedelta(seconds=self._now)

    def unix(self) -> float:
        """Seconds since the epoch, as an `Emulator` wants them."""
        return self.utcnow().timestamp()

    def call_at(self, when: float, callback: Callable[[], None]) -> _Timer:
        """Call `callback` when the clock is turned to `when` or past it; at once, if that is not ahead."""
        timer = _Timer(callback)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, timer))
        if when <= self._now:
            self.advance(0)
        return timer

    def advance(self, seconds: float) -> None:
        """Turn the clock on; what was to happen on the way happens, in order, each at its time."""
        until = self._now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            if timer.callback:
                timer.callback()
        self._now = until

    @property
    def next_at(self) -> float | None:
        """When the next thing is to happen, None when nothing is."""
        return min((when for when, _, timer in self._timers if timer.callback), default=None)
