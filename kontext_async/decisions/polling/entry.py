"""The record of a task that is asked about. No await, no clock.

There may be a hundred thousand of these: what is rare is None, and what can be derived is not kept.
"""

from __future__ import annotations

import enum

from attrs import Factory, define, field

__all__ = ["FailureStreak", "Place", "PollEntry"]


class Place(enum.Enum):
    """Where in the queue a task stands; what other places hold of it is stale."""

    IDLE = enum.auto()
    SCHEDULED = enum.auto()
    DUE = enum.auto()
    URGENT = enum.auto()
    IN_FLIGHT = enum.auto()


@define
class FailureStreak:
    """Asks that failed, one after the other.

    Attributes:
        since: When the first of them failed.
        failures: How many there are.
        missing_since: When the first of the latest 404s in a row came.
    """

    since: float
    failures: int = 0
    missing_since: float | None = None


@define(eq=False, weakref_slot=False)
class PollEntry:
    """A task that is asked about.

    Attributes:
        task_id: The task's id.
        since: When it was accepted, or attached.
        due: When it shall be asked about next; from when it is asked about until that is known, when that was.
        place: Where it waits for that.
        failure_streak: The failed asks since the last one that did not fail; None when there are none.
        unfinished_at: When it was last asked about and not finished; when it was accepted, before that.
        predicted_end: The age at which it will be finished, as its progress has it; 0 where that says nothing.
        kind: The number of its kind of request; None while its age is not known, -1 for kinds without a number.
    """

    task_id: str
    since: float
    due: float = field(default=0.0, init=False)
    place: Place = field(default=Place.IDLE, init=False)
    failure_streak: FailureStreak | None = field(default=None, init=False)
    unfinished_at: float = field(default=Factory(lambda self: self.since, takes_self=True), init=False)
    predicted_end: float = field(default=0.0, init=False)
    kind: int | None = field(default=None, init=False)

    @property
    def failures(self) -> int:
        """Asks that failed, one after the other."""
        return 0 if self.failure_streak is None else self.failure_streak.failures
