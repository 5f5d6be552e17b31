"""Statuses, a timing without chance, and a simulated gateway, for the tests of the poll schedule."""

from __future__ import annotations

import math
from statistics import mean
from typing import TYPE_CHECKING, Any

from attrs import define, field

from kontext_async.decisions.polling.adaptive import AdaptiveTiming
from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.queue import PollQueue
from kontext_async.decisions.polling.watching import UNWATCHED
from kontext_async.models import TaskState, TaskStatus
from kontext_async.settings import Limits, Polling

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from random import Random

    from kontext_async.decisions.polling.timing import Timing

__all__ = [
    "DONE",
    "FAILED",
    "RUNNING",
    "UNKNOWN",
    "ExactTiming",
    "Job",
    "SimulatedGateway",
    "WatchedTask",
    "ages_around",
    "bimodal",
    "cost",
    "lognormal",
    "train",
    "trained_timing",
]

RUNNING = TaskStatus(task_id="t", state=TaskState.IN_PROGRESS, raw_status="in_progress")
UNKNOWN = TaskStatus(task_id="t", state=TaskState.UNKNOWN, raw_status="queued")
DONE = TaskStatus(task_id="t", state=TaskState.COMPLETED, raw_status="completed")
FAILED = TaskStatus(task_id="t", state=TaskState.FAILED, raw_status="failed")


@define
class ExactTiming:
    """A timing without chance that records the ends it observes."""

    initial_delay: float = 1.0
    interval: float = 2.0
    observed: list[str] = field(factory=list)
    urgency: float = 1.0

    def first_poll(self, task: PollEntry, now: float, random: float) -> float:
        return task.since + self.initial_delay

    def next_poll(self, task: PollEntry, progress: float | None, now: float, random: float) -> float:
        task.unfinished_at = task.due
        return now + self.interval

    def replan(self, task: PollEntry, now: float, random: float) -> float:
        return max(now, task.unfinished_at + self.interval / self.urgency)

    def observe_end(self, task: PollEntry, status: TaskStatus, now: float) -> None:
        self.observed.append(task.task_id)

    def expected_delay(self, task: PollEntry, now: float) -> float:
        return now - task.due


@define(eq=False)
class Job(PollEntry):
    """A polled task whose duration is known to the test."""

    takes: float = 0.0
    polls: int = 0
    kind_name: Hashable | None = "one"


@define(eq=False)
class WatchedTask(PollEntry):
    """A polled task that somebody may watch."""

    interval: float = UNWATCHED

    @property
    def watch_interval(self) -> float:
        return self.interval


@define
class SimulatedGateway:
    """Tasks on a virtual clock: for each that is found ended another begins, and responses are immediate."""

    timing: Timing[Any]
    draw: Callable[[Random], float]
    random: Random
    running: int = 24
    rate: float = 1e6
    status: Callable[[Job, float], TaskStatus] = lambda job, age: RUNNING
    now: float = 0.0
    queue: PollQueue[Job] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queue = PollQueue(Limits(polls_per_second=self.rate), self.timing)
        for _ in range(self.running):
            self.begin()

    def begin(self) -> None:
        self.queue.add(Job("t", self.now, takes=self.draw(self.random)), self.now, self.random.random())

    def run(self, ends: int) -> list[tuple[int, float]]:
        """Run until so many tasks were found ended, and return the polls and the delay of each."""
        results: list[tuple[int, float]] = []
        while len(results) < ends:
            self.now = max(self.now, self.queue.wake_at())
            for job in self.queue.pop_all_due(self.now):
                self.queue.poll_done(job)
                job.polls += 1
                age = self.now - job.since
                ended = age >= job.takes
                status = DONE if ended else self.status(job, age)
                self.queue.status_received(job, status, self.now, self.random.random())
                if ended:
                    results.append((job.polls, age - job.takes))
                    self.begin()
        return results


def cost(results: list[tuple[int, float]], poll_cost: float) -> float:
    """Return the mean cost of a task: its delay, and its polls at `poll_cost` seconds each."""
    return mean(delay + poll_cost * polls for polls, delay in results)


def lognormal(sigma: float, median: float = 10.0) -> Callable[[Random], float]:
    """Return a function that draws a lognormal duration."""
    return lambda random: median * math.exp(random.gauss(0, sigma))


def bimodal(random: Random) -> float:
    """Draw a duration from a distribution with two humps."""
    return (55.0 if random.random() < 0.3 else 9.2) * math.exp(random.gauss(0, 0.15))


def ages_around(middle: float, count: int) -> list[float]:
    """Return ages that are evenly spaced within a tenth of `middle`."""
    return [middle * (0.9 + 0.2 * place / count) for place in range(count)]


def trained_timing(*ages: float, **polling: Any) -> AdaptiveTiming[PollEntry]:
    """Return a timing that observed tasks end at these ages, give or take a tenth of a second."""
    timing: AdaptiveTiming[PollEntry] = AdaptiveTiming(Polling(**polling))
    for age in ages:
        train(timing, age)
    return timing


def train(timing: AdaptiveTiming[Any], age: float, task: PollEntry | None = None, status: TaskStatus = DONE) -> None:
    """Let a timing observe that a task ended at an age, give or take a tenth of a second."""
    task = task or PollEntry("t", 0.0)
    timing.first_poll(task, 0.0, 0.5)
    task.due = age - 0.1
    timing.next_poll(task, None, age - 0.1, 0.5)
    task.due = age + 0.1
    timing.observe_end(task, status, age + 0.1)
