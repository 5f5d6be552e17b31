"""An outage as a progress display shows it: why submitting has stopped, and when the session probes the gateway."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from kontext_async.events import CircuitClosed, CircuitOpened

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.events import Event

__all__ = ["OutageNotice"]


class OutageNotice:
    """The current outage, if there is one.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reason = ""
        self._probe_at: float | None = None

    def record(self, event: Event) -> str | None:
        """Record an event, and return the line to print if an outage begins, changes or ends with it."""
        if isinstance(event, CircuitOpened):
            self._reason = str(event.error)
            self._probe_at = self._clock() + event.seconds
            return self.describe(with_reason=True)
        if isinstance(event, CircuitClosed):
            self._probe_at = None
            return f"submitting continues after {event.seconds:.0f} s"
        return None

    def describe(self, *, with_reason: bool = False) -> str:
        """Return the state of the outage; nothing if there is none."""
        if self._probe_at is None:
            return ""
        reason = f": {self._reason}" if with_reason else ""
        if self._probe_at == math.inf:
            return f"submitting stopped{reason}"
        left = math.ceil(self._probe_at - self._clock())
        return f"submitting paused{reason}; {f'next probe in {left} s' if left > 0 else 'probing'}"
