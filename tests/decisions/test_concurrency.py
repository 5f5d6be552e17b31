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


def taken(pacer: AdaptiveLimit, count: int) -> None:
    for _ in range(count):
        pacer.acquire()


def accepted(pacer: AdaptiveLimit, count: int, sent_at: float = 0.0) -> None:
    for _ in range(count):
        pacer.accepted(sent_at)


def refuse(pacer: AdaptiveLimit, sent_at: float, now: float, pause: float = 0.0) -> None:
    pacer.refused(sent_at, now, pause)
    pacer.release(accepted=False)


def test_at_first_the_ceiling_is_the_limit() -> None:
    pacer = AdaptiveLimit(3)
    for _ in range(3):
        assert pacer.can_acquire(0.0)
        pacer.acquire()
    assert not pacer.can_acquire(0.0)
    pacer.release(accepted=False)
    assert pacer.can_acquire(0.0)


def test_a_pause_holds_until_its_end() -> None:
    pacer = AdaptiveLimit(10)
    pacer.acquire()
    refuse(pacer, sent_at=0.0, now=1.0, pause=5.0)
    assert not pacer.can_acquire(5.9)
    assert pacer.can_acquire(6.0)


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    pacer = AdaptiveLimit(10)
    taken(pacer, 2)
    refuse(pacer, sent_at=0.0, now=1.0, pause=5.0)
    refuse(pacer, sent_at=0.0, now=1.0, pause=1.0)
    assert pacer.paused_until == 6.0


def test_a_refusal_leaves_most_of_what_was_accepted() -> None:
    pacer = AdaptiveLimit(100)
    taken(pacer, 6)
    accepted(pacer, 5)
    refuse(pacer, sent_at=0.5, now=1.0)
    assert pacer.limit == DECREASE * 5


def test_the_same_congestion_counts_once() -> None:
    pacer = AdaptiveLimit(100)
    taken(pacer, 50)
    accepted(pacer, 5)
    for _ in range(45):
        refuse(pacer, sent_at=0.0, now=1.0)
    assert pacer.limit == DECREASE * 5


def test_what_was_on_the_wire_at_a_decrease_raises_the_limit_to_what_is_borne() -> None:
    pacer = AdaptiveLimit(100)
    taken(pacer, 60)
    refuse(pacer, sent_at=0.0, now=1.0)
    assert pacer.limit == 1.0
    accepted(pacer, 59)
    assert pacer.limit == DECREASE * 59


def test_a_limit_never_falls_below_one() -> None:
    pacer = AdaptiveLimit(5)
    for now in range(1, 20):
        pacer.acquire()
        refuse(pacer, sent_at=float(now), now=now + 0.5)
    assert pacer.limit == 1.0
    assert pacer.can_acquire(100.0)


@pytest.mark.parametrize(
    ("accepted_in_flight", "refusals"),
    [(1, 1), (8, 1), (9, 2), (26, 2), (27, 3), (80, 3), (81, 4), (243, 5), (729, 6), (5000, 6)],
)
def test_the_more_there_is_to_lose_the_more_refusals_are_needed(accepted_in_flight: int, refusals: int) -> None:
    pacer = AdaptiveLimit(10_000)
    taken(pacer, accepted_in_flight + refusals)
    accepted(pacer, accepted_in_flight)
    for place in range(1, refusals + 1):
        refuse(pacer, sent_at=1.0, now=2.0)
        assert (pacer.limit == 10_000) is (place < refusals)
    assert pacer.limit == max(1.0, DECREASE * accepted_in_flight)


def test_an_accepted_create_at_the_level_of_a_refused_one_speaks_against_a_decrease() -> None:
    pacer = AdaptiveLimit(200)
    taken(pacer, 100)
    accepted(pacer, 100)
    for now in range(1, 50):
        taken(pacer, 2)
        refuse(pacer, sent_at=float(now), now=now + 0.5)
        accepted(pacer, 1, sent_at=float(now))
        pacer.release(accepted=True)
    assert pacer.limit == 200


def test_an_accepted_create_far_below_a_refused_one_says_nothing() -> None:
    pacer = AdaptiveLimit(200)
    taken(pacer, 103)
    accepted(pacer, 100)
    for _ in range(3):
        refuse(pacer, sent_at=1.0, now=1.5)
    for _ in range(20):
        pacer.release(accepted=True)
    pacer.acquire()
    accepted(pacer, 1, sent_at=2.0)
    assert pacer.limit == 200
    pacer.acquire()
    refuse(pacer, sent_at=3.0, now=3.5)
    assert pacer.limit == DECREASE * 81


def test_only_a_limit_that_is_used_grows() -> None:
    pacer = AdaptiveLimit(100)
    taken(pacer, 9)
    accepted(pacer, 8)
    refuse(pacer, sent_at=0.0, now=1.0)
    limit = pacer.limit
    for _ in range(4):
        pacer.release(accepted=True)
    taken(pacer, 1)
    accepted(pacer, 1, sent_at=2.0)
    assert pacer.limit == limit
    taken(pacer, 3)
    accepted(pacer, 1, sent_at=2.0)
    assert pacer.limit > limit


def test_the_increase_is_one_slot_in_the_first_round_and_more_in_later_ones() -> None:
    pacer = AdaptiveLimit(1000)
    taken(pacer, 101)
    accepted(pacer, 100)
    for _ in range(4):
        pacer.refused(1.0, 2.0, 0.0)
    pacer.release(accepted=False)
    while pacer.in_flight > pacer.limit:
        pacer.release(accepted=True)
    limits = [pacer.limit]
    for _ in range(6):
        for _ in range(int(limits[-1])):
            pacer.release(accepted=True)
            while pacer.can_acquire(3.0):
                pacer.acquire()
                pacer.accepted(3.0)
        limits.append(pacer.limit)
    steps = [after - before for before, after in pairwise(limits)]
    assert steps[0] == pytest.approx(1.0, abs=0.1)
    assert steps == sorted(steps)
    assert 3 < steps[-1] < 7


class Pacing(RuleBasedStateMachine):
    """Any order of what can happen to the creates and tasks of a session."""

    @initialize(ceiling=st.integers(1, 300))
    def begin(self, ceiling: int) -> None:
        self.pacer = AdaptiveLimit(ceiling)
        self.now = 0.0
        self.on_wire: list[float] = []
        self.running = 0

    @rule(seconds=st.floats(0, 10))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @rule(most=st.integers(1, 50))
    def submit(self, most: int) -> None:
        for _ in range(most):
            if not self.pacer.can_acquire(self.now):
                break
            assert self.now >= self.pacer.paused_until
            self.pacer.acquire()
            self.on_wire.append(self.now)
            assert self.pacer.in_flight <= int(self.pacer.limit)

    @precondition(lambda self: self.on_wire)
    @rule(data=st.data(), most=st.integers(1, 50))
    def accept(self, data: st.DataObject, most: int) -> None:
        place = data.draw(st.integers(0, len(self.on_wire) - 1))
        for sent_at in self.on_wire[place : place + most]:
            before = self.pacer.limit
            self.pacer.accepted(sent_at)
            assert self.pacer.limit >= before
            self.running += 1
        del self.on_wire[place : place + most]

    @precondition(lambda self: self.on_wire)
    @rule(data=st.data(), most=st.integers(1, 50), pause=st.floats(0, 5))
    def refuse(self, data: st.DataObject, most: int, pause: float) -> None:
        place = data.draw(st.integers(0, len(self.on_wire) - 1))
        for sent_at in self.on_wire[place : place + most]:
            before = self.pacer.limit
            refuse(self.pacer, sent_at, self.now, pause)
            assert self.pacer.limit <= before
        del self.on_wire[place : place + most]
        assert self.pacer.paused_until >= self.now + pause
        assert not self.pacer.can_acquire(self.now) or self.now + pause == self.now

    @precondition(lambda self: self.on_wire)
    @rule()
    def lose(self) -> None:
        self.on_wire.pop()
        self.pacer.release(accepted=False)

    @precondition(lambda self: self.running)
    @rule(most=st.integers(1, 50))
    def finish(self, most: int) -> None:
        for _ in range(min(most, self.running)):
            self.running -= 1
            self.pacer.release(accepted=True)

    @invariant()
    def the_figures_are_consistent(self) -> None:
        pacer = self.pacer
        assert 1 <= pacer.limit <= pacer.ceiling
        assert pacer.accepted_in_flight == self.running >= 0
        assert pacer.in_flight == self.running + len(self.on_wire)
        assert pacer.in_flight <= pacer.ceiling


TestPacing = Pacing.TestCase
TestPacing.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@frozen(kw_only=True)
class Gateway:
    """What a simulated gateway bears. Tasks take 8 s on average, and are seen finished up to 1 s later."""

    capacity: float = math.inf
    later: tuple[float, float] = (math.inf, math.inf)  # from when on the capacity is another
    refused_share: float = 0.0
    creates_per_second: float = math.inf
    latency: tuple[float, float] = (0.05, 0.3)
    retry_after: float | None = None


@define
class Simulation:
    """A session that submits `jobs` requests through a `AdaptiveLimit`, as a discrete-event simulation."""

    gateway: Gateway
    pacer: AdaptiveLimit
    jobs: int
    random: Random = field(factory=lambda: Random(7))  # no secret
    now: float = 0.0
    sent: int = 0
    refused: int = 0
    failed: int = 0
    busy: float = 0.0  # task seconds at the gateway while there was something to submit
    saturated: float = 0.0  # until when there was something to submit
    at_gateway: int = 0
    tokens: float = 1.0
    refilled: float = 0.0
    retries: Retries = field(factory=Retries)
    waiting: deque[int] = field(factory=deque)  # each by the attempts that it has behind it
    returning: deque[int] = field(factory=deque)
    events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(factory=list)
    woken_at: float = -1.0
    places: Iterator[int] = field(factory=count)

    def run(self) -> Simulation:
        self.waiting.extend([0] * self.jobs)
        self.admit()
        while self.events:
            when, _, happens, arguments = heapq.heappop(self.events)
            if self.waiting:
                self.busy += self.at_gateway * (when - self.now)
                self.saturated = when
            self.now = when
            happens(*arguments)
            assert 1 <= self.pacer.limit <= self.pacer.ceiling
            assert 0 <= self.pacer.accepted_in_flight <= self.pacer.in_flight
        assert self.pacer.in_flight == 0, "a slot was lost"
        assert not self.waiting, "a request was forgotten"
        assert not self.returning
        return self

    def utilisation(self, of: float) -> float:
        return self.busy / self.saturated / of

    def after(self, seconds: float, happens: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.places), happens, arguments))

    def admit(self) -> None:
        while (self.returning or self.waiting) and self.pacer.can_acquire(self.now):
            attempts = (self.returning or self.waiting).popleft()
            self.pacer.acquire()
            self.sent += 1
            self.after(self.random.uniform(*self.gateway.latency) / 2, self.arrive, attempts + 1, self.now)
        if (self.returning or self.waiting) and self.now < self.pacer.paused_until != self.woken_at:
            self.woken_at = self.pacer.paused_until
            self.after(self.woken_at - self.now + 1e-9, self.admit)

    def arrive(self, attempt: int, sent_at: float) -> None:
        gateway = self.gateway
        capacity = gateway.later[1] if self.now >= gateway.later[0] else gateway.capacity
        rate = gateway.creates_per_second
        takes = self.at_gateway < capacity and self.random.random() >= gateway.refused_share
        if rate < math.inf:
            self.tokens = min(rate, self.tokens + (self.now - self.refilled) * rate)
            self.refilled = self.now
            takes = takes and self.tokens >= 1
            self.tokens -= takes
        if takes:
            self.at_gateway += 1
            seconds = 8 * self.random.lognormvariate(-0.125, 0.5)
            self.after(seconds, self.end)
            self.after(seconds + self.random.uniform(0, 1), self.seen)
        self.after(self.random.uniform(*gateway.latency) / 2, self.answer, attempt, sent_at, takes)

    def end(self) -> None:
        self.at_gateway -= 1

    def seen(self) -> None:
        self.pacer.release(accepted=True)
        self.admit()

    def answer(self, attempt: int, sent_at: float, takes: bool) -> None:  # noqa: FBT001 # one of three
        if takes:
            self.pacer.accepted(sent_at)
        else:
            self.refused += 1
            named = self.gateway.retry_after
            pause = retry_delay(named, attempt, self.retries, self.random.random())
            refuse(self.pacer, sent_at, self.now, pause)
            if isinstance(decide_retry(AttemptOutcome.THROTTLED, attempt, self.retries, 0.5, named), GiveUp):
                self.failed += 1
            else:
                self.returning.append(attempt)
        self.admit()


def simulated(ceiling: int, jobs: int, **gateway: Any) -> Simulation:
    return Simulation(Gateway(**gateway), AdaptiveLimit(ceiling), jobs).run()


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize(
    ("capacity", "ceiling", "jobs", "least", "refusals"),
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
    capacity: int, ceiling: int, jobs: int, least: float, refusals: int, retry_after: float | None
) -> None:
    run = simulated(ceiling, jobs, capacity=capacity, retry_after=retry_after)
    assert run.utilisation(capacity) >= least
    assert run.refused <= refusals  # of which the first, unavoidable burst is ceiling - capacity
    assert run.failed == 0


def test_a_limit_falls_with_the_capacity() -> None:
    run = simulated(1000, 2500, capacity=100, later=(60.0, 30.0))
    assert run.utilisation(30) >= 0.85
    assert run.failed == 0
    assert run.pacer.limit < 40


def test_a_limit_rises_with_the_capacity() -> None:
    run = simulated(1000, 2500, capacity=30, later=(60.0, 100.0))
    assert run.saturated < 2500 * 8 / 100 * 1.7
    assert run.failed == 0


@pytest.mark.parametrize("latency", [(0.02, 0.05), (0.05, 0.3), (0.5, 3.0)])
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_random_refusals_do_not_bring_hundreds_down(latency: tuple[float, float], retry_after: float | None) -> None:
    run = simulated(300, 5000, refused_share=0.05, latency=latency, retry_after=retry_after)
    assert run.utilisation(300) >= 0.6
    assert run.refused / run.sent < 0.07
    assert run.failed <= 1


def test_random_refusals_beside_a_capacity_do_no_harm() -> None:
    assert simulated(1000, 3000, capacity=100, refused_share=0.05).utilisation(100) >= 0.75


def test_a_rate_limit_on_creates_leaves_a_good_part_of_the_rate() -> None:
    run = simulated(100, 800, creates_per_second=5.0, retry_after=1.0)
    assert run.utilisation(5 * 8) >= 0.55
    assert run.failed <= 8
