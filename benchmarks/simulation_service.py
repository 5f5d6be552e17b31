"""A service with a virtual clock: how long its tasks take, and what a session's poll loop makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random
from statistics import mean
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field, frozen

from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.inspection import Curve, best_plan
from kontext_async.decisions.polling.queue import IntervalTiming, PollQueue, Timing
from kontext_async.models import TaskState, TaskStatus
from kontext_async.settings import Limits, Polling

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MEDIAN",
    "RUNNING",
    "SHAPES",
    "EveryInterval",
    "Look",
    "Service",
    "Shape",
    "Task",
    "optimum",
    "optimum_at",
    "summary",
]

MEDIAN = 10.0
"""Seconds that a task takes, in the median: the unit of all delays in the results."""

DONE = TaskStatus(task_id="", state=TaskState.COMPLETED, raw_status="completed")
RUNNING = TaskStatus(task_id="", state=TaskState.IN_PROGRESS, raw_status="in_progress")

Draw: TypeAlias = Callable[[Random], float]


@frozen
class Shape:
    """How the seconds that tasks take are distributed.

    Attributes:
        draw: The seconds of one task.
        ended: The share of tasks that has ended by an age, in seconds.
    """

    draw: Draw
    ended: Callable[[float], float]


def lognormal(sigma: float, median: float = MEDIAN) -> Shape:
    """The logarithm is normal, with this standard deviation."""
    return Shape(
        lambda random: median * math.exp(random.gauss(0, sigma)),
        lambda age: 0.5 * math.erfc(-math.log(age / median) / sigma / math.sqrt(2)) if age > 0 else 0.0,
    )


def _gamma_4() -> Shape:
    scale = MEDIAN / 3.672060748850897  # the median of a gamma distribution of shape 4
    return Shape(
        lambda random: random.gammavariate(4, scale),
        lambda age: 1 - math.exp(-age / scale) * sum((age / scale) ** k / math.factorial(k) for k in range(4)),
    )


def _bimodal() -> Shape:
    fast = MEDIAN / 1.0886  # 0.7 of the tasks around it, so that the median of all is MEDIAN
    humps = lognormal(0.15, fast), lognormal(0.15, 6 * fast)
    return Shape(
        lambda random: humps[random.random() < 0.3].draw(random),
        lambda age: 0.7 * humps[0].ended(age) + 0.3 * humps[1].ended(age),
    )


SHAPES = {
    "lognormal 0.25": lognormal(0.25),
    "lognormal 0.5": lognormal(0.5),
    "lognormal 1": lognormal(1.0),
    "gamma 4": _gamma_4(),
    "bimodal": _bimodal(),
}
"""By name. The number of a lognormal one is the standard deviation of the logarithm."""


@frozen
class Look:
    """What the asks about one task came to.

    Attributes:
        asks: How many there were.
        delay: Seconds from the task's end to the ask that saw it.
        ended: When the task ended.
    """

    asks: int
    delay: float
    ended: float


@define(eq=False)
class Task(PollEntry):
    """A task that knows how long it takes."""

    takes: float = 0.0
    asks: int = 0


class EveryInterval(IntervalTiming):
    """The first ask after one interval too, and longer intervals without a bound: for comparison."""

    def __init__(self, interval: float, factor: float = 1.0) -> None:
        super().__init__(Polling(initial_delay=interval, interval=interval, min_interval=1e-3, max_interval=1e9))
        self.factor = factor

    def again(self, task: PollEntry, progress: float | None, now: float, random: float) -> float:  # noqa: ARG002 # Timing's
        assert isinstance(task, Task)
        return now + self._jittered(self.polling.interval * self.factor**task.asks, random)


@define
class Service:
    """Tasks in a closed circle: for each that is seen finished, another begins.

    Attributes:
        timing: When to ask.
        draw: The seconds that a task takes; may look at `now`.
        random: All chance.
        at_once: InProgress tasks.
        rate: Asks per second, at most.
        status: What is answered about a task of an age that is not finished.
    """

    timing: Timing[Any]
    draw: Draw
    random: Random
    at_once: int = 24
    rate: float = 1e6
    status: Callable[[Task, float], TaskStatus] = lambda task, age: RUNNING  # noqa: ARG005 # both are passed
    now: float = field(default=0.0, init=False)
    asks: int = field(default=0, init=False)
    queue: PollQueue[Task] = field(init=False)
    _begun: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        limits = Limits(polls_per_second=self.rate, max_polls_in_flight=10_000, max_connections=10_001)
        self.queue = PollQueue(limits, self.timing)
        for _ in range(self.at_once):
            self._begin()

    def run(self, finishes: int) -> list[Look]:
        """Go on until so many more tasks were seen finished."""
        looks: list[Look] = []
        while len(looks) < finishes:
            self.now = max(self.now, self.queue.wake_at())
            for task in self.queue.pop_all_due(self.now):
                self.asks += 1
                task.asks += 1
                self.queue.poll_done(task)
                age = self.now - task.since
                finished = age >= task.takes
                status = DONE if finished else self.status(task, age)
                self.queue.status_received(task, status, self.now, self.random.random())
                if finished:
                    looks.append(Look(task.asks, age - task.takes, task.since + task.takes))
                    self._begin()
        return looks

    def _begin(self) -> None:
        self._begun += 1
        task = Task(str(self._begun), self.now, takes=self.draw(self.random))
        self.queue.add(task, self.now, self.random.random())


def summary(looks: Sequence[Look]) -> tuple[float, float]:
    """The mean delay, in units of `MEDIAN`, and the mean number of asks."""
    return mean(look.delay for look in looks) / MEDIAN, mean(look.asks for look in looks)


def optimum(shape: Shape, worth: float) -> tuple[float, float]:
    """Mean delay and asks of the best schedule of all, where an ask costs `worth` seconds (dynamic programming)."""
    curve, ages = _best(shape, worth)
    delay = asks = 0.0
    for age, following in pairwise(ages):
        alive = 1 - curve.by(age)[0]
        asks += alive
        delay += alive * curve.expected_delay(age, following)
    return delay / MEDIAN, asks


def best_ages(shape: Shape, asks: float) -> list[float]:
    """The ages, in units of `MEDIAN`, at which the best schedule of all asks that makes so many asks in the mean."""
    _, worth = _bisected(lambda worth: optimum(shape, worth)[1] > asks)
    return [age / MEDIAN for age in _best(shape, worth)[1][1:]]


def _bisected(too_little: Callable[[float], bool]) -> tuple[float, float]:
    """Two neighbouring worths of an ask, in seconds: one that is too little, and one that is not."""
    low, high = 1e-5 * MEDIAN, 10 * MEDIAN
    for _ in range(40):
        middle = math.sqrt(low * high)
        if too_little(middle):
            low = middle
        else:
            high = middle
    return low, high


def _best(shape: Shape, worth: float) -> tuple[Curve, list[float]]:
    """The distribution on a fine grid, and the ages at which the best schedule asks, from 0 on."""
    ages = [0.0]
    while ages[-1] < 40 * MEDIAN:
        ages.append(ages[-1] + max(0.004 * MEDIAN, 0.004 * ages[-1]))
    by = [shape.ended(age) for age in ages]
    curve = Curve.of_shares(ages, [after - before for before, after in pairwise(by)])
    plan = best_plan(curve, worth)
    asked = [0.0]
    while asked[-1] < ages[-1]:
        asked.append(plan.after(asked[-1]))
    return curve, asked


def optimum_at(shape: Shape, delay: float) -> tuple[float, float]:
    """Of the best schedules, the asks of that with a mean delay of `delay`, and what an ask is worth there.

    Between two schedules that are both best for one worth, a mixture of them has any delay between theirs.
    """
    low, high = _bisected(lambda worth: optimum(shape, worth)[0] <= delay)
    (few, most), (more, least) = optimum(shape, low), optimum(shape, high)
    part = 0.0 if more <= few else (delay - few) / (more - few)
    return most + part * (least - most), low
