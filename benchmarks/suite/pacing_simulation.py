"""A discrete-event simulation of sessions that share an account, and know nothing of each other. Pure: a virtual clock.

A session submits create requests through an `AdaptiveLimit`, or through another rule with its methods. The account
accepts them while it has a free slot. A task ends at the gateway, and its session detects that a little later.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeAlias

from attrs import Factory, define, field, frozen

from kontext_async.decisions.concurrency import AdaptiveLimit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Account", "Plan", "Rule", "SimulatedSession", "Simulation", "compute_fairness", "constant", "lognormal"]

ServiceTime: TypeAlias = Callable[[Random], float]
"""Draws the seconds of one task."""


class Rule(Protocol):
    """The methods of `AdaptiveLimit` that a session uses."""

    ceiling: int
    in_flight: int
    accepted_in_flight: int

    @property
    def limit(self) -> float: ...

    def can_acquire(self, now: float) -> bool: ...

    def acquire(self, now: float) -> None: ...

    def next_chance(self, now: float) -> float: ...

    def release(self, *, accepted: bool) -> None: ...

    def record_accepted(self, sent_at: float, now: float) -> None: ...

    def record_throttled(self, sent_at: float, now: float, retry_after: float | None, random: float) -> float: ...


def constant(seconds: float) -> ServiceTime:
    """Return the service time of tasks that all take `seconds`."""
    return lambda _: seconds


def lognormal(mean: float, sigma: float) -> ServiceTime:
    """Return lognormal service times with this mean in seconds, and this standard deviation of their logarithm."""
    return lambda random: mean * random.lognormvariate(-sigma * sigma / 2, sigma)


def compute_fairness(shares: Sequence[float]) -> float:
    """Return Jain's index of the shares: 1 if they are equal, 1 / n if one of n has all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


@frozen(kw_only=True)
class Account:
    """The account at the gateway, and the way to it.

    Attributes:
        service_time: The seconds of a task.
        slots: The most unfinished tasks.
        later: The time from which the account has another number of slots, and that number.
        old_tasks: The tasks that are unfinished at the start, for as long as a task takes.
        throttled_share: The part of the create requests that is throttled at random.
        creates_per_second: The rate limit on create requests, with bursts of as many.
        round_trip: The shortest and the longest round trip of a create request, in seconds.
        detection: The shortest and the longest time from the end of a task to its detection, in seconds.
        retry_after: The ``Retry-After`` of a throttled request, in seconds.
    """

    service_time: ServiceTime
    slots: float = math.inf
    later: tuple[float, float] = (math.inf, math.inf)
    old_tasks: int = 0
    throttled_share: float = 0.0
    creates_per_second: float = math.inf
    round_trip: tuple[float, float] = (0.02, 0.06)
    detection: tuple[float, float] = (0.01, 0.1)
    retry_after: float | None = None


@frozen(kw_only=True)
class Plan:
    """What a session does.

    Attributes:
        jobs: Its requests; infinite if it never runs out of them.
        start: The time at which it submits the first, in seconds; up to `START_SPREAD` is added.
        ceiling: Its ceiling.
        ceilings: The times at which the ceiling changes, and to what.
    """

    jobs: float
    start: float = 0.0
    ceiling: int = 24
    ceilings: tuple[tuple[float, int], ...] = ()


START_SPREAD = 0.05
"""Processes that are started together do not submit in the same instant."""


@define(eq=False)
class SimulatedSession:
    """A session.

    Attributes:
        rule: Its rule.
        random: Its random numbers.
        waiting: The requests that were never sent.
        returning: The requests that were throttled, and are sent before the others.
        sent: The create requests sent.
        throttled: Those that were throttled.
        running: Its tasks that are unfinished at the gateway.
        slot_seconds: Their time within the simulation's window.
        saturated: The time until which requests were waiting.
        busy: The task seconds at the gateway until then.
        ended: The time at which it detected the end of its last task.
        woken_at: The time of its timer.
    """

    rule: Rule
    random: Random
    waiting: float
    returning: int = 0
    sent: int = 0
    throttled: int = 0
    running: int = 0
    slot_seconds: float = 0.0
    saturated: float = 0.0
    busy: float = 0.0
    ended: float = 0.0
    woken_at: float = -1.0


@define(eq=False)
class Simulation:
    """One run.

    Attributes:
        account: The account.
        plans: What each session does.
        seed: Of all random numbers.
        until: The time at which the run ends, in seconds, if it does not end by itself.
        window: The seconds in which slots and create requests are counted.
        create_rule: Creates the rule of a session with this ceiling.
        on_event: Called with each session after each event of it.
    """

    account: Account
    plans: Sequence[Plan]
    seed: int = 7
    until: float = math.inf
    window: tuple[float, float] = (0.0, math.inf)
    create_rule: Callable[[int], Rule] = AdaptiveLimit
    on_event: Callable[[SimulatedSession], None] | None = None
    now: float = field(default=0.0, init=False)
    sessions: list[SimulatedSession] = field(factory=list, init=False)
    _random: Random = field(default=Factory(lambda self: Random(self.seed), takes_self=True), init=False)
    _events: list[tuple[float, int, Callable[[], object]]] = field(factory=list, init=False)
    _numbers: Iterator[int] = field(factory=count, init=False)
    _unfinished: int = field(default=0, init=False)
    _tokens: float = field(default=1.0, init=False)
    _refilled: float = field(default=0.0, init=False)

    def run(self) -> Simulation:
        """Run until all tasks have ended, or until `until`."""
        for number, plan in enumerate(self.plans):
            # no cryptography; each session has random numbers of its own
            session = SimulatedSession(self.create_rule(plan.ceiling), Random(f"{self.seed} {number}"), plan.jobs)
            self.sessions.append(session)
            self._call_after(plan.start + self._random.uniform(0, START_SPREAD), partial(self._admit, session))
            for when, ceiling in plan.ceilings:
                self._call_after(when, partial(self._change_ceiling, session, ceiling))
        for _ in range(self.account.old_tasks):
            self._unfinished += 1
            self._call_after(self.account.service_time(self._random), self._end_old_task)
        while self._events:
            when, _, callback = heapq.heappop(self._events)
            self._advance(min(when, self.until))
            if when > self.until:
                break
            callback()
        return self

    @property
    def ended(self) -> float:
        """The time at which the last task of all was detected."""
        return max(session.ended for session in self.sessions)

    @property
    def throttled_percent(self) -> float:
        """The throttled requests for each 100 create requests within the window."""
        sent = sum(session.sent for session in self.sessions)
        return 100 * sum(session.throttled for session in self.sessions) / max(1, sent)

    @property
    def fairness(self) -> float:
        """Jain's index of the sessions' mean slots within the window."""
        return compute_fairness([session.slot_seconds for session in self.sessions])

    def _call_after(self, seconds: float, callback: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), callback))

    def _advance(self, now: float) -> None:
        counted = min(now, self.window[1]) - max(self.now, self.window[0])
        for session in self.sessions:
            if counted > 0:
                session.slot_seconds += session.running * counted
            if session.waiting:
                session.busy += session.running * (now - self.now)
                session.saturated = now
        self.now = now

    @property
    def _is_counted(self) -> bool:
        return self.window[0] <= self.now <= self.window[1]

    def _admit(self, session: SimulatedSession) -> None:
        rule = session.rule
        while (session.returning or session.waiting) and rule.can_acquire(self.now):
            if session.returning:
                session.returning -= 1
            else:
                session.waiting -= 1
            rule.acquire(self.now)
            session.sent += self._is_counted
            self._call_after(self._draw_leg(), partial(self._arrive, session, self.now))
        if session.returning or session.waiting:
            self._wake_at(session, rule.next_chance(self.now))
        if self.on_event:
            self.on_event(session)

    def _wake_at(self, session: SimulatedSession, when: float) -> None:
        if when < math.inf and when != session.woken_at:
            session.woken_at = when
            self._call_after(max(0.0, when - self.now) + 1e-9, partial(self._admit, session))

    def _arrive(self, session: SimulatedSession, sent_at: float) -> None:
        leg = self._draw_leg()
        if self._accepts():
            self._unfinished += 1
            session.running += 1
            seconds = self.account.service_time(self._random)
            self._call_after(seconds, partial(self._end_task, session))
            self._call_after(leg, partial(self._respond_accepted, session, sent_at))
            detected = max(leg, seconds + self._random.uniform(*self.account.detection))
            self._call_after(detected, partial(self._detect_end, session))
        else:
            self._call_after(leg, partial(self._respond_throttled, session, sent_at))

    def _accepts(self) -> bool:
        account = self.account
        slots = account.later[1] if self.now >= account.later[0] else account.slots
        accepts = self._unfinished < slots and self._random.random() >= account.throttled_share
        if (rate := account.creates_per_second) < math.inf:
            self._tokens = min(rate, self._tokens + (self.now - self._refilled) * rate)
            self._refilled = self.now
            accepts = accepts and self._tokens >= 1
            self._tokens -= accepts
        return accepts

    def _respond_accepted(self, session: SimulatedSession, sent_at: float) -> None:
        session.rule.record_accepted(sent_at, self.now)
        self._admit(session)

    def _respond_throttled(self, session: SimulatedSession, sent_at: float) -> None:
        session.throttled += self._is_counted
        session.rule.record_throttled(sent_at, self.now, self.account.retry_after, session.random.random())
        session.rule.release(accepted=False)
        session.returning += 1
        self._admit(session)

    def _end_old_task(self) -> None:
        self._unfinished -= 1

    def _end_task(self, session: SimulatedSession) -> None:
        self._unfinished -= 1
        session.running -= 1

    def _detect_end(self, session: SimulatedSession) -> None:
        session.ended = self.now
        session.rule.release(accepted=True)
        self._admit(session)

    def _change_ceiling(self, session: SimulatedSession, ceiling: int) -> None:
        session.rule.ceiling = ceiling
        self._admit(session)

    def _draw_leg(self) -> float:
        return self._random.uniform(*self.account.round_trip) / 2
