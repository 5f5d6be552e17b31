"""Service times of tasks, the best possible run over them, and the figures of a real run."""

from __future__ import annotations

import heapq
import math
from random import Random
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "TaskTimes",
    "Workload",
    "build_timeline",
    "compute_delays",
    "compute_ideal_makespan",
    "compute_makespan",
    "compute_percentile",
]

TaskTimes = tuple[float, float, float | None]
"""When a task was created, when it completed, and when a client first saw that: seconds of the server's clock."""


@frozen(kw_only=True)
class Workload:
    """The service times of the tasks, and the progress that the server reports.

    Attributes:
        median: Median service time in seconds; None when no task ever ends.
        sigma: The spread of the lognormal distribution.
        seed: Of the service times, so that every client gets the same ones in the order of creation.
        progress: The progress that unfinished tasks report; None when they report nothing.
        linear: Unfinished tasks report the elapsed share of their service time instead.
    """

    median: float | None = 2.0
    sigma: float = 0.5
    seed: int = 1
    progress: float | None = None
    linear: bool = False

    def service_times(self) -> Iterator[float]:
        """Yield the seconds that each task takes, in the order of creation, without end."""
        random = Random(self.seed)
        while True:
            yield math.inf if self.median is None else random.lognormvariate(math.log(self.median), self.sigma)


def compute_ideal_makespan(service_times: Sequence[float], in_flight: int) -> float:
    """Return the seconds of a run that starts the next task at the moment at which one ends."""
    ends: list[float] = []
    for seconds in service_times:
        began = heapq.heappop(ends) if len(ends) == in_flight else 0.0
        heapq.heappush(ends, began + seconds)
    return max(ends)


def compute_makespan(tasks: Sequence[TaskTimes]) -> float:
    """Return the seconds from the first creation to the last completion that a client saw."""
    return max(seen or completed for _, completed, seen in tasks) - min(created for created, _, _ in tasks)


def compute_delays(tasks: Sequence[TaskTimes]) -> list[float]:
    """Return the seconds from completion to detection, sorted."""
    return sorted(seen - completed for _, completed, seen in tasks if seen is not None)


def compute_percentile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values; NaN when there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def build_timeline(tasks: Sequence[TaskTimes], steps: int = 400) -> list[tuple[float, int, int]]:
    """Return the seconds, the tasks at work, and the created tasks not yet seen completed, for moments of a run."""
    start = min(created for created, _, _ in tasks)
    moments = [compute_makespan(tasks) * step / steps for step in range(steps + 1)]
    return [(at, _count_working(tasks, start + at), _count_unseen(tasks, start + at)) for at in moments]


def _count_working(tasks: Sequence[TaskTimes], at: float) -> int:
    return sum(created <= at < completed for created, completed, _ in tasks)


def _count_unseen(tasks: Sequence[TaskTimes], at: float) -> int:
    return sum(created <= at < (seen or math.inf) for created, _, seen in tasks)
