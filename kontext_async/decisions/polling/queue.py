"""The tasks that wait to be polled. No await, no clock.

`PollQueue` orders tasks by due time and hands out those that may be polled now: within the limit on polls in flight,
under the cap on polls per second, and not before the gateway's ``Retry-After``. A `Timing` says when a task is due.

When more tasks are due than may be polled, those come first whose status is worth the most: the tasks with the largest
expected delay since their end (`Timing.expected_delay`). Every second poll then goes to a task that somebody watches,
if one is due.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from kontext_async.decisions.polling.entry import Place, PollEntry
from kontext_async.decisions.polling.rate_cap import RateCap
from kontext_async.decisions.polling.timer_wheel import TimerWheel
from kontext_async.decisions.polling.watching import UNWATCHED, watched_due
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
CHOSEN_PART = 8
"""If not all due tasks may be polled, `COMPARED` of them are compared and an eighth is selected at a time; half of them
if there are no others, because the next comparison would be the same. The cost is the same with 100,000 waiting as with
100, and every task is compared in its turn."""

EntryT = TypeVar("EntryT", bound=PollEntry)


class PollQueue(Generic[EntryT]):
    """The tasks that wait to be polled.

    A task moves from `_scheduled` to `_due`, and to `_chosen` when it is selected; a watched task moves to `_watched`,
    and urgent tasks wait in `_urgent`.
    When everything due may be polled there is nothing to choose; otherwise `COMPARED` tasks are compared at a time, in
    turn. `PollEntry.place` says where a task is: all other references to it are stale.

    Args:
        limits: The bounds on polls.
        timing: The rule that says when a task is due.
        grain: The approximate seconds between two wake-ups: the grid of due times.
        least: The fewest seconds between two polls of a watched task.
    """

    def __init__(self, limits: Limits, timing: Timing[EntryT], grain: float = GRAIN, *, least: float = 0.0) -> None:
        self._max_in_flight = limits.max_polls_in_flight
        self._cap = RateCap(limits.polls_per_second)
        self._timing = timing
        self._least = least
        self._scheduled: TimerWheel[EntryT] = TimerWheel(grain)
        self._due: deque[EntryT] = deque()
        self._chosen: deque[EntryT] = deque()
        self._watched: deque[EntryT] = deque()
        self._watched_is_next = True
        self._urgent: deque[EntryT] = deque()
        self._by_priority = (
            (self._urgent, Place.URGENT),
            (self._watched, Place.DUE),
            (self._chosen, Place.DUE),
            (self._due, Place.DUE),
        )
        self._paused_until = -math.inf
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

    def watch(self, task: EntryT) -> None:
        """Note that somebody has begun to watch a task: poll it sooner if its `watch_interval` says so."""
        if task.place is Place.DUE:
            self._watched.append(task)
        elif task.place is Place.SCHEDULED and task.failure_streak is None:
            self._poll_sooner(task, self._watched_due(task, task.due))

    def set_urgency(self, urgency: float) -> bool:
        """Change the worth of a second of delay (`batch_end`).

        Returns:
            True if it has risen: `replan` the tasks that wait.
        """
        has_risen = urgency > self._timing.urgency
        self._timing.urgency = urgency
        return has_risen

    def replan(self, task: EntryT, now: float, random: float) -> None:
        """Schedule the next poll of a task again, because the urgency has risen. It never comes later than before."""
        if task.place is Place.SCHEDULED and task.failure_streak is None:
            self._poll_sooner(task, self._timing.replan(task, now, random))

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
        for task in self._scheduled.pop(now):
            (self._due if task.watch_interval == UNWATCHED else self._watched).append(task)
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
            return math.inf
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
        due = self._timing.next_poll(task, progress, now, random)
        self._scheduled.put(task, due if task.watch_interval == UNWATCHED else self._watched_due(task, due))

    def retry_later(self, task: EntryT, now: float, retries: Retries, random: float) -> None:
        """Schedule the next poll of a task after a backoff, because a poll failed in a transient way."""
        self._scheduled.put(task, now + backoff(task.failures, retries, random))

    def _watched_due(self, task: EntryT, due: float) -> float:
        interval, grain = task.watch_interval, self._scheduled.step
        return watched_due(due, task.unfinished_at, interval, least=self._least, grain=grain)

    def _poll_sooner(self, task: EntryT, due: float) -> None:
        if self._scheduled.round_up(due) < task.due:
            self._scheduled.put(task, due)

    def _first_due(self) -> float:
        """Return the due time of the task with the highest priority; drop stale references in front of each queue."""
        if not (self._urgent or self._watched or self._chosen or self._due):
            return self._scheduled.first_due()
        first: EntryT | None = None
        for waiting, place in self._by_priority:
            while waiting and waiting[0].place is not place:
                waiting.popleft()
            if waiting and first is None:
                first = waiting[0]
        return self._scheduled.first_due() if first is None else first.due

    def _first_queue(self, now: float) -> deque[EntryT]:
        """Return the queue whose first task is polled next. At least one task is due."""
        if self._urgent:
            return self._urgent
        if self._watched and (self._watched_is_next or not (self._chosen or self._due)):
            self._watched_is_next = False
            return self._watched
        self._watched_is_next = True
        if not self._chosen and len(self._due) > 1 and not self._allows_all_due(now):
            self._choose(now)
        return self._chosen or self._due

    def _allows_all_due(self, now: float) -> bool:
        """Return True if all due tasks may be polled now, together."""
        due = len(self._due)
        return due <= self._max_in_flight - self.in_flight and self._cap.allowance(now, due) == due

    def _choose(self, now: float) -> None:
        """Fill `_chosen` from `_due`, which has more tasks than may be polled now."""
        compared = [self._due.popleft() for _ in range(min(COMPARED, len(self._due)))]
        compared = [task for task in compared if task.place is Place.DUE]
        compared.sort(key=lambda task: self._timing.expected_delay(task, now), reverse=True)
        chosen = max(1, len(compared) // (CHOSEN_PART if self._due else 2))
        self._chosen.extend(compared[:chosen])
        self._due.extend(compared[chosen:])
