"""The rule that says when a task is due. No await, no clock.

`Timing` is the interface of a rule. `IntervalTiming` is the rule of the settings, with jitter; `adaptive` has the rule
that learns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from attrs import define, field

from kontext_async.decisions.polling.entry import PollEntry

if TYPE_CHECKING:
    from kontext_async.models import TaskStatus
    from kontext_async.settings import Polling

__all__ = ["IntervalTiming", "Timing"]

JITTER = 0.1
"""The part of an interval that is random, so that tasks created together are not polled together."""

EARLY = 0.25
"""The part of its age after which a young task is polled again, and the least part of the interval. Nothing is known of
how long tasks take: whatever that is, the delay with which the end is seen is at most this part of it."""

EntryT_contra = TypeVar("EntryT_contra", bound=PollEntry, contravariant=True)


class Timing(Protocol[EntryT_contra]):
    """A rule that says when to poll. It sees the start of every task, every status and every end, so it may learn.

    Attributes:
        urgency: The worth of a second of delay now, relative to what the settings say (`batch_end`).
    """

    urgency: float

    def first_poll(self, task: EntryT_contra, now: float, random: float) -> float:
        """Return the time of the first poll of a task."""
        ...

    def next_poll(self, task: EntryT_contra, progress: float | None, now: float, random: float) -> float:
        """Return the time of the next poll of a task that was found unfinished with this progress."""
        ...

    def replan(self, task: EntryT_contra, now: float, random: float) -> float:
        """Return the time of the next poll of a task that waits for it, at the present urgency."""
        ...

    def observe_end(self, task: EntryT_contra, status: TaskStatus, now: float) -> None:
        """Record that a poll found a task ended."""
        ...

    def expected_delay(self, task: EntryT_contra, now: float) -> float:
        """Return the seconds since the end of the task, as their expected value: 0 if it certainly has not ended."""
        ...


@define
class IntervalTiming:
    """The first delay and the interval of the settings, with jitter, at any urgency; a young task is polled sooner."""

    polling: Polling
    urgency: float = field(default=1.0, init=False)
    _interval: float = field(init=False)
    _least: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._interval = min(self.polling.max_interval, max(self.polling.min_interval, self.polling.interval))
        self._least = max(self.polling.min_interval, EARLY * self._interval)

    def first_poll(self, task: PollEntry, now: float, random: float) -> float:
        """See `Timing.first_poll`."""
        return max(now, task.since + self._add_jitter(self.polling.initial_delay, random))

    def next_poll(self, task: PollEntry, progress: float | None, now: float, random: float) -> float:  # noqa: ARG002 # Timing's
        """See `Timing.next_poll`."""
        task.unfinished_at = max(task.unfinished_at, task.due)
        early = max(self._least, EARLY * (now - task.since))
        return now + self._add_jitter(min(self._interval, early), random)

    def replan(self, task: PollEntry, now: float, random: float) -> float:  # noqa: ARG002 # Timing's
        """See `Timing.replan`: the schedule is fixed."""
        return task.due

    def observe_end(self, task: PollEntry, status: TaskStatus, now: float) -> None:
        """See `Timing.observe_end`: a fixed interval learns nothing."""

    def expected_delay(self, task: PollEntry, now: float) -> float:
        """See `Timing.expected_delay`: nothing is known of the end, so tasks that are overdue longest come first."""
        return now - task.due

    def _add_jitter(self, seconds: float, random: float) -> float:
        return seconds * (1 + JITTER * (2 * random - 1))
