"""Tasks that are due later, on a grid of times with a list for each. No await, no clock.

A task occupies one place in a list, and adding it costs the same with a hundred thousand others as with ten. Tasks that
are due between two points of the grid are due at the later one, together with others: fewer wake-ups for the same
polls. The step of the grid is a power of two, so that its points are exact.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Generic, TypeVar

from kontext_async.decisions.polling.entry import Place, PollEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TimerWheel"]

EntryT = TypeVar("EntryT", bound=PollEntry)


class TimerWheel(Generic[EntryT]):
    """Tasks by due time. A reference to a task that has moved to another place or due time is stale.

    Attributes:
        step: The seconds between two points of the grid.
    """

    def __init__(self, step: float) -> None:
        self.step = 2.0 ** math.floor(math.log2(step))
        self._times: list[float] = []
        self._tasks: dict[float, tuple[float, list[EntryT]]] = {}

    def round_up(self, time: float) -> float:
        """Return the first point of the grid that is not before `time`."""
        return time if time == math.inf else math.ceil(time / self.step) * self.step

    def put(self, task: EntryT, due: float) -> None:
        """Schedule a task for the first point of the grid that is not before `due`."""
        when = self.round_up(due)
        waiting = self._tasks.get(when)
        if waiting is None:
            waiting = self._tasks[when] = (when, [])
            heapq.heappush(self._times, when)
        task.due = waiting[0]  # one number object for all tasks that are due then
        task.place = Place.SCHEDULED
        waiting[1].append(task)

    def pop(self, now: float) -> Sequence[EntryT]:
        """Remove and return the tasks that are due."""
        if not self._times or self._times[0] > now:
            return ()
        due: list[EntryT] = []
        while self._times and self._times[0] <= now:
            when = heapq.heappop(self._times)
            for task in self._tasks.pop(when)[1]:
                if _is_current(task, when):
                    task.place = Place.DUE
                    due.append(task)
        return due

    def first_due(self) -> float:
        """Return the time at which the first task is due; infinite when there is none."""
        while self._times:
            when = self._times[0]
            tasks = self._tasks[when][1]
            while tasks and not _is_current(tasks[-1], when):
                tasks.pop()
            if tasks:
                return when
            del self._tasks[heapq.heappop(self._times)]
        return math.inf


def _is_current(task: PollEntry, when: float) -> bool:
    return task.place is Place.SCHEDULED and task.due == when
