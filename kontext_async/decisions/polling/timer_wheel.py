"""What is due later, on a grid of times: a list for each of them. No await, no clock.

A place in a list is all that a task takes here, and putting it there all that it costs, with a hundred thousand others
as with ten. What is due between two points of the grid is due at the later one, together with others: fewer wake-ups
for the same asks. The grid's step is a power of two, so that its points are exact.
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
    """Tasks by due time. One that was put here, and is elsewhere or due at another time by now, is stale.

    Attributes:
        step: Seconds between two points of the grid.
    """

    def __init__(self, step: float) -> None:
        self.step = 2.0 ** math.floor(math.log2(step))
        self._times: list[float] = []
        self._tasks: dict[float, tuple[float, list[EntryT]]] = {}

    def rounded(self, time: float) -> float:
        """The first point of the grid that is not before `time`."""
        return time if time == math.inf else math.ceil(time / self.step) * self.step

    def put(self, task: EntryT, due: float) -> None:
        """Have a task wait until it is due."""
        when = self.rounded(due)
        known = self._tasks.get(when)
        if known is None:
            known = self._tasks[when] = (when, [])
            heapq.heappush(self._times, when)
        task.due = known[0]  # the same number for all that are due then
        task.place = Place.SCHEDULED
        known[1].append(task)

    def pop(self, now: float) -> Sequence[EntryT]:
        """Take out what is due."""
        if not self._times or self._times[0] > now:
            return ()
        due: list[EntryT] = []
        while self._times and self._times[0] <= now:
            when = heapq.heappop(self._times)
            for task in self._tasks.pop(when)[1]:
                if _waits(task, when):
                    task.place = Place.DUE
                    due.append(task)
        return due

    def first(self) -> float:
        """When the first task is due; infinite when there is none."""
        while self._times:
            when = self._times[0]
            tasks = self._tasks[when][1]
            while tasks and not _waits(tasks[-1], when):
                tasks.pop()
            if tasks:
                return when
            del self._tasks[heapq.heappop(self._times)]
        return math.inf


def _waits(task: PollEntry, when: float) -> bool:
    return task.place is Place.SCHEDULED and task.due == when
