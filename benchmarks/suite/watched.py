"""Polls of tasks that somebody watches with `updates(every=…)`, and of the tasks beside them.

``python -m benchmarks.suite.watched [--full]``

A session learns how long tasks take, over real HTTP. Then it runs two batches: one that nobody watches, and one in
which every other task is watched. A watched task shows at least a status in every interval; the tasks beside it are
polled as before; and under a low cap on polls per second, both still are polled, and the cap is kept.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import pairwise
from statistics import mean
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from benchmarks.servers.schedule import Workload
from benchmarks.support.server_process import start_mock_gateway
from benchmarks.support.thresholds import check_threshold
from kontext_async import Limits, Polling
from kontext_async.events import StatusReceived
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from kontext_async import GenerationTask

__all__ = ["Sizes", "describe", "measure"]

PROMPT = "a red fox in snow"


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        learned: Tasks from which the session learns.
        tasks: Tasks of each batch; every other one of the second is watched.
        every: The most seconds between two polls of a watched task.
        cap: The low cap, in polls per second.
        workload: The service times.
        polling: The session's `Polling`, where it is not the default.
    """

    learned: int = 80
    tasks: int = 24
    every: float = 0.5
    cap: float = 12.0
    workload: Workload = field(factory=lambda: Workload(median=5.0, sigma=0.15, linear=True))
    polling: dict[str, Any] = field(factory=dict)


@define
class PollRecord:
    """The times at which the status of each task came."""

    times: defaultdict[str | None, list[float]] = field(factory=lambda: defaultdict(list))

    def __call__(self, event: StatusReceived) -> None:
        """Record a status."""
        self.times[event.task_id].append(asyncio.get_running_loop().time())

    def count(self, tasks: list[GenerationTask]) -> float:
        """Return the mean number of statuses of some tasks."""
        return mean(len(self.times[task.id]) for task in tasks)

    def longest_gap(self, tasks: list[GenerationTask]) -> float:
        """Return the longest time between two statuses of one of some tasks."""
        return max(after - before for task in tasks for before, after in pairwise(self.times[task.id]))

    def rate(self) -> float:
        """Return the statuses per second, of all tasks."""
        moments = sorted(moment for times in self.times.values() for moment in times)
        return (len(moments) - 1) / (moments[-1] - moments[0])


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure without a watcher, with watchers, and with watchers under a low cap."""
    sizes = sizes or Sizes(tasks=24 if quick else 96)
    with start_mock_gateway() as server:
        server.reset(sizes.workload)
        free = asyncio.run(_measure(sizes, server.address, 1000.0))
        server.reset(sizes.workload)
        capped = asyncio.run(_measure(sizes, server.address, sizes.cap))
    return {
        "settings": {"tasks": sizes.tasks, "every": sizes.every, "cap": sizes.cap, "median s": sizes.workload.median},
        "free": free,
        "capped": capped,
        "thresholds": [
            check_threshold("longest gap of a watched task, in intervals", round(free["gap"] / sizes.every, 3), 1.25),
            check_threshold(
                "polls of an unwatched task beside watched ones, against nobody watching",
                round(free["beside"] / free["alone"], 3),
                1.15,
            ),
            check_threshold("polls under the cap, against the cap", round(capped["rate"] / sizes.cap, 3), 1.05),
            check_threshold("tasks without an outcome under the cap", capped["lost"], 0),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the statuses per task."""
    return [
        f"{name}: statuses per task: {row['alone']:.1f} if nobody watches; {row['watched']:.1f} of a watched one, "
        f"{row['beside']:.1f} of one beside it; {row['rate']:.1f} polls a second"
        for name, row in ((name, figures[name]) for name in ("free", "capped"))
    ]


async def _measure(sizes: Sizes, address: str, rate: float) -> dict[str, float]:
    limits = Limits(max_in_flight=max(sizes.learned, sizes.tasks), polls_per_second=rate)
    async with KontextSession(
        "benchmark", base_url=address, limits=limits, polling=Polling(**sizes.polling)
    ) as session:
        await session.generate_all(PROMPT for _ in range(sizes.learned))
        alone, polls_alone, _ = await _run_batch(session, sizes, watched=0)
        tasks, polls, lost = await _run_batch(session, sizes, watched=2)
    watched, beside = tasks[::2], tasks[1::2]
    return {
        "alone": polls_alone.count(alone),
        "watched": polls.count(watched),
        "beside": polls.count(beside),
        "gap": polls.longest_gap(watched),
        "rate": polls.rate(),
        "lost": lost,
    }


async def _run_batch(
    session: KontextSession, sizes: Sizes, watched: int
) -> tuple[list[GenerationTask], PollRecord, int]:
    """Run a batch in which every `watched`-th task is watched, none with 0.

    Returns:
        The tasks, their statuses, and the number of tasks without an outcome.
    """
    record = PollRecord()
    unsubscribe = session.subscribe(record, StatusReceived)
    tasks = await asyncio.gather(*(session.submit(PROMPT) for _ in range(sizes.tasks)))
    watchers = [_watch(task, sizes.every) for number, task in enumerate(tasks) if watched and number % watched == 0]
    results = await asyncio.gather(*watchers, *(task.wait() for task in tasks), return_exceptions=True)
    unsubscribe()
    return tasks, record, sum(isinstance(result, BaseException) for result in results)


async def _watch(task: GenerationTask, every: float) -> None:
    async for _ in task.updates(every=every):
        pass


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("watched")
