"""A simulated service with a virtual clock, distributions of service times, and the optimal polling of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random
from statistics import mean
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field, frozen

from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.inspection import LifetimeDistribution, optimal_schedule
from kontext_async.decisions.polling.queue import PollQueue
from kontext_async.decisions.polling.timing import IntervalTiming, Timing
from kontext_async.models import TaskState, TaskStatus
from kontext_async.settings import Limits, Polling

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DISTRIBUTIONS",
    "DONE",
    "MEDIAN",
    "RUNNING",
    "FixedInterval",
    "Service",
    "ServiceTimes",
    "SimulatedTask",
    "TaskPolls",
    "compute_ages_at",
    "compute_best_ages",
    "compute_optimum",
    "compute_optimum_at",
    "lognormal",
    "summarize",
]

MEDIAN = 10.0
"""Median service time in seconds: the unit of all delays in the results."""

DONE = TaskStatus(task_id="", state=TaskState.COMPLETED, raw_status="completed")
RUNNING = TaskStatus(task_id="", state=TaskState.IN_PROGRESS, raw_status="in_progress")

Draw: TypeAlias = Callable[[Random], float]


@frozen
class ServiceTimes:
    """A distribution of service times.

    Attributes:
        draw: Draws the seconds of one task.
        ended: Returns the share of tasks that have ended by an age in seconds.
    """

    draw: Draw
    ended: Callable[[float], float]


def lognormal(sigma: float, median: float = MEDIAN) -> ServiceTimes:
    """Return the distribution whose logarithm is normal, with this standard deviation."""
    return ServiceTimes(
        lambda random: median * math.exp(random.gauss(0, sigma)),
        lambda age: 0.5 * math.erfc(-math.log(age / median) / sigma / math.sqrt(2)) if age > 0 else 0.0,
    )


def _gamma_4() -> ServiceTimes:
    scale = MEDIAN / 3.672060748850897  # the median of a gamma distribution of shape 4
    return ServiceTimes(
        lambda random: random.gammavariate(4, scale),
        lambda age: 1 - math.exp(-age / scale) * sum((age / scale) ** k / math.factorial(k) for k in range(4)),
    )


def _bimodal() -> ServiceTimes:
    fast = MEDIAN / 1.0886  # 0.7 of the tasks around it, so that the median of all is MEDIAN
    modes = lognormal(0.15, fast), lognormal(0.15, 6 * fast)
    return ServiceTimes(
        lambda random: modes[random.random() < 0.3].draw(random),
        lambda age: 0.7 * modes[0].ended(age) + 0.3 * modes[1].ended(age),
    )


DISTRIBUTIONS = {
    "lognormal 0.25": lognormal(0.25),
    "lognormal 0.5": lognormal(0.5),
    "lognormal 1": lognormal(1.0),
    "gamma 4": _gamma_4(),
    "bimodal": _bimodal(),
}
"""Distributions by name. The number of a lognormal one is the standard deviation of the logarithm."""


@frozen
class TaskPolls:
    """The polls of one task.

    Attributes:
        polls: How many there were.
        delay: Seconds from the task's end to the poll that detected it.
        ended: When the task ended.
    """

    polls: int
    delay: float
    ended: float


@define(eq=False)
class SimulatedTask(PollEntry):
    """A poll entry with its service time.

    Attributes:
        takes: Service time in seconds.
        polls: Polls so far.
    """

    takes: float = 0.0
    polls: int = 0


class FixedInterval(IntervalTiming):
    """Polls after a fixed interval, the first poll included; `factor` makes the intervals grow without a bound."""

    def __init__(self, interval: float, factor: float = 1.0) -> None:
        super().__init__(Polling(initial_delay=interval, interval=interval, min_interval=1e-3, max_interval=1e9))
        self.factor = factor

    def next_poll(self, task: PollEntry, progress: float | None, now: float, random: float) -> float:  # noqa: ARG002 # Timing's
        """See `Timing.next_poll`."""
        assert isinstance(task, SimulatedTask)
        return now + self._add_jitter(self.polling.interval * self.factor**task.polls, random)


@define
class Service:
    """A closed system: for each task that is detected as completed, another begins.

    Attributes:
        timing: When to poll.
        draw: Draws the service time of a task.
        random: The source of all random numbers.
        at_once: Tasks in progress at once.
        rate: Maximum polls per second.
        status: Returns the status of a task in progress, by its age.
        now: Seconds of the virtual clock.
        polls: Polls of all tasks.
        queue: The session's own queue.
    """

    timing: Timing[Any]
    draw: Draw
    random: Random
    at_once: int = 24
    rate: float = 1e6
    status: Callable[[SimulatedTask, float], TaskStatus] = lambda task, age: RUNNING  # noqa: ARG005 # both are passed
    now: float = field(default=0.0, init=False)
    polls: int = field(default=0, init=False)
    queue: PollQueue[SimulatedTask] = field(init=False)
    _begun: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        limits = Limits(polls_per_second=self.rate, max_polls_in_flight=10_000, max_connections=10_001)
        self.queue = PollQueue(limits, self.timing)
        for _ in range(self.at_once):
            self._begin()

    def run(self, completions: int) -> list[TaskPolls]:
        """Run until so many more tasks were detected as completed."""
        completed: list[TaskPolls] = []
        while len(completed) < completions:
            self.now = max(self.now, self.queue.wake_at())
            for task in self.queue.pop_all_due(self.now):
                self.polls += 1
                task.polls += 1
                self.queue.poll_done(task)
                age = self.now - task.since
                is_done = age >= task.takes
                status = DONE if is_done else self.status(task, age)
                self.queue.status_received(task, status, self.now, self.random.random())
                if is_done:
                    completed.append(TaskPolls(task.polls, age - task.takes, task.since + task.takes))
                    self._begin()
        return completed

    def _begin(self) -> None:
        self._begun += 1
        task = SimulatedTask(str(self._begun), self.now, takes=self.draw(self.random))
        self.queue.add(task, self.now, self.random.random())


def summarize(tasks: Sequence[TaskPolls]) -> tuple[float, float]:
    """Return the mean delay, in units of `MEDIAN`, and the mean number of polls."""
    return mean(task.delay for task in tasks) / MEDIAN, mean(task.polls for task in tasks)


def compute_optimum(times: ServiceTimes, poll_cost: float) -> tuple[float, float]:
    """Return mean delay and polls of the optimal schedule where a poll costs so many seconds (dynamic programming)."""
    distribution, ages = _compute_schedule(times, poll_cost)
    delay = polls = 0.0
    for age, following in pairwise(ages):
        alive = 1 - distribution.cumulative(age)[0]
        polls += alive
        delay += alive * distribution.expected_delay(age, following)
    return delay / MEDIAN, polls


def compute_best_ages(times: ServiceTimes, polls: float) -> list[float]:
    """Return the ages, in units of `MEDIAN`, of the polls of the optimal schedule with this mean number of polls."""
    _, poll_cost = _bisect_poll_cost(lambda cost: compute_optimum(times, cost)[1] > polls)
    return compute_ages_at(times, poll_cost)


def compute_ages_at(times: ServiceTimes, poll_cost: float) -> list[float]:
    """Return the ages, in units of `MEDIAN`, at which the optimal schedule for a cost of a poll polls."""
    return [age / MEDIAN for age in _compute_schedule(times, poll_cost)[1][1:]]


def _bisect_poll_cost(is_too_low: Callable[[float], bool]) -> tuple[float, float]:
    """Return two adjacent costs of a poll, in seconds: one that is too low, and one that is not."""
    low, high = 1e-5 * MEDIAN, 10 * MEDIAN
    for _ in range(40):
        middle = math.sqrt(low * high)
        if is_too_low(middle):
            low = middle
        else:
            high = middle
    return low, high


def _compute_schedule(times: ServiceTimes, poll_cost: float) -> tuple[LifetimeDistribution, list[float]]:
    """Return the distribution on a fine grid, and the ages at which the optimal schedule polls, from 0 on."""
    ages = [0.0]
    while ages[-1] < 40 * MEDIAN:
        ages.append(ages[-1] + max(0.004 * MEDIAN, 0.004 * ages[-1]))
    ended = [times.ended(age) for age in ages]
    distribution = LifetimeDistribution.from_shares(ages, [after - before for before, after in pairwise(ended)])
    schedule = optimal_schedule(distribution, poll_cost)
    poll_ages = [0.0]
    while poll_ages[-1] < ages[-1]:
        poll_ages.append(schedule.next_poll(poll_ages[-1]))
    return distribution, poll_ages


def compute_optimum_at(times: ServiceTimes, delay: float) -> tuple[float, float]:
    """Return the polls of the optimal schedule with this mean delay, and the cost of a poll there.

    Between two schedules that are both optimal at one cost, a mixture of them has any delay between theirs.
    """
    low, high = _bisect_poll_cost(lambda cost: compute_optimum(times, cost)[0] <= delay)
    (less_delay, most_polls), (more_delay, least_polls) = compute_optimum(times, low), compute_optimum(times, high)
    part = 0.0 if more_delay <= less_delay else (delay - less_delay) / (more_delay - less_delay)
    return most_polls + part * (least_polls - most_polls), low
