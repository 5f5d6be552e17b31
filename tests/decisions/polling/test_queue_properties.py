"""Properties of the poll queue: under any order of events, and in a whole simulated session."""

from __future__ import annotations

import heapq
import math
from itertools import count, pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from polling_support import DONE, RUNNING, UNKNOWN, WatchedTask

from kontext_async.decisions.polling.entry import Place, PollEntry
from kontext_async.decisions.polling.failures import PollFailure, record_failure
from kontext_async.decisions.polling.queue import PollQueue
from kontext_async.decisions.polling.timing import EARLY, JITTER, IntervalTiming
from kontext_async.decisions.polling.watching import UNWATCHED
from kontext_async.settings import Limits, Polling, Retries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kontext_async.models import TaskStatus

RETRIES = Retries()

randoms = st.floats(0, 1)


class PollQueueMachine(RuleBasedStateMachine):
    """Tasks are added, watched, removed and polled, and polls succeed or fail, in any order."""

    @initialize(max_in_flight=st.integers(1, 5), rate=st.floats(0.5, 50))
    def begin(self, max_in_flight: int, rate: float) -> None:
        self.limits = Limits(max_polls_in_flight=max_in_flight, polls_per_second=rate)
        self.polling = Polling(initial_delay=1.0, interval=0.5)
        self.queue: PollQueue[WatchedTask] = PollQueue(self.limits, IntervalTiming(self.polling), least=0.25)
        self.now = 0.0
        self.paused_until = -math.inf
        self.numbers = count()
        self.tasks: list[WatchedTask] = []
        self.in_flight: list[WatchedTask] = []
        self.polled_at: list[float] = []

    @rule(seconds=st.floats(0, 5))
    def advance_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(random=randoms, age=st.floats(0, 10), urgent=st.booleans())
    def add(self, random: float, age: float, urgent: bool) -> None:  # noqa: FBT001 # drawn
        task = WatchedTask(str(next(self.numbers)), self.now - age)
        self.queue.add(task, self.now, random)
        assert task.due >= task.since + self.polling.initial_delay * (1 - JITTER) - 1e-9
        if urgent:
            self.queue.expedite(task, self.now)
            assert task.due <= self.now
        self.tasks.append(task)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        self.tasks.remove(task)
        self.queue.remove(task)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def remove_and_add_again(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        self.queue.remove(task)
        if task not in self.in_flight:
            self.queue.add(task, self.now, 0.5)
        else:
            self.tasks.remove(task)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), interval=st.floats(0.05, 3))
    def watch(self, data: st.DataObject, interval: float) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        task.interval, before = interval, task.due
        self.queue.watch(task)
        assert task.due <= before

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def stop_watching(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.tasks)).interval = UNWATCHED

    @rule(urgency=st.floats(1, 100), random=randoms)
    def change_urgency(self, urgency: float, random: float) -> None:
        if self.queue.set_urgency(urgency):
            for task in self.tasks:
                before = task.due
                self.queue.replan(task, self.now, random)
                assert task.due <= before

    @rule(seconds=st.floats(0, 3))
    def pause(self, seconds: float) -> None:
        self.queue.pause_until(self.now + seconds)
        self.paused_until = max(self.paused_until, self.now + seconds)

    @rule()
    def poll(self) -> None:
        due = [task for task in self.tasks if task.place is not Place.IN_FLIGHT and task.due <= self.now]
        polled = self.queue.pop_all_due(self.now)
        assert len({id(task) for task in polled}) == len(polled)
        for task in polled:
            assert task in self.tasks, "a task that was removed is polled"
            assert task not in self.in_flight, "a task has two polls in flight"
            assert task in due, "a task is polled before its time"
            assert task.place is Place.IN_FLIGHT
        assert not polled or self.now >= self.paused_until
        self.in_flight += polled
        self.polled_at += [self.now] * len(polled)
        left = [task for task in due if task not in polled]
        assert not left or self.queue.wake_at() > self.now, "a task could be polled, and is not"

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), random=randoms, status=st.sampled_from([RUNNING, UNKNOWN, DONE]))
    def receive_status(self, data: st.DataObject, random: float, status: TaskStatus) -> None:
        task = data.draw(st.sampled_from(self.in_flight))
        self.in_flight.remove(task)
        self.queue.poll_done(task)
        if task in self.tasks:
            self.queue.status_received(task, status, self.now, random)
            if status is DONE:
                self.tasks.remove(task)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), random=randoms)
    def fail(self, data: st.DataObject, random: float) -> None:
        task = data.draw(st.sampled_from(self.in_flight))
        self.in_flight.remove(task)
        self.queue.poll_done(task)
        if task in self.tasks:
            record_failure(task, PollFailure.TRANSIENT, self.now, RETRIES)
            self.queue.retry_later(task, self.now, RETRIES, random)
            assert task.due > self.now

    @invariant()
    def polls_in_flight_are_bounded(self) -> None:
        assert self.queue.in_flight == len(self.in_flight) <= self.limits.max_polls_in_flight

    @invariant()
    def no_wake_up_is_lost(self) -> None:
        waiting = [task.due for task in self.tasks if task.place is not Place.IN_FLIGHT]
        wake_at = self.queue.wake_at()
        if not waiting or self.queue.in_flight >= self.limits.max_polls_in_flight:
            assert wake_at == math.inf
        else:
            last = self.polled_at[-1] if self.polled_at else -math.inf
            longest = last + (len(self.polled_at) + 1) / self.limits.polls_per_second
            assert min(waiting) <= wake_at <= max(min(waiting), self.paused_until, longest, self.now)

    @invariant()
    def the_rate_is_kept(self) -> None:
        recent = [at for at in self.polled_at if at > self.now - 1]
        assert len(recent) <= math.ceil(self.limits.polls_per_second)

    def teardown(self) -> None:
        """Every task that is left is polled eventually."""
        if not hasattr(self, "queue"):
            return
        for task in tuple(self.in_flight):
            self.in_flight.remove(task)
            self.queue.poll_done(task)
            if task in self.tasks:
                self.queue.status_received(task, RUNNING, self.now, 0.5)
        left = {id(task) for task in self.tasks}
        for _ in range(20 * len(left) + 20):
            if not left:
                break
            self.now = max(self.now, self.queue.wake_at())
            assert self.now < math.inf, "a task is never polled"
            for task in self.queue.pop_all_due(self.now):
                left.discard(id(task))
                self.queue.poll_done(task)
                self.queue.status_received(task, RUNNING, self.now, 0.5)
        assert not left


TestPollQueueMachine = PollQueueMachine.TestCase
TestPollQueueMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@define
class SimulatedLoop:
    """A poll loop over many tasks with their own ends. It sleeps exactly until `wake_at`."""

    queue: PollQueue[PollEntry]
    ends: dict[str, float]
    random: Random
    now: float = 0.0
    polls: list[tuple[float, str]] = field(factory=list)
    detected: dict[str, float] = field(factory=dict)
    most_in_flight: int = 0
    events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(factory=list)
    numbers: Iterator[int] = field(factory=count)

    def call_at(self, when: float, callback: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), callback, arguments))

    def run(self) -> SimulatedLoop:
        while self.events or self.queue.wake_at() < math.inf:
            wake_at = self.queue.wake_at()
            if self.events and self.events[0][0] <= wake_at:
                self.now, _, callback, arguments = heapq.heappop(self.events)
                callback(*arguments)
            else:
                self.now = max(self.now, wake_at)
            for task in self.queue.pop_all_due(self.now):
                self.polls.append((self.now, task.task_id))
                self.call_at(self.now + self.random.uniform(0.01, 0.4), self.respond, task)
            self.most_in_flight = max(self.most_in_flight, self.queue.in_flight)
        return self

    def add(self, task: PollEntry) -> None:
        self.queue.add(task, self.now, self.random.random())

    def respond(self, task: PollEntry) -> None:
        self.queue.poll_done(task)
        ended = self.now >= self.ends[task.task_id]
        if ended:
            self.detected[task.task_id] = self.now
        self.queue.status_received(task, DONE if ended else RUNNING, self.now, self.random.random())


@pytest.mark.parametrize(("max_in_flight", "rate"), [(32, 30.0), (4, 30.0), (32, 5.0), (1, 2.0)])
def test_many_tasks_share_one_loop_within_its_bounds(max_in_flight: int, rate: float) -> None:
    random = Random(3)  # no secret
    limits = Limits(max_polls_in_flight=max_in_flight, polls_per_second=rate)
    ends = {str(number): number * 0.05 + 8 * random.lognormvariate(0, 0.5) for number in range(150)}
    loop = SimulatedLoop(PollQueue(limits, IntervalTiming(Polling())), ends, random)
    for number in range(150):
        loop.call_at(number * 0.05, loop.add, PollEntry(str(number), number * 0.05))
    loop.run()
    assert loop.detected.keys() == ends.keys()
    assert loop.most_in_flight <= max_in_flight
    times = [at for at, _ in loop.polls]
    for place, begin in enumerate(times):
        assert sum(1 for at in times[place : place + 100] if at < begin + 1) <= math.ceil(rate)
    by_task: dict[str, list[float]] = {}
    for at, task_id in loop.polls:
        by_task.setdefault(task_id, []).append(at)
    assert all(after - before >= 0.9 * EARLY for polls in by_task.values() for before, after in pairwise(polls))
    assert all(polls[0] >= int(task_id) * 0.05 + 0.9 for task_id, polls in by_task.items())


def test_an_end_is_detected_within_an_interval_where_the_rate_allows_it() -> None:
    random = Random(3)  # no secret
    ends = {str(number): 3 + 5 * random.random() for number in range(20)}
    loop = SimulatedLoop(PollQueue(Limits(), IntervalTiming(Polling())), ends, random)
    for number in range(20):
        loop.call_at(0.0, loop.add, PollEntry(str(number), 0.0))
    loop.run()
    assert all(loop.detected[task_id] - end <= 1 * (1 + JITTER) + 2 * 0.4 + 0.7 for task_id, end in ends.items())
