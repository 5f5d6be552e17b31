"""The tasks that wait to be polled. No await, no clock.

`PollQueue` orders tasks by due time and hands out those that may be polled now: within the limit on polls in flight,
under the cap on polls per second, and not before the gateway's ``Retry-After``. A `Timing` says when a task is due.

When more tasks are due than may be polled, those come first whose status is worth the most: the tasks with the largest
expected delay since their end (`Timing.expected_delay`).
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from kontext_async.decisions.polling.entry import Place, PollEntry
from kontext_async.decisions.polling.rate_cap import RateCap
from kontext_async.decisions.polling.timer_wheel import TimerWheel
from kontext_async.decisions.resend import backoff

if TYPE_CHECKING:
    from kontext_async.decisions.polling.timing import Timing
    from kontext_async.models import TaskStatus
    from kontext_async.settings import Limits, Retries

__all__ = ["GRAIN", "PollQueue"]

GRAIN = 1 / 32
"""The least seconds between two wake-ups: tasks that are due meanwhile are polled together. At 50 tasks a second this
takes a quarter less CPU than 1/128, with as long a run and no additional requests
(``python -m benchmarks --only makespan``)."""

COMPARED = 64
CHOSEN = 8
"""If not all due tasks may be polled, `COMPARED` of them are compared and `CHOSEN` are selected at a time. The cost
is the same with 100,000 waiting as with 100, and every task is compared in its turn."""

EntryT = TypeVar("EntryT", bound=PollEntry)


class PollQueue(Generic[EntryT]):
    """The tasks that wait to be polled.

    A task moves from `_scheduled` to `_due`, and to `_chosen` when it is selected; urgent tasks wait in `_urgent`.
    When everything due may be polled there is nothing to choose; otherwise `COMPARED` tasks are compared at a time, in
    turn. `PollEntry.place` says where a task is: all other references to it are stale.

    Args:
        limits: The bounds on polls.
        timing: The rule that says when a task is due.
        grain: The approximate seconds between two wake-ups: the grid of due times.
    """

    def __init__(self, limits: Limits, timing: Timing[EntryT], grain: float = GRAIN) -> None:
        self._max_in_flight = limits.max_polls_in_flight
        self._cap = RateCap(limits.polls_per_second)
        self._timing = timing
        self._scheduled: TimerWheel[EntryT] = TimerWheel(grain)
        self._due: deque[EntryT] = deque()
        self._chosen: deque[EntryT] = deque()
        self._urgent: deque[EntryT] = deque()
        self._by_priority = ((self._urgent, Place.URGENT), (self._chosen, Place.DUE), (self._due, Place.DUE))
        self._paused_until = float("-inf")
        self.in_flight = 0

    def add(self, task: EntryT, now: float, random: float) -> None:
        """Add a task, and schedule its first poll."""
        self._scheduled.put(task, self._timing.first_poll(task, now, random))

    def expedite(self, task: EntryT, now: float) -> None:
        """Poll a task as soon as the limits permit, before all tasks that are not urgent."""
        if task.place is not Place.IN_FLIGHT:
            task.due = min(task.due, now)
            task.place = Place.URGENT
            self._urgent.append(task)

    def remove(self, task: EntryT) -> None:
        """Remove a task."""
        task.place = Place.IDLE

    def pause_until(self, until: float) -> None:
        """Poll nothing before `until`."""
        self._paused_until = max(self._paused_until, until)

    def pop_all_due(self, now: float) -> list[EntryT]:
        """Return all tasks to poll now, as by `pop_due`."""
        return list(iter(partial(self.pop_due, now), None))

    def pop_due(self, now: float) -> EntryT | None:
        """Return a task to poll now, if there is one. It is in flight until `poll_done` is called for it."""
        self._due.extend(self._scheduled.pop(now))
        if self.wake_at() > now:
            return None
        task = self._first_queue(now).popleft()
        task.place = Place.IN_FLIGHT
        task.due = now
        self.in_flight += 1
        self._cap.acquire(now)
        return task

    def wake_at(self) -> float:
        """Return the time of the next poll; infinite when only a response or a new task can lead to one."""
        if self.in_flight >= self._max_in_flight:
            return float("inf")
        return max(self._first_due(), self._cap.ready_at(), self._paused_until)

    def on_grid(self, when: float) -> float:
        """Return the first point of the grid of due times that is not before `when`."""
        return self._scheduled.round_up(when)

    def poll_done(self, task: EntryT) -> bool:
        """Count a poll as no longer in flight, whether or not it succeeded.

        Returns:
            True if the response still counts: the task was neither removed nor added again meanwhile.
        """
        self.in_flight -= 1
        counts = task.place is Place.IN_FLIGHT
        if counts:
            task.place = Place.IDLE
        return counts

    def status_received(self, task: EntryT, status: TaskStatus, now: float, random: float) -> None:
        """Schedule the next poll of a task, or learn from its end if the status is terminal."""
        if status.state.is_terminal:
            self._timing.observe_end(task, status, now)
        else:
            self.reschedule(task, status.progress, now, random)

    def reschedule(self, task: EntryT, progress: float | None, now: float, random: float) -> None:
        """Schedule the next poll of a task that was found unfinished."""
        task.failure_streak = None
        self._scheduled.put(task, self._timing.next_poll(task, progress, now, random))

    def retry_later(self, task: EntryT, now: float, retries: Retries, random: float) -> None:
        """Schedule the next poll of a task after a backoff, because a poll failed in a transient way."""
        self._scheduled.put(task, now + backoff(task.failures, retries, random))

    def _first_due(self) -> float:
        """Return the due time of the task with the highest priority; drop stale references in front of it."""
        if not (self._urgent or self._chosen or self._due):
            return self._scheduled.first_due()
        for waiting, place in self._by_priority:
            while waiting and waiting[0].place is not place:
                waiting.popleft()
            if waiting:
                return waiting[0].due
        return self._scheduled.first_due()

    def _first_queue(self, now: float) -> deque[EntryT]:
        """Return the queue whose first task is polled next. At least one task is due."""
        if self._urgent:
            return self._urgent
        if not self._chosen and len(self._due) > 1 and len(self._due) > self._allowance(now):
            self._choose(now)
        return self._chosen or self._due

    def _allowance(self, now: float) -> int:
        """Return the number of tasks that may be polled now, together."""
        return min(self._max_in_flight - self.in_flight, self._cap.allowance(now))

    def _choose(self, now: float) -> None:
        """Fill `_chosen` from `_due`, which has more tasks than may be polled now."""
        compared = [self._due.popleft() for _ in range(min(COMPARED, len(self._due)))]
        compared = [task for task in compared if task.place is Place.DUE]
        compared.sort(key=lambda task: self._timing.expected_delay(task, now), reverse=True)
        chosen = max(1, len(compared) * CHOSEN // COMPARED)
        self._chosen.extend(compared[:chosen])
        self._due.extend(compared[chosen:])
