from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import count, pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field, frozen
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kontext_async.decisions.concurrency import DECREASE, AdaptiveLimit
from kontext_async.decisions.resend import AttemptOutcome, GiveUp, decide_retry, retry_delay
from kontext_async.settings import Retries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def acquire(limiter: AdaptiveLimit, count: int) -> None:
    for _ in range(count):
        limiter.acquire()


def accept(limiter: AdaptiveLimit, count: int, sent_at: float = 0.0) -> None:
    for _ in range(count):
        limiter.record_accepted(sent_at)


def throttle(limiter: AdaptiveLimit, sent_at: float, now: float, pause: float = 0.0) -> None:
    limiter.record_throttled(sent_at, now, pause)
    limiter.release(accepted=False)


def test_the_limit_starts_at_the_ceiling() -> None:
    limiter = AdaptiveLimit(3)
    for _ in range(3):
        assert limiter.can_acquire(0.0)
        limiter.acquire()
    assert not limiter.can_acquire(0.0)
    limiter.release(accepted=False)
    assert limiter.can_acquire(0.0)


def test_no_slot_is_available_before_the_end_of_a_pause() -> None:
    limiter = AdaptiveLimit(10)
    limiter.acquire()
    throttle(limiter, sent_at=0.0, now=1.0, pause=5.0)
    assert not limiter.can_acquire(5.9)
    assert limiter.can_acquire(6.0)


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    limiter = AdaptiveLimit(10)
    acquire(limiter, 2)
    throttle(limiter, sent_at=0.0, now=1.0, pause=5.0)
    throttle(limiter, sent_at=0.0, now=1.0, pause=1.0)
    assert limiter.paused_until == 6.0


def test_a_decrease_leaves_most_of_the_accepted_tasks() -> None:
    limiter = AdaptiveLimit(100)
    acquire(limiter, 6)
    accept(limiter, 5)
    throttle(limiter, sent_at=0.5, now=1.0)
    assert limiter.limit == DECREASE * 5


def test_the_same_congestion_leads_to_one_decrease() -> None:
    limiter = AdaptiveLimit(100)
    acquire(limiter, 50)
    accept(limiter, 5)
    for _ in range(45):
        throttle(limiter, sent_at=0.0, now=1.0)
    assert limiter.limit == DECREASE * 5


def test_requests_in_flight_at_a_decrease_raise_the_limit_when_they_are_accepted() -> None:
    limiter = AdaptiveLimit(100)
    acquire(limiter, 60)
    throttle(limiter, sent_at=0.0, now=1.0)
    assert limiter.limit == 1.0
    accept(limiter, 59)
    assert limiter.limit == DECREASE * 59


def test_the_limit_never_falls_below_one() -> None:
    limiter = AdaptiveLimit(5)
    for now in range(1, 20):
        limiter.acquire()
        throttle(limiter, sent_at=float(now), now=now + 0.5)
    assert limiter.limit == 1.0
    assert limiter.can_acquire(100.0)


@pytest.mark.parametrize(
    ("accepted_in_flight", "throttled"),
    [(1, 1), (8, 1), (9, 2), (26, 2), (27, 3), (80, 3), (81, 4), (243, 5), (729, 6), (5000, 6)],
)
def test_a_decrease_at_a_higher_level_needs_more_throttled_requests(accepted_in_flight: int, throttled: int) -> None:
    limiter = AdaptiveLimit(10_000)
    acquire(limiter, accepted_in_flight + throttled)
    accept(limiter, accepted_in_flight)
    for place in range(1, throttled + 1):
        throttle(limiter, sent_at=1.0, now=2.0)
        assert (limiter.limit == 10_000) is (place < throttled)
    assert limiter.limit == max(1.0, DECREASE * accepted_in_flight)


def test_an_accepted_request_at_the_level_of_a_throttled_one_prevents_a_decrease() -> None:
    limiter = AdaptiveLimit(200)
    acquire(limiter, 100)
    accept(limiter, 100)
    for now in range(1, 50):
        acquire(limiter, 2)
        throttle(limiter, sent_at=float(now), now=now + 0.5)
        accept(limiter, 1, sent_at=float(now))
        limiter.release(accepted=True)
    assert limiter.limit == 200


def test_an_accepted_request_far_below_a_throttled_one_does_not_prevent_a_decrease() -> None:
    limiter = AdaptiveLimit(200)
    acquire(limiter, 103)
    accept(limiter, 100)
    for _ in range(3):
        throttle(limiter, sent_at=1.0, now=1.5)
    for _ in range(20):
        limiter.release(accepted=True)
    limiter.acquire()
    accept(limiter, 1, sent_at=2.0)
    assert limiter.limit == 200
    limiter.acquire()
    throttle(limiter, sent_at=3.0, now=3.5)
    assert limiter.limit == DECREASE * 81


def test_the_limit_grows_only_while_all_of_it_is_used() -> None:
    limiter = AdaptiveLimit(100)
    acquire(limiter, 9)
    accept(limiter, 8)
    throttle(limiter, sent_at=0.0, now=1.0)
    limit = limiter.limit
    for _ in range(4):
        limiter.release(accepted=True)
    acquire(limiter, 1)
    accept(limiter, 1, sent_at=2.0)
    assert limiter.limit == limit
    acquire(limiter, 3)
    accept(limiter, 1, sent_at=2.0)
    assert limiter.limit > limit


def test_the_limit_grows_by_one_slot_in_the_first_round_and_by_more_in_later_ones() -> None:
    limiter = AdaptiveLimit(1000)
    acquire(limiter, 101)
    accept(limiter, 100)
    for _ in range(4):
        limiter.record_throttled(1.0, 2.0, 0.0)
    limiter.release(accepted=False)
    while limiter.in_flight > limiter.limit:
        limiter.release(accepted=True)
    limits = [limiter.limit]
    for _ in range(6):
        for _ in range(int(limits[-1])):
            limiter.release(accepted=True)
            while limiter.can_acquire(3.0):
                limiter.acquire()
                limiter.record_accepted(3.0)
        limits.append(limiter.limit)
    steps = [after - before for before, after in pairwise(limits)]
    assert steps[0] == pytest.approx(1.0, abs=0.1)
    assert steps == sorted(steps)
    assert 3 < steps[-1] < 7


class TestCeiling:
    def test_without_a_decrease_the_limit_is_the_ceiling(self) -> None:
        limiter = AdaptiveLimit(24)
        for ceiling in (100, 7, 24):
            limiter.ceiling = ceiling
            assert limiter.limit == ceiling

    def test_a_higher_ceiling_keeps_the_limit_that_a_decrease_left(self) -> None:
        limiter = AdaptiveLimit(100)
        acquire(limiter, 6)
        accept(limiter, 5)
        throttle(limiter, sent_at=0.5, now=1.0)
        for ceiling in (500, 2, 1000):
            limiter.ceiling = ceiling
            assert limiter.limit == min(ceiling, DECREASE * 5)

    def test_a_decrease_above_a_lower_ceiling_starts_from_the_accepted_tasks(self) -> None:
        limiter = AdaptiveLimit(100)
        acquire(limiter, 84)
        accept(limiter, 80)
        limiter.ceiling = 10
        for _ in range(3):
            throttle(limiter, sent_at=0.5, now=1.0)
        assert limiter.limit == 10
        limiter.ceiling = 100
        assert limiter.limit == DECREASE * 80

    def test_a_limit_that_grew_back_to_the_ceiling_follows_a_higher_one_at_once(self) -> None:
        limiter = AdaptiveLimit(10)
        acquire(limiter, 9)
        accept(limiter, 8)
        throttle(limiter, sent_at=0.0, now=1.0)
        while limiter.limit < 10:
            while limiter.in_flight < int(limiter.limit):
                limiter.acquire()
            accept(limiter, 1, sent_at=2.0)
            limiter.release(accepted=True)
        limiter.ceiling = 50
        assert limiter.limit == 50


class AdaptiveLimitMachine(RuleBasedStateMachine):
    """The create requests and tasks of a session, in any order of events."""

    @initialize(ceiling=st.integers(1, 300))
    def begin(self, ceiling: int) -> None:
        self.limiter = AdaptiveLimit(ceiling)
        self.highest = ceiling
        self.now = 0.0
        self.requests_out: list[float] = []
        self.running = 0

    @rule(seconds=st.floats(0, 10))
    def advance_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(ceiling=st.integers(1, 300))
    def change_the_ceiling(self, ceiling: int) -> None:
        before = self.limiter.limit
        raised = ceiling >= self.limiter.ceiling
        self.limiter.ceiling = ceiling
        self.highest = max(self.highest, ceiling)
        assert self.limiter.limit >= before if raised else self.limiter.limit == min(before, ceiling)

    @rule(most=st.integers(1, 50))
    def submit(self, most: int) -> None:
        for _ in range(most):
            if not self.limiter.can_acquire(self.now):
                break
            assert self.now >= self.limiter.paused_until
            self.limiter.acquire()
            self.requests_out.append(self.now)
            assert self.limiter.in_flight <= int(self.limiter.limit)

    @precondition(lambda self: self.requests_out)
    @rule(data=st.data(), most=st.integers(1, 50))
    def accept(self, data: st.DataObject, most: int) -> None:
        place = data.draw(st.integers(0, len(self.requests_out) - 1))
        for sent_at in self.requests_out[place : place + most]:
            before = self.limiter.limit
            self.limiter.record_accepted(sent_at)
            assert self.limiter.limit >= before
            self.running += 1
        del self.requests_out[place : place + most]

    @precondition(lambda self: self.requests_out)
    @rule(data=st.data(), most=st.integers(1, 50), pause=st.floats(0, 5))
    def throttle(self, data: st.DataObject, most: int, pause: float) -> None:
        place = data.draw(st.integers(0, len(self.requests_out) - 1))
        for sent_at in self.requests_out[place : place + most]:
            before = self.limiter.limit
            throttle(self.limiter, sent_at, self.now, pause)
            assert self.limiter.limit <= before
        del self.requests_out[place : place + most]
        assert self.limiter.paused_until >= self.now + pause
        assert not self.limiter.can_acquire(self.now) or self.now + pause == self.now

    @precondition(lambda self: self.requests_out)
    @rule()
    def lose(self) -> None:
        self.requests_out.pop()
        self.limiter.release(accepted=False)

    @precondition(lambda self: self.running)
    @rule(most=st.integers(1, 50))
    def end_tasks(self, most: int) -> None:
        for _ in range(min(most, self.running)):
            self.running -= 1
            self.limiter.release(accepted=True)

    @invariant()
    def the_counts_are_consistent(self) -> None:
        limiter = self.limiter
        assert 1 <= limiter.limit <= limiter.ceiling
        assert limiter.accepted_in_flight == self.running >= 0
        assert limiter.in_flight == self.running + len(self.requests_out)
        assert limiter.in_flight <= self.highest


TestAdaptiveLimitMachine = AdaptiveLimitMachine.TestCase
TestAdaptiveLimitMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@frozen(kw_only=True)
class Gateway:
    """The capacity of a simulated gateway. Tasks take 8 s on average, and their ends are detected up to 1 s later."""

    capacity: float = math.inf
    later: tuple[float, float] = (math.inf, math.inf)  # the time from which the capacity differs, and that capacity
    ceilings: tuple[tuple[float, int], ...] = ()  # the times at which the session's ceiling changes, and to what
    throttled_share: float = 0.0
    creates_per_second: float = math.inf
    latency: tuple[float, float] = (0.05, 0.3)
    retry_after: float | None = None


@define
class Simulation:
    """A discrete-event simulation of a session that submits `jobs` requests through an `AdaptiveLimit`."""

    gateway: Gateway
    limiter: AdaptiveLimit
    jobs: int
    random: Random = field(factory=lambda: Random(7))  # no secret
    now: float = 0.0
    sent: int = 0
    throttled: int = 0
    failed: int = 0
    busy: float = 0.0  # task seconds at the gateway while requests were waiting
    saturated: float = 0.0  # the time until which requests were waiting
    at_gateway: int = 0
    tokens: float = 1.0
    refilled: float = 0.0
    retries: Retries = field(factory=Retries)
    waiting: deque[int] = field(factory=deque)  # each by its number of attempts so far
    returning: deque[int] = field(factory=deque)
    events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(factory=list)
    woken_at: float = -1.0
    numbers: Iterator[int] = field(factory=count)

    def run(self) -> Simulation:
        self.waiting.extend([0] * self.jobs)
        for when, ceiling in self.gateway.ceilings:
            self.call_after(when, self.change_ceiling, ceiling)
        self.admit()
        while self.events:
            when, _, callback, arguments = heapq.heappop(self.events)
            if self.waiting:
                self.busy += self.at_gateway * (when - self.now)
                self.saturated = when
            self.now = when
            callback(*arguments)
            assert 1 <= self.limiter.limit <= self.limiter.ceiling
            assert 0 <= self.limiter.accepted_in_flight <= self.limiter.in_flight
        assert self.limiter.in_flight == 0, "a slot was not released"
        assert not self.waiting, "a request was not submitted"
        assert not self.returning
        return self

    def utilization(self, of: float) -> float:
        return self.busy / self.saturated / of

    def call_after(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), callback, arguments))

    def admit(self) -> None:
        while (self.returning or self.waiting) and self.limiter.can_acquire(self.now):
            attempts = (self.returning or self.waiting).popleft()
            self.limiter.acquire()
            self.sent += 1
            self.call_after(self.random.uniform(*self.gateway.latency) / 2, self.arrive, attempts + 1, self.now)
        if (self.returning or self.waiting) and self.now < self.limiter.paused_until != self.woken_at:
            self.woken_at = self.limiter.paused_until
            self.call_after(self.woken_at - self.now + 1e-9, self.admit)

    def arrive(self, attempt: int, sent_at: float) -> None:
        gateway = self.gateway
        capacity = gateway.later[1] if self.now >= gateway.later[0] else gateway.capacity
        rate = gateway.creates_per_second
        accepts = self.at_gateway < capacity and self.random.random() >= gateway.throttled_share
        if rate < math.inf:
            self.tokens = min(rate, self.tokens + (self.now - self.refilled) * rate)
            self.refilled = self.now
            accepts = accepts and self.tokens >= 1
            self.tokens -= accepts
        if accepts:
            self.at_gateway += 1
            seconds = 8 * self.random.lognormvariate(-0.125, 0.5)
            self.call_after(seconds, self.end_task)
            self.call_after(seconds + self.random.uniform(0, 1), self.detect_end)
        self.call_after(self.random.uniform(*gateway.latency) / 2, self.respond, attempt, sent_at, accepts)

    def change_ceiling(self, ceiling: int) -> None:
        self.limiter.ceiling = ceiling
        self.admit()

    def end_task(self) -> None:
        self.at_gateway -= 1

    def detect_end(self) -> None:
        self.limiter.release(accepted=True)
        self.admit()

    def respond(self, attempt: int, sent_at: float, accepts: bool) -> None:  # noqa: FBT001 # one of three
        if accepts:
            self.limiter.record_accepted(sent_at)
        else:
            self.throttled += 1
            retry_after = self.gateway.retry_after
            pause = retry_delay(retry_after, attempt, self.retries, self.random.random())
            throttle(self.limiter, sent_at, self.now, pause)
            if isinstance(decide_retry(AttemptOutcome.THROTTLED, attempt, self.retries, 0.5, retry_after), GiveUp):
                self.failed += 1
            else:
                self.returning.append(attempt)
        self.admit()


def simulate(ceiling: int, jobs: int, **gateway: Any) -> Simulation:
    return Simulation(Gateway(**gateway), AdaptiveLimit(ceiling), jobs).run()


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize(
    ("capacity", "ceiling", "jobs", "utilization", "throttled"),
    [
        (1, 24, 60, 0.85, 60),
        (2, 24, 120, 0.75, 70),
        (5, 24, 300, 0.80, 80),
        (24, 24, 500, 0.88, 0),
        (24, 500, 1000, 0.82, 560),
        (100, 1000, 3000, 0.85, 1050),
        (500, 1000, 5000, 0.84, 600),
    ],
)
def test_the_limit_finds_the_capacity_below_a_high_ceiling(  # a table
    capacity: int, ceiling: int, jobs: int, utilization: float, throttled: int, retry_after: float | None
) -> None:
    run = simulate(ceiling, jobs, capacity=capacity, retry_after=retry_after)
    assert run.utilization(capacity) >= utilization
    assert run.throttled <= throttled  # including the first, unavoidable burst of ceiling - capacity
    assert run.failed == 0


def test_the_limit_falls_with_the_capacity() -> None:
    run = simulate(1000, 2500, capacity=100, later=(60.0, 30.0))
    assert run.utilization(30) >= 0.85
    assert run.failed == 0
    assert run.limiter.limit < 40


def test_the_limit_rises_with_the_capacity() -> None:
    run = simulate(1000, 2500, capacity=30, later=(60.0, 100.0))
    assert run.saturated < 2500 * 8 / 100 * 1.7
    assert run.failed == 0


@pytest.mark.parametrize("latency", [(0.02, 0.05), (0.05, 0.3), (0.5, 3.0)])
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_random_throttling_leaves_most_of_hundreds_of_slots(
    latency: tuple[float, float], retry_after: float | None
) -> None:
    run = simulate(300, 5000, throttled_share=0.05, latency=latency, retry_after=retry_after)
    assert run.utilization(300) >= 0.6
    assert run.throttled / run.sent < 0.07
    assert run.failed <= 1


def test_a_ceiling_above_the_capacity_is_no_reason_to_forget_the_capacity() -> None:
    run = simulate(24, 2500, capacity=100, ceilings=((30.0, 1000), (90.0, 20), (120.0, 1000)))
    steady = simulate(1000, 2500, capacity=100)
    assert run.failed == 0
    assert run.throttled <= 1.2 * steady.throttled + 30, "the second rise starts from what the first one found"


def test_a_ceiling_that_moves_below_the_capacity_is_filled_at_once_and_throttles_nothing() -> None:
    run = simulate(20, 1500, capacity=100, ceilings=((30.0, 90), (60.0, 40), (90.0, 90)))
    assert run.throttled == run.failed == 0
    assert run.saturated < 190, "90 s under 20, 90 and 40, and the other 980 tasks of 8.5 s under 90"


def test_random_throttling_beside_a_capacity_does_no_harm() -> None:
    assert simulate(1000, 3000, capacity=100, throttled_share=0.05).utilization(100) >= 0.75


def test_a_rate_limit_on_create_requests_leaves_a_good_part_of_the_rate() -> None:
    run = simulate(100, 800, creates_per_second=5.0, retry_after=1.0)
    assert run.utilization(5 * 8) >= 0.55
    assert run.failed <= 8
