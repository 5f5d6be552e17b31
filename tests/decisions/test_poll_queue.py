from __future__ import annotations

import heapq
import math
from itertools import count, pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kontext_async.decisions.polling.entry import Place, PollEntry
from kontext_async.decisions.polling.failures import FailureAction, PollFailure, after_failure
from kontext_async.decisions.polling.queue import JITTER, SLACK, IntervalTiming, PollQueue, RateCap, Timing
from kontext_async.models import TaskState, TaskStatus
from kontext_async.settings import Limits, Polling, Retries

if TYPE_CHECKING:
    from collections.abc import Callable

RUNNING = TaskStatus(task_id="t", state=TaskState.IN_PROGRESS, raw_status="in_progress")
UNKNOWN = TaskStatus(task_id="t", state=TaskState.UNKNOWN, raw_status="queued")
DONE = TaskStatus(task_id="t", state=TaskState.COMPLETED, raw_status="completed")
FAILED = TaskStatus(task_id="t", state=TaskState.FAILED, raw_status="failed")
RETRIES = Retries()

randoms = st.floats(0, 1)


@define
class Exactly:
    """A timing without chance, that keeps account of what it sees."""

    initial_delay: float = 1.0
    interval: float = 2.0
    seen: list[str] = field(factory=list)

    def first(self, task: PollEntry, now: float, random: float) -> float:
        return task.since + self.initial_delay

    def again(self, task: PollEntry, progress: float | None, now: float, random: float) -> float:
        return now + self.interval

    def finished(self, task: PollEntry, status: TaskStatus, now: float) -> None:
        self.seen.append(task.task_id)

    def expected_delay(self, task: PollEntry, now: float) -> float:
        return now - task.due


def queue(timing: Timing[PollEntry] | None = None, **limits: Any) -> PollQueue[PollEntry]:
    return PollQueue(Limits(**limits), timing or Exactly())


def added(to: PollQueue[PollEntry], *task_ids: str, at: float = 0.0) -> list[PollEntry]:
    tasks = [PollEntry(task_id, at) for task_id in task_ids]
    for task in tasks:
        to.add(task, at, 0.5)
    return tasks


def test_an_idle_agenda_wakes_nobody() -> None:
    assert queue().wake_at() == math.inf
    assert queue().pop_all_due(1e9) == []


def test_a_task_is_asked_about_when_it_is_due() -> None:
    plan = queue()
    (task,) = added(plan, "a")
    assert plan.wake_at() == 1.0
    assert plan.pop_all_due(0.999) == []
    assert plan.pop_all_due(1.0) == [task]
    assert (task.place, plan.in_flight) == (Place.IN_FLIGHT, 1)
    assert plan.wake_at() == math.inf
    plan.poll_done(task)
    plan.status_received(task, RUNNING, 1.5, 0.5)
    assert (task.place, plan.in_flight, plan.wake_at()) == (Place.SCHEDULED, 0, 3.5)


def test_those_that_are_due_first_are_asked_about_first() -> None:
    plan = queue(max_polls_in_flight=1)
    late, early = PollEntry("late", 5.0), PollEntry("early", 0.0)
    plan.add(late, 5.0, 0.5)
    plan.add(early, 5.0, 0.5)
    assert plan.pop_all_due(10.0) == [early]


def test_polls_in_flight_are_bounded() -> None:
    plan = queue(max_polls_in_flight=2, polls_per_second=1e6)
    tasks = added(plan, "a", "b", "c")
    assert plan.pop_all_due(1.0) == tasks[:2]
    assert plan.wake_at() == math.inf
    plan.poll_done(tasks[0])
    assert plan.pop_all_due(1.0) == tasks[2:]


def test_a_removed_task_is_not_asked_about() -> None:
    plan = queue()
    one, two = added(plan, "a", "b")
    plan.remove(one)
    assert plan.pop_all_due(5.0) == [two]
    plan.poll_done(two)
    plan.remove(two)
    assert plan.wake_at() == math.inf


def test_a_finished_task_is_learned_from_and_not_asked_about_again() -> None:
    timing = Exactly()
    plan = queue(timing)
    for status, task in zip((DONE, FAILED), added(plan, "a", "b"), strict=True):
        assert task in plan.pop_all_due(5.0) or task.place is Place.IN_FLIGHT
        plan.poll_done(task)
        plan.status_received(task, status, 5.0, 0.5)
    assert timing.seen == ["a", "b"]
    assert plan.wake_at() == math.inf


def test_an_unknown_state_is_not_finished() -> None:
    plan = queue()
    (task,) = added(plan, "a")
    plan.pop_all_due(1.0)
    plan.poll_done(task)
    plan.status_received(task, UNKNOWN, 1.0, 0.5)
    assert plan.wake_at() == 3.0


def test_nothing_is_asked_before_the_end_of_a_hold() -> None:
    plan = queue()
    (task,) = added(plan, "a")
    plan.pause_until(10.0)
    plan.pause_until(5.0)
    assert plan.wake_at() == 10.0
    assert plan.pop_all_due(9.9) == []
    assert plan.pop_all_due(10.0) == [task]


def test_a_task_in_a_hurry_is_asked_about_now() -> None:
    plan = queue()
    (task,) = added(plan, "a")
    plan.expedite(task, 0.25)
    assert plan.wake_at() == 0.25
    assert plan.pop_all_due(0.25) == [task]
    plan.expedite(task, 0.3)
    assert plan.pop_all_due(1.0) == [], "the old entry is stale, and a task on the wire needs no hurry"
    plan.poll_done(task)
    plan.status_received(task, RUNNING, 2.0, 0.5)
    assert plan.pop_all_due(3.9) == []
    assert plan.pop_all_due(4.0) == [task]


def test_those_in_a_hurry_come_first_and_among_themselves_in_order() -> None:
    plan = queue(max_polls_in_flight=1)
    calm, first, second = added(plan, "a", "b", "c")
    plan.expedite(first, 2.0)
    plan.expedite(second, 2.0)
    order = []
    for now in (2.0, 3.0, 4.0):
        (task,) = plan.pop_all_due(now)
        order.append(task)
        plan.poll_done(task)
    assert order == [first, second, calm]


def test_hurry_never_puts_a_task_off() -> None:
    plan = queue()
    (task,) = added(plan, "a")
    plan.expedite(task, 5.0)
    assert plan.wake_at() == 1.0


def test_a_failed_ask_comes_again_after_a_backoff() -> None:
    plan = queue()
    (task,) = added(plan, "a")
    for failures, wait in ((1, 0.5), (2, 1.0), (3, 2.0)):
        (taken,) = plan.pop_all_due(plan.wake_at())
        now = 100.0 * failures
        plan.poll_done(taken)
        assert after_failure(task, PollFailure.TRANSIENT, now, RETRIES) is FailureAction.POLL_AGAIN
        plan.retry_later(task, now, RETRIES, 1.0)
        assert plan.wake_at() == now + wait


def test_an_answer_forgets_the_failures_before_it() -> None:
    plan = queue()
    (task,) = added(plan, "a")
    plan.pop_all_due(1.0)
    plan.poll_done(task)
    after_failure(task, PollFailure.NOT_FOUND, 1.0, RETRIES)
    plan.status_received(task, RUNNING, 2.0, 0.5)
    assert task.failure_streak is None


# --- the rate cap ------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 500), st.lists(st.floats(0, 0.5), max_size=150))
def test_the_rate_is_kept_in_any_second(rate: float, gaps: list[float]) -> None:
    cap, now = RateCap(rate), 0.0
    taken: list[float] = []
    for gap in gaps:
        now += gap
        while cap.ready_at() <= now and len(taken) < 2000:
            cap.acquire(now)
            taken.append(now)
    for place, begin in enumerate(taken):
        within = sum(1 for at in taken[place:] if at < begin + 1)
        assert within <= rate * (1 + SLACK) + 1 + 1e-6


def test_a_loop_that_wakes_on_time_has_the_whole_rate() -> None:
    cap, now, taken = RateCap(30.0), 0.0, 0
    while now < 10:
        now = max(now, cap.ready_at())
        cap.acquire(now)
        taken += 1
    assert 300 <= taken <= 303


def test_a_loop_that_wakes_a_little_late_does_not_lose_its_rate() -> None:
    cap, now, taken = RateCap(100.0), 0.0, 0
    while now < 10:
        now = max(now, cap.ready_at()) + 0.02
        while cap.ready_at() <= now:
            cap.acquire(now)
            taken += 1
    assert taken >= 0.97 * 1000


def test_a_pause_is_not_saved_up() -> None:
    cap = RateCap(10.0)
    cap.acquire(0.0)
    at_once = 0
    while cap.ready_at() <= 100.0:
        cap.acquire(100.0)
        at_once += 1
    assert at_once == 1


# --- when to ask -------------------------------------------------------------------------------------------------

pollings = st.builds(
    lambda initial_delay, low, factor, interval: Polling(
        initial_delay=initial_delay, min_interval=low, max_interval=low * factor, interval=interval
    ),
    st.floats(0, 100),
    st.floats(0.01, 10),
    st.floats(1, 100),
    st.floats(0.001, 1000),
)


@given(pollings, st.floats(0, 1e6), st.floats(0, 1e3), randoms)
def test_the_first_ask_comes_in_its_time(polling: Polling, since: float, late: float, random: float) -> None:
    now = since + late
    due = IntervalTiming(polling).first(PollEntry("t", since), now, random)
    assert due >= now
    assert due == now or since + polling.initial_delay * (1 - JITTER) <= due + 1e-6
    assert due <= max(now, since + polling.initial_delay * (1 + JITTER) + 1e-6)


@given(pollings, st.floats(0, 1e6), randoms)
def test_the_next_ask_comes_in_its_time(polling: Polling, now: float, random: float) -> None:
    due = IntervalTiming(polling).again(PollEntry("t", 0.0), None, now, random)
    interval = min(polling.max_interval, max(polling.min_interval, polling.interval))
    assert now + interval * (1 - JITTER) - 1e-6 <= due <= now + interval * (1 + JITTER) + 1e-6
    assert due > now


def test_jitter_spreads_what_was_created_together() -> None:
    timing = IntervalTiming(Polling(initial_delay=10.0))
    dues = [timing.first(PollEntry("t", 0.0), 0.0, random / 10) for random in range(11)]
    assert [dues[0], dues[5], dues[10]] == pytest.approx([9.0, 10.0, 11.0])
    assert len(set(dues)) == 11


def test_a_fixed_interval_learns_nothing_from_an_end() -> None:
    timing = IntervalTiming(Polling())
    before = timing.again(PollEntry("t", 0.0), None, 5.0, 0.5)
    timing.finished(PollEntry("t", 0.0), DONE, 100.0)
    assert timing.again(PollEntry("t", 0.0), None, 5.0, 0.5) == before


# --- what follows from a failure ---------------------------------------------------------------------------------


def verdicts(*steps: tuple[float, PollFailure], **retries: Any) -> list[FailureAction]:
    task = PollEntry("t", 0.0)
    return [after_failure(task, failure, now, Retries(**retries)) for now, failure in steps]


NOT_FOUND, PASSING, FORBIDDEN = PollFailure.NOT_FOUND, PollFailure.TRANSIENT, PollFailure.FORBIDDEN
AGAIN, FAIL, ALL = FailureAction.POLL_AGAIN, FailureAction.FAIL_TASK, FailureAction.FAIL_ALL


def test_a_refused_key_fails_everything_at_once() -> None:
    assert verdicts((0.0, FORBIDDEN)) == [ALL]


def test_a_404_counts_after_the_grace_period() -> None:
    assert verdicts((5.0, NOT_FOUND), (14.9, NOT_FOUND), (15.0, NOT_FOUND)) == [AGAIN, AGAIN, FAIL]


def test_without_grace_the_first_404_counts() -> None:
    assert verdicts((5.0, NOT_FOUND), not_found_grace=0) == [FAIL]


def test_another_failure_begins_the_grace_period_again() -> None:
    assert verdicts((0.0, NOT_FOUND), (9.0, PASSING), (11.0, NOT_FOUND), (20.9, NOT_FOUND), (21.0, NOT_FOUND)) == [
        AGAIN,
        AGAIN,
        AGAIN,
        AGAIN,
        FAIL,
    ]


def test_passing_failures_count_when_the_budget_is_spent() -> None:
    assert verdicts((7.0, PASSING), (306.9, PASSING), (307.0, PASSING)) == [AGAIN, AGAIN, FAIL]


def test_404s_spend_the_budget_too() -> None:
    steps = [(0.0, PASSING), (295.0, NOT_FOUND), (300.0, NOT_FOUND)]
    assert verdicts(*steps) == [AGAIN, AGAIN, FAIL]


@given(
    st.lists(st.tuples(st.floats(0, 100), st.sampled_from([NOT_FOUND, PASSING])), min_size=1, max_size=20),
    st.floats(0, 200),
    st.floats(1, 200),
)
def test_a_task_fails_exactly_when_grace_or_budget_is_spent(
    steps: list[tuple[float, PollFailure]], grace: float, budget: float
) -> None:
    retries = Retries(not_found_grace=grace, failure_budget=budget)
    task, now, missing = PollEntry("t", 0.0), 0.0, None
    begun = steps[0][0]
    for gap, failure in steps:
        now += gap
        missing = (now if missing is None else missing) if failure is NOT_FOUND else None
        over = now - begun >= budget or (missing is not None and now - missing >= grace)
        assert after_failure(task, failure, now, retries) is (FAIL if over else AGAIN)
    assert task.failures == len(steps)


# --- any order of events -----------------------------------------------------------------------------------------


class Asking(RuleBasedStateMachine):
    """Tasks come, go, are asked about, answered and lost, in any order."""

    @initialize(at_once=st.integers(1, 5), rate=st.floats(0.5, 50))
    def begin(self, at_once: int, rate: float) -> None:
        self.limits = Limits(max_polls_in_flight=at_once, polls_per_second=rate)
        self.polling = Polling(initial_delay=1.0, interval=0.5)
        self.queue: PollQueue[PollEntry] = PollQueue(self.limits, IntervalTiming(self.polling))
        self.now = 0.0
        self.held_until = -math.inf
        self.numbers = count()
        self.tasks: list[PollEntry] = []
        self.on_wire: list[PollEntry] = []
        self.asked_at: list[float] = []

    @rule(seconds=st.floats(0, 5))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @rule(random=randoms, age=st.floats(0, 10), in_a_hurry=st.booleans())
    def follow(self, random: float, age: float, in_a_hurry: bool) -> None:  # noqa: FBT001 # drawn
        task = PollEntry(str(next(self.numbers)), self.now - age)
        self.queue.add(task, self.now, random)
        assert task.due >= task.since + self.polling.initial_delay * (1 - JITTER) - 1e-9
        if in_a_hurry:
            self.queue.expedite(task, self.now)
            assert task.due <= self.now
        self.tasks.append(task)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        self.tasks.remove(task)
        self.queue.remove(task)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def forget_and_follow_again(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        self.queue.remove(task)
        if task not in self.on_wire:
            self.queue.add(task, self.now, 0.5)
        else:
            self.tasks.remove(task)

    @rule(seconds=st.floats(0, 3))
    def pause_until(self, seconds: float) -> None:
        self.queue.pause_until(self.now + seconds)
        self.held_until = max(self.held_until, self.now + seconds)

    @rule()
    def ask(self) -> None:
        due = [task for task in self.tasks if task.place is not Place.IN_FLIGHT and task.due <= self.now]
        taken = self.queue.pop_all_due(self.now)
        assert len({id(task) for task in taken}) == len(taken)
        for task in taken:
            assert task in self.tasks, "a task that was removed is asked about"
            assert task not in self.on_wire, "a task is asked about twice at once"
            assert task in due, "a task is asked about before its time"
            assert task.place is Place.IN_FLIGHT
        assert not taken or self.now >= self.held_until
        self.on_wire += taken
        self.asked_at += [self.now] * len(taken)
        left = [task for task in due if task not in taken]
        assert not left or self.queue.wake_at() > self.now, "something could be asked, and is not"

    @precondition(lambda self: self.on_wire)
    @rule(data=st.data(), random=randoms, status=st.sampled_from([RUNNING, UNKNOWN, DONE]))
    def answer(self, data: st.DataObject, random: float, status: TaskStatus) -> None:
        task = data.draw(st.sampled_from(self.on_wire))
        self.on_wire.remove(task)
        self.queue.poll_done(task)
        if task in self.tasks:
            self.queue.status_received(task, status, self.now, random)
            if status is DONE:
                self.tasks.remove(task)

    @precondition(lambda self: self.on_wire)
    @rule(data=st.data(), random=randoms)
    def lose(self, data: st.DataObject, random: float) -> None:
        task = data.draw(st.sampled_from(self.on_wire))
        self.on_wire.remove(task)
        self.queue.poll_done(task)
        if task in self.tasks:
            after_failure(task, PASSING, self.now, RETRIES)
            self.queue.retry_later(task, self.now, RETRIES, random)
            assert task.due > self.now

    @invariant()
    def polls_in_flight_are_bounded(self) -> None:
        assert self.queue.in_flight == len(self.on_wire) <= self.limits.max_polls_in_flight

    @invariant()
    def no_wake_up_is_lost(self) -> None:
        waiting = [task.due for task in self.tasks if task.place is not Place.IN_FLIGHT]
        wake_at = self.queue.wake_at()
        if not waiting or self.queue.in_flight >= self.limits.max_polls_in_flight:
            assert wake_at == math.inf
        else:
            last = self.asked_at[-1] if self.asked_at else -math.inf
            longest = last + (len(self.asked_at) + 1) / self.limits.polls_per_second
            assert min(waiting) <= wake_at <= max(min(waiting), self.held_until, longest, self.now)

    @invariant()
    def the_rate_is_kept(self) -> None:
        recent = [at for at in self.asked_at if at > self.now - 1]
        assert len(recent) <= self.limits.polls_per_second * (1 + SLACK) + 1 + 1e-6

    def teardown(self) -> None:
        """Whatever happened, everything that is followed is asked about in the end."""
        if not hasattr(self, "queue"):
            return
        for task in tuple(self.on_wire):
            self.on_wire.remove(task)
            self.queue.poll_done(task)
            if task in self.tasks:
                self.queue.status_received(task, RUNNING, self.now, 0.5)
        left = {id(task) for task in self.tasks}
        for _ in range(20 * len(left) + 20):
            if not left:
                break
            self.now = max(self.now, self.queue.wake_at())
            assert self.now < math.inf, "a task is never asked about"
            for task in self.queue.pop_all_due(self.now):
                left.discard(id(task))
                self.queue.poll_done(task)
                self.queue.status_received(task, RUNNING, self.now, 0.5)
        assert not left


TestAsking = Asking.TestCase
TestAsking.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


# --- a whole session, with a clock that is turned by hand --------------------------------------------------------


@define
class Simulation:
    """A poll loop over many tasks, each of which ends at a time of its own. Sleeps exactly until `wake_at`."""

    queue: PollQueue[PollEntry]
    ends: dict[str, float]
    random: Random
    now: float = 0.0
    asks: list[tuple[float, str]] = field(factory=list)
    seen: dict[str, float] = field(factory=dict)
    most_at_once: int = 0
    events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(factory=list)
    numbers: Any = field(factory=count)

    def at(self, when: float, happens: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), happens, arguments))

    def run(self) -> Simulation:
        while self.events or self.queue.wake_at() < math.inf:
            wake_at = self.queue.wake_at()
            if self.events and self.events[0][0] <= wake_at:
                self.now, _, happens, arguments = heapq.heappop(self.events)
                happens(*arguments)
            else:
                self.now = max(self.now, wake_at)
            for task in self.queue.pop_all_due(self.now):
                self.asks.append((self.now, task.task_id))
                self.at(self.now + self.random.uniform(0.01, 0.4), self.answer, task)
            self.most_at_once = max(self.most_at_once, self.queue.in_flight)
        return self

    def add(self, task: PollEntry) -> None:
        self.queue.add(task, self.now, self.random.random())

    def answer(self, task: PollEntry) -> None:
        self.queue.poll_done(task)
        done = self.now >= self.ends[task.task_id]
        if done:
            self.seen[task.task_id] = self.now
        self.queue.status_received(task, DONE if done else RUNNING, self.now, self.random.random())


@pytest.mark.parametrize(("at_once", "rate"), [(32, 30.0), (4, 30.0), (32, 5.0), (1, 2.0)])
def test_many_tasks_share_one_loop_within_its_bounds(at_once: int, rate: float) -> None:
    random = Random(3)  # no secret
    limits = Limits(max_polls_in_flight=at_once, polls_per_second=rate)
    ends = {str(number): number * 0.05 + 8 * random.lognormvariate(0, 0.5) for number in range(150)}
    run = Simulation(PollQueue(limits, IntervalTiming(Polling())), ends, random)
    for number in range(150):
        run.at(number * 0.05, run.add, PollEntry(str(number), number * 0.05))
    run.run()
    assert run.seen.keys() == ends.keys()
    assert run.most_at_once <= at_once
    times = [at for at, _ in run.asks]
    for place, begin in enumerate(times):
        assert sum(1 for at in times[place : place + 100] if at < begin + 1) <= rate * (1 + SLACK) + 1
    by_task: dict[str, list[float]] = {}
    for at, task_id in run.asks:
        by_task.setdefault(task_id, []).append(at)
    assert all(after - before >= 0.9 for asks in by_task.values() for before, after in pairwise(asks))
    assert all(asks[0] >= int(task_id) * 0.05 + 0.9 for task_id, asks in by_task.items())


def test_where_the_rate_allows_it_an_end_is_seen_within_an_interval() -> None:
    random = Random(3)  # no secret
    ends = {str(number): 3 + 5 * random.random() for number in range(20)}
    run = Simulation(PollQueue(Limits(), IntervalTiming(Polling())), ends, random)
    for number in range(20):
        run.at(0.0, run.add, PollEntry(str(number), 0.0))
    run.run()
    assert all(run.seen[task_id] - end <= 1 * (1 + JITTER) + 2 * 0.4 + 0.7 for task_id, end in ends.items())
