"""A batch of tasks under slots, simulated with a virtual clock, and the least makespan that any polling can reach.

`SimulatedBatch` runs the real `PollQueue`, timing and `BatchEnd`. `compute_bound` solves a relaxed problem, in which
everything costs less than it can:

- The service times are known by their distribution, and nothing has to be learned. While requests wait for a slot, a
  second of delay of any task costs the batch the same, so the best polls of each task are those of the optimal schedule
  for the distribution (`inspection`), at one cost of a poll that the budget decides.
- Once no request waits, every end is detected at once, by one poll: no rule needs fewer, or sees an end sooner.
- A request takes no time, and the next one is sent in the moment in which an end is detected.

A rule with as many polls would have to be better than optimal in one of these, so none has a shorter makespan on
average.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from statistics import mean
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from benchmarks.servers.schedule import compute_ideal_makespan
from benchmarks.suite.simulation_service import DONE, MEDIAN, RUNNING, SimulatedTask, compute_ages_at, lognormal
from kontext_async.decisions.polling.queue import PollQueue
from kontext_async.settings import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from kontext_async.decisions.polling.batch_end import BatchEnd
    from kontext_async.decisions.polling.timing import Timing

__all__ = ["BatchResult", "SimulatedBatch", "compute_bound"]

SECONDS_PER_CREATE = 0.0005
"""Seconds from one create request to the next, of the client's CPU."""

BISECTIONS = 16


@frozen
class BatchResult:
    """The figures of one batch.

    Attributes:
        makespan: Seconds until the last end was detected.
        polls: Mean number of polls of a task.
        last_delay: Seconds from the last end to its detection.
    """

    makespan: float
    polls: float
    last_delay: float


@define(kw_only=True)
class SimulatedBatch:
    """A batch that ends: the next task begins when one is detected as completed.

    Attributes:
        timing: When to poll.
        service_times: The seconds of each task, in the order of creation.
        in_flight: The most tasks in flight at once.
        random: The source of all random numbers.
        end: The rule for the end of the batch; None polls the last tasks like all others.
        rate: The most polls per second.
        now: Seconds of the virtual clock.
        queue: The session's own queue.
    """

    timing: Timing[Any]
    service_times: Sequence[float]
    in_flight: int
    random: Random
    end: BatchEnd | None
    rate: float = 1500.0
    now: float = field(default=0.0, init=False)
    queue: PollQueue[SimulatedTask] = field(init=False)
    _pending: dict[SimulatedTask, None] = field(factory=dict, init=False)
    _begun: int = field(default=0, init=False)
    _next_create: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        limits = Limits(polls_per_second=self.rate, max_polls_in_flight=10_000, max_connections=10_001)
        self.queue = PollQueue(limits, self.timing)

    def run(self) -> BatchResult:
        """Run to the end of the batch."""
        polls = 0
        last_end = 0.0
        while self._pending or self._more_to_come:
            create_at, poll_at = self._create_at(), max(self.now, self.queue.wake_at())
            self.now = min(create_at, poll_at)
            if create_at <= poll_at:
                self._create()
                continue
            for task in self.queue.pop_all_due(self.now):
                polls += 1
                if self._poll(task):
                    last_end = max(last_end, task.since + task.takes)
        return BatchResult(self.now, polls / len(self.service_times), self.now - last_end)

    @property
    def _more_to_come(self) -> bool:
        return self._begun < len(self.service_times)

    def _create_at(self) -> float:
        has_slot = self._more_to_come and len(self._pending) < self.in_flight
        return max(self.now, self._next_create) if has_slot else math.inf

    def _create(self) -> None:
        self._next_create = self.now + SECONDS_PER_CREATE
        task = SimulatedTask(str(self._begun), self.now, takes=self.service_times[self._begun])
        self._begun += 1
        self._pending[task] = None
        if self.end:
            self.end.record_accepted(len(self._pending))
        self._judge_urgency()
        self.queue.add(task, self.now, self.random.random())

    def _poll(self, task: SimulatedTask) -> bool:
        """Poll a task, and return True if it has ended."""
        self.queue.poll_done(task)
        has_ended = self.now - task.since >= task.takes
        self.queue.status_received(task, DONE if has_ended else RUNNING, self.now, self.random.random())
        if has_ended:
            del self._pending[task]
            self._judge_urgency()
        return has_ended

    def _judge_urgency(self) -> None:
        if self.end is None:
            return
        urgency = self.end.urgency(len(self._pending), more_to_come=self._more_to_come)
        if self.queue.set_urgency(urgency):
            for task in self._pending:
                self.queue.replan(task, self.now, self.random.random())


def compute_bound(
    batches: Sequence[Sequence[float]], in_flight: int, polls: float, *, median: float, sigma: float
) -> float:
    """Return the least mean of makespan / ideal that any polling reaches, without a client's overhead.

    Args:
        batches: The service times of the tasks of each batch, from a lognormal distribution.
        in_flight: The most tasks in flight at once.
        polls: The mean number of polls of a task.
        median: The median of the distribution, in seconds.
        sigma: The standard deviation of its logarithm.
    """
    ideals = [compute_ideal_makespan(times, in_flight) for times in batches]
    low, high = 1e-4 * MEDIAN, 10 * MEDIAN  # what a poll costs, while requests wait
    best = 1.0
    for _ in range(BISECTIONS):
        poll_cost = math.sqrt(low * high)
        ages = [median * age for age in compute_ages_at(lognormal(sigma), poll_cost)]
        runs = [_run_relaxed(times, in_flight, ages) for times in batches]
        best = mean(makespan / ideal for (makespan, _), ideal in zip(runs, ideals, strict=True))
        if mean(polls_used for _, polls_used in runs) > polls:
            low = poll_cost
        else:
            high = poll_cost
    return best


def _run_relaxed(times: Sequence[float], in_flight: int, ages: Sequence[float]) -> tuple[float, float]:
    """Return the makespan and the polls per task of the relaxed problem, where tasks are polled at these ages."""
    seen: list[tuple[float, float, int]] = []  # when an end is detected, when it was, and the polls up to it
    polls = 0
    for seconds in times:
        began = 0.0
        if len(seen) == in_flight:
            began, _, used = heapq.heappop(seen)
            polls += used
        place = bisect_left(ages, seconds)
        heapq.heappush(seen, (began + ages[place], began + seconds, place + 1))
    return max(end for _, end, _ in seen), (polls + len(seen)) / len(times)
