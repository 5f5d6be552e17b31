"""Which task to ask about, and when. No await, no clock.

`PollQueue` holds the tasks by due time, and hands out those that may be asked about now: within the bound on requests
in flight, under the cap on requests per second, and not before the gateway's ``Retry-After``. `Timing` says when a task
is due; `IntervalTiming` is the rule of the settings, with jitter; `kontext_async.decisions.polling.adaptive` has the rule that
learns.

Where more is due than may be asked about, those come first whose answers are worth the most: the tasks that have been
finished for the longest, in the mean (`Timing.expected_delay`).
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from attrs import define, field

from kontext_async.decisions.polling.entry import Place, PollEntry
from kontext_async.decisions.polling.timer_wheel import TimerWheel
from kontext_async.decisions.resend import backoff

if TYPE_CHECKING:
    from kontext_async.models import TaskStatus
    from kontext_async.settings import Limits, Polling, Retries

__all__ = ["GRAIN", "IntervalTiming", "PollQueue", "Timing"]

GRAIN = 1 / 32
"""Seconds between two wake-ups at least: what is due meanwhile is asked about together. At 50 tasks a second that takes
a quarter less CPU than 1/128, with as long a run and no more requests (``python -m benchmarks --only makespan``)."""

JITTER = 0.1
"""The part of an interval that is left to chance, so that tasks created together are not asked about together."""

SLACK = 0.05
"""Seconds of the rate cap that may be saved up: a loop that wakes a little late does not lose its rate."""

COMPARED = 64
CHOSEN = 8
"""Where not all that are due may be asked about, so many of them are compared, and so many chosen, at a time: with
100,000 waiting as with 100, and everybody has their turn to be compared."""


EntryT = TypeVar("EntryT", bound=PollEntry)
EntryT_contra = TypeVar("EntryT_contra", bound=PollEntry, contravariant=True)


class Timing(Protocol[EntryT_contra]):
    """When to ask. Sees every task begin, every answer and every end, and so may learn."""

    def first(self, task: EntryT_contra, now: float, random: float) -> float:
        """When to ask about a task for the first time."""
        ...

    def again(self, task: EntryT_contra, progress: float | None, now: float, random: float) -> float:
        """When to ask again about a task that is not finished, and says so much of its progress."""
        ...

    def finished(self, task: EntryT_contra, status: TaskStatus, now: float) -> None:
        """A task was seen finished."""
        ...

    def expected_delay(self, task: EntryT_contra, now: float) -> float:
        """The seconds that the task has been finished for, in the mean of what is expected."""
        ...


@define
class IntervalTiming:
    """The settings' first delay and interval, with jitter."""

    polling: Polling
    _interval: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._interval = min(self.polling.max_interval, max(self.polling.min_interval, self.polling.interval))

    def first(self, task: PollEntry, now: float, random: float) -> float:
        """See `Timing.first`."""
        return max(now, task.since + self._jittered(self.polling.initial_delay, random))

    def again(self, task: PollEntry, progress: float | None, now: float, random: float) -> float:  # noqa: ARG002 # Timing's
        """See `Timing.again`."""
        return now + self._jittered(self._interval, random)

    def finished(self, task: PollEntry, status: TaskStatus, now: float) -> None:
        """See `Timing.finished`: there is nothing to learn for a fixed interval."""

    def expected_delay(self, task: PollEntry, now: float) -> float:
        """See `Timing.expected_delay`: as nothing is known, those that have been due for longest come first."""
        return now - task.due

    def _jittered(self, seconds: float, random: float) -> float:
        return seconds * (1 + JITTER * (2 * random - 1))


@define
class RateCap:
    """At most `rate` a second, evenly, with `SLACK` to spare: the generic cell rate algorithm (ITU-T I.371)."""

    rate: float
    _next: float = field(default=float("-inf"), init=False)

    def ready_at(self) -> float:
        """When one more is allowed."""
        return self._next - SLACK

    def allows(self, now: float) -> int:
        """How many are allowed now, one after the other."""
        return 1 + int((now + SLACK - max(self._next, now)) * self.rate) if self.ready_at() <= now else 0

    def acquire(self, now: float) -> None:
        """One goes out now."""
        self._next = max(self._next, now) + 1 / self.rate


class PollQueue(Generic[EntryT]):
    """The tasks that wait to be asked about.

    They go from `_later` to `_due`, and from there, when they are chosen, to `_next`; those in a hurry wait by
    themselves. Where everything that is due may be asked about there is nothing to choose; otherwise `COMPARED` at a
    time are looked at in turn. A task's `PollEntry.place` says where it stands: anything else that is found is stale.

    Args:
        limits: What bounds the status requests.
        timing: Says when.
        grain: Seconds between two wake-ups, about: the grid of due times.
    """

    def __init__(self, limits: Limits, timing: Timing[EntryT], grain: float = GRAIN) -> None:
        self._max_in_flight = limits.max_polls_in_flight
        self._cap = RateCap(limits.polls_per_second)
        self._timing = timing
        self._later: TimerWheel[EntryT] = TimerWheel(grain)
        self._due: deque[EntryT] = deque()
        self._next: deque[EntryT] = deque()
        self._hurried: deque[EntryT] = deque()
        self._in_turn = ((self._hurried, Place.URGENT), (self._next, Place.DUE), (self._due, Place.DUE))
        self._held_until = float("-inf")
        self.in_flight = 0

    def add(self, task: EntryT, now: float, random: float) -> None:
        """Take up a task."""
        self._later.put(task, self._timing.first(task, now, random))

    def expedite(self, task: EntryT, now: float) -> None:
        """Ask about a task as soon as may be, before all others that are in no hurry."""
        if task.place is not Place.IN_FLIGHT:
            task.due = min(task.due, now)
            task.place = Place.URGENT
            self._hurried.append(task)

    def remove(self, task: EntryT) -> None:
        """Forget a task."""
        task.place = Place.IDLE

    def pause_until(self, until: float) -> None:
        """Ask about nothing before `until`."""
        self._held_until = max(self._held_until, until)

    def pop_all_due(self, now: float) -> list[EntryT]:
        """All tasks to ask about now, as by `pop_due`."""
        return list(iter(partial(self.pop_due, now), None))

    def pop_due(self, now: float) -> EntryT | None:
        """A task to ask about now, if there is one: it is on the wire until `poll_done` is called for it."""
        self._due.extend(self._later.pop(now))
        if self.wake_at() > now:
            return None
        task = self._first_in_turn(now).popleft()
        task.place = Place.IN_FLIGHT
        task.due = now
        self.in_flight += 1
        self._cap.acquire(now)
        return task

    def wake_at(self) -> float:
        """When there will be something to ask; infinite when only an answer or a new task can change that."""
        if self.in_flight >= self._max_in_flight:
            return float("inf")
        return max(self._first_due(), self._cap.ready_at(), self._held_until)

    def on_grid(self, when: float) -> float:
        """The first point of the grid of due times that is not before `when`."""
        return self._later.rounded(when)

    def poll_done(self, task: EntryT) -> bool:
        """A status request is off the wire, whatever came of it.

        Returns:
            Whether the answer still counts: the task was not forgotten meanwhile, nor taken up anew.
        """
        self.in_flight -= 1
        counts = task.place is Place.IN_FLIGHT
        if counts:
            task.place = Place.IDLE
        return counts

    def status_received(self, task: EntryT, status: TaskStatus, now: float, random: float) -> None:
        """Schedule the next poll of a task that was polled, or learn from its end: then it is not polled again."""
        if status.state.is_terminal:
            self._timing.finished(task, status, now)
        else:
            self.reschedule(task, status.progress, now, random)

    def reschedule(self, task: EntryT, progress: float | None, now: float, random: float) -> None:
        """A task was answered for, and is not finished."""
        task.failure_streak = None
        self._later.put(task, self._timing.again(task, progress, now, random))

    def retry_later(self, task: EntryT, now: float, retries: Retries, random: float) -> None:
        """An ask failed in a way that may pass: ask again after a backoff."""
        self._later.put(task, now + backoff(task.failures, retries, random))

    def _first_due(self) -> float:
        """When one of the tasks that come first is due; what is stale there is dropped."""
        if not (self._hurried or self._next or self._due):
            return self._later.first()
        for waiting, place in self._in_turn:
            while waiting and waiting[0].place is not place:
                waiting.popleft()
            if waiting:
                return waiting[0].due
        return self._later.first()

    def _first_in_turn(self, now: float) -> deque[EntryT]:
        """Where the task stands that comes first, now that there is one."""
        if self._hurried:
            return self._hurried
        if not self._next and len(self._due) > 1 and len(self._due) > self._room(now):
            self._choose(now)
        return self._next or self._due

    def _room(self, now: float) -> int:
        """How many may be asked about now, together."""
        return min(self._max_in_flight - self.in_flight, self._cap.allows(now))

    def _choose(self, now: float) -> None:
        """Fill `_next` from `_due`, which holds more than may be asked about now."""
        compared = [self._due.popleft() for _ in range(min(COMPARED, len(self._due)))]
        compared = [task for task in compared if task.place is Place.DUE]
        compared.sort(key=lambda task: self._timing.expected_delay(task, now), reverse=True)
        chosen = max(1, len(compared) * CHOSEN // COMPARED)
        self._next.extend(compared[:chosen])
        self._due.extend(compared[chosen:])
