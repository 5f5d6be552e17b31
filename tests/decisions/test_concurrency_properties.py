"""The limit in any order of events."""

from __future__ import annotations

import math

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kontext_async.decisions.concurrency import MAX_SECONDS, AdaptiveLimit


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
            self.limiter.acquire(self.now)
            self.requests_out.append(self.now)
            assert self.limiter.in_flight <= self.limiter.limit

    @precondition(lambda self: self.requests_out)
    @rule(data=st.data(), most=st.integers(1, 50))
    def accept(self, data: st.DataObject, most: int) -> None:
        place = data.draw(st.integers(0, len(self.requests_out) - 1))
        for sent_at in self.requests_out[place : place + most]:
            before = self.limiter.limit
            self.limiter.record_accepted(sent_at, self.now)
            assert self.limiter.limit >= before
            self.running += 1
        del self.requests_out[place : place + most]

    @precondition(lambda self: self.requests_out)
    @rule(data=st.data(), most=st.integers(1, 50), retry_after=st.none() | st.floats(0, 5), random=st.floats(0, 1))
    def throttle(self, data: st.DataObject, most: int, retry_after: float | None, random: float) -> None:
        place = data.draw(st.integers(0, len(self.requests_out) - 1))
        for sent_at in self.requests_out[place : place + most]:
            before = self.limiter.limit
            pause = self.limiter.record_throttled(sent_at, self.now, retry_after, random)
            self.limiter.release(accepted=False)
            assert self.limiter.limit <= before
            assert pause >= (retry_after or 0.0)
            assert self.limiter.paused_until >= self.now + pause
            assert not self.limiter.can_acquire(self.now) or self.now + pause == self.now
        del self.requests_out[place : place + most]

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
        chance = limiter.next_chance(self.now)
        if self.now >= limiter.paused_until:
            assert chance == math.inf or limiter.can_acquire(max(self.now, chance))

    @invariant()
    def a_request_is_admitted_some_time_below_the_ceiling_although_no_task_ends(self) -> None:
        limiter = self.limiter
        if not self.requests_out and limiter.in_flight <= limiter.limit < limiter.ceiling:
            assert limiter.can_acquire(max(self.now, limiter.paused_until) + 2 * MAX_SECONDS)


TestAdaptiveLimitMachine = AdaptiveLimitMachine.TestCase
TestAdaptiveLimitMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
