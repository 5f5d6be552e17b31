"""The health of a session, for the readiness check of a server."""

from __future__ import annotations

from attrs import frozen

__all__ = ["SessionHealth"]


@frozen(kw_only=True)
class SessionHealth:
    """A snapshot of whether a session can serve further requests. Read it in a readiness check.

    Attributes:
        is_running: True from `KontextSession.start` until the session is closed or crashes.
        is_draining: True once `KontextSession.drain` was called.
        circuit: As in `SessionStatistics`: ``closed`` while the session submits.
        queued: Requests that wait for a slot.
        is_queue_full: True if a further request would fail with `Overloaded`, because of `Limits.max_queued`.
        in_flight: Slots in use.
        limit: The current number of slots.
        expected_wait: Seconds for which a request that comes now would wait for a slot if all came in turn, as far as
            the durations of tasks are known; 0 if a slot is free.
    """

    is_running: bool
    is_draining: bool
    circuit: str
    queued: int
    is_queue_full: bool
    in_flight: int
    limit: int
    expected_wait: float

    @property
    def is_ready(self) -> bool:
        """True if the session runs, does not drain, submits, and its queue has room."""
        return self.reason is None

    @property
    def reason(self) -> str | None:
        """The reason why the session is not ready; None if it is."""
        if not self.is_running:
            return "the session is not running"
        if self.is_draining:
            return "the session drains"
        if self.circuit != "closed":
            return f"submitting has stopped: the circuit is {self.circuit}"
        return "the queue is full" if self.is_queue_full else None
