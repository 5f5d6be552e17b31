"""How long tasks take, what the best possible run over them takes, and what a server's record says of a real one."""

from __future__ import annotations

import heapq
import math
from random import Random
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Plan", "TaskRecord", "delays", "ideal_makespan", "makespan", "percentile", "unseen_over_time"]

TaskRecord = tuple[float, float, float | None]
"""When a task was created, when it was finished, and when somebody first saw that: seconds of the server's clock."""


@frozen(kw_only=True)
class Plan:
    """What the server shall do.

    Attributes:
        median: Seconds that half of the tasks take at most; None when no task ever ends.
        sigma: The spread of the lognormal distribution.
        seed: Of the service times, so that every client gets the same ones in the order of creation.
        progress: What unfinished tasks say of their progress; None when they say nothing.
        linear: Whether they say the part of their time that has passed instead.
    """

    median: float | None = 2.0
    sigma: float = 0.5
    seed: int = 1
    progress: float | None = None
    linear: bool = False

    def service_times(self) -> Iterator[float]:
        """The seconds that each task takes, in the order of creation, without end."""
        chance = Random(self.seed)
        while True:
            yield math.inf if self.median is None else chance.lognormvariate(math.log(self.median), self.sigma)


def ideal_makespan(times: Sequence[float], in_flight: int) -> float:
    """The seconds of a run that starts the next task in the very moment in which one ends."""
    ends: list[float] = []
    for seconds in times:
        began = heapq.heappop(ends) if len(ends) == in_flight else 0.0
        heapq.heappush(ends, began + seconds)
    return max(ends)


def makespan(tasks: Sequence[TaskRecord]) -> float:
    """From the first creation to the last end that was seen."""
    return max(seen or finished for _, finished, seen in tasks) - min(created for created, _, _ in tasks)


def delays(tasks: Sequence[TaskRecord]) -> list[float]:
    """From a task's end to when it was seen."""
    return sorted(seen - finished for _, finished, seen in tasks if seen is not None)


def percentile(ordered: Sequence[float], share: float) -> float:
    """A quantile of sorted values; not a number when there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def unseen_over_time(tasks: Sequence[TaskRecord], steps: int = 400) -> list[tuple[float, int, int]]:
    """At moments of a run: the tasks at work, and those created and not yet seen finished."""
    start = min(created for created, _, _ in tasks)
    moments = [makespan(tasks) * step / steps for step in range(steps + 1)]
    return [(at, _busy(tasks, start + at, seen=False), _busy(tasks, start + at, seen=True)) for at in moments]


def _busy(tasks: Sequence[TaskRecord], at: float, *, seen: bool) -> int:
    return sum(created <= at < ((noticed or math.inf) if seen else ended) for created, ended, noticed in tasks)
