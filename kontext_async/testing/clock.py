"""A clock that stands still until a test advances it."""

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
    """A clock for a `KontextSession` and, through `unix`, for an `Emulator`. Only `advance` moves it.

    Attributes:
        started: The date and time at which the clock starts.
    """

    started: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    _now: float = field(default=0.0, init=False)
    _timers: list[tuple[float, int, _Timer]] = field(factory=list, init=False)
    _sequence: int = field(default=0, init=False)

    def time(self) -> float:
        """Return the seconds since the clock started."""
        return self._now

    def utcnow(self) -> datetime:
        """Return the date and time."""
        return self.started + timedelta(seconds=self._now)

    def unix(self) -> float:
        """Return the seconds since the epoch, as an `Emulator` expects them."""
        return self.utcnow().timestamp()

    def call_at(self, when: float, callback: Callable[[], None]) -> _Timer:
        """Call `callback` once the clock reaches `when`; at once if it already has."""
        timer = _Timer(callback)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, timer))
        if when <= self._now:
            self.advance(0)
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock forward. Callbacks that become due run in order, each at its own time."""
        until = self._now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            if timer.callback:
                timer.callback()
        self._now = until

    @property
    def next_at(self) -> float | None:
        """The time of the next callback; None if there is none."""
        return min((when for when, _, timer in self._timers if timer.callback), default=None)
