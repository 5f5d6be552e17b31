"""The record of a polled task, and its places in the queue. No await, no clock.

A session may have a hundred thousand records: what is rare is None, and what can be derived is not kept.

A task is at one place of the queue at a time, and these methods move it:

====================================================  ====================================  ===========
method                                                from                                  to
====================================================  ====================================  ===========
`PollQueue.add`                                       IDLE                                  SCHEDULED
`PollQueue.expedite`                                  IDLE, SCHEDULED, DUE, URGENT          URGENT
`PollQueue.pop_due`: the due time has come            SCHEDULED                             DUE
`PollQueue.pop_due`: the task is returned             DUE, URGENT                           IN_FLIGHT
`PollQueue.poll_done`                                 IN_FLIGHT                             IDLE
`PollQueue.status_received`, unless it is terminal    IDLE                                  SCHEDULED
`PollQueue.reschedule`, `PollQueue.retry_later`       IDLE                                  SCHEDULED
`PollQueue.watch`, `PollQueue.replan`: it is sooner   SCHEDULED                             SCHEDULED
`PollQueue.remove`                                    any                                   IDLE
====================================================  ====================================  ===========

`PollQueue.expedite` leaves a task IN_FLIGHT where it is, because its poll is out already. `PollQueue.poll_done` leaves
every other place as it is: the task was removed, or added again, while its poll was in flight.
"""

from __future__ import annotations

import enum

from attrs import Factory, define, field

from kontext_async.decisions.polling.watching import UNWATCHED

__all__ = ["FailureStreak", "Place", "PollEntry"]


class Place(enum.Enum):
    """The place of a task in the queue. References to the task at other places are stale."""

    IDLE = enum.auto()
    SCHEDULED = enum.auto()
    DUE = enum.auto()
    URGENT = enum.auto()
    IN_FLIGHT = enum.auto()


@define
class FailureStreak:
    """Consecutive failed polls of one task.

    Attributes:
        since: The time of the first failure.
        failures: The number of failures.
        missing_since: The time of the first of the latest consecutive 404s; None if the last failure was no 404.
    """

    since: float
    failures: int = 0
    missing_since: float | None = None


@define(eq=False, weakref_slot=False)
class PollEntry:
    """A task that is polled.

    Attributes:
        task_id: The ID of the task.
        since: The time at which it was accepted, or attached.
        due: The time at which it is to be polled next. From a poll until the next one is scheduled: the time of the
            poll.
        place: Its place in the queue.
        failure_streak: The failed polls since the last one that succeeded; None when there are none.
        unfinished_at: The time of the last poll that found it unfinished; before that, the time of its acceptance.
        predicted_end: The age in seconds at which it will end, as its progress predicts; 0 without a prediction.
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
        """The number of consecutive failed polls."""
        return 0 if self.failure_streak is None else self.failure_streak.failures

    @property
    def watch_interval(self) -> float:
        """The most seconds between two polls that somebody who watches the task wants; infinite without a watcher."""
        return UNWATCHED
