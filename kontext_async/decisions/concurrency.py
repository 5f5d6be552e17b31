"""The limit on tasks in flight, which adapts to what the account sustains. No await, no clock.

A slot is held from before the create request until the task ends, because gateways count unfinished tasks. Several
processes may share the account, and none of them knows of the others: each sees only which of its own create requests
are accepted and which are throttled. The *level* is the number of its accepted tasks in flight.

========  ===================================================  =====================================================
phase     create requests are accepted                         the account throttles
========  ===================================================  =====================================================
GROWING   when most of a round is accepted, the next one is    the limit falls to `DECREASE` of the level; WAITING.
          twice as large: slow start; WAITING at the level     With nothing accepted: one request at a time, GROWING
          that growth reached before
WAITING   after some rounds or some time, one create request   another session took slots: the limit falls to
          goes beyond the limit: PROBING                       `DECREASE` of the level, or to `STEADY_DECREASE` if
                                                               the level is still the one of the last decrease
PROBING   GROWING, if the account has room at the level of     the limit stays at the level, and the next probe comes
          the last decrease, or up to the level that growth    later; WAITING
          reached before; else WAITING
========  ===================================================  =====================================================

What throttles, and what is only a faulty request among many, is decided in `throttling`. A decrease starts from the
level, which the account evidently sustains, and not from the limit. Growth returns to the level that it reached before,
unless another session took slots since: a throttled request that is no probe shows that.

Why this rule: Chiu and Jain (1989, "Analysis of the increase and decrease algorithms for congestion avoidance in
computer networks") showed that of the linear rules only additive increase with multiplicative decrease leads to equal
shares from any start: an increase keeps the difference between two users, and a decrease reduces it. Here the decrease
is the stronger, as a session with more slots also sends more requests, and meets the full account more often. Two ideas
are from CUBIC (RFC 9438): the increase depends on time, too, or sessions with tasks of a minute would need an hour; and
the level that was reached is regained quickly. CUBIC's curve is not used: it is one of seconds, and what counts here is
the duration of a task, from less than a second to minutes. BBR measures bandwidth and delay; an account that is full
throttles at once and delays nothing, so that there is nothing to measure.

The time between two probes is counted in rounds, as many as there are slots, and in seconds; what ends first counts.
While the limit waits, a round is as many accepted create requests as there are slots: about the length of a task. So a
session with few slots probes more often than one with many, and catches up; a bounded part of all create requests is
throttled; and no session waits much longer than a minute, however long its tasks take. After growth the first probe
comes soon, and each one that is throttled delays the next. A random factor keeps sessions from probing in step.

The ceiling can be changed at any time. A lower one keeps what was found: when it is raised again, the limit goes to
where it was. If nothing was ever throttled, it goes to about twice the former ceiling at once, and grows from there.

Figures: `benchmarks/suite/pacing.py` simulates sessions that share an account, and runs them over HTTP.
"""

from __future__ import annotations

import enum
import math

from attrs import define, field

from kontext_async.decisions.throttling import SessionPause, ThrottlingEvidence

__all__ = ["AdaptiveLimit"]

FIRST_ROUND = 4
"""The create requests of the first round."""

MOST = 0.75
"""The part of a round that must be accepted before the next one: a slow upload does not delay the others."""

DECREASE = 0.8
"""The part of the accepted tasks in flight that remains as the limit after a decrease."""

STEADY_DECREASE = 0.93
"""The same where the level is still that of the last decrease, so that no other session took slots since."""

STEADY = 0.9
"""The part of the last decrease's level at which a level still counts as the same."""

ROOM = 8
"""The create requests in a round that, when they are accepted above the level of the last decrease, show that the
account has room again: then the next probe comes soon."""

FIRST_PROBE_ROUNDS = 0.5
"""The rounds from the end of growth to the first probe."""

FIRST_PROBE_SECONDS = 4.0
"""The same in seconds, for tasks that take long."""

PROBE_FACTOR = 1.3
"""The factor by which a throttled probe delays the next one, up to one round for each slot, within the bounds below."""

MIN_ROUNDS = 2
"""The least number of rounds to which that leads: with a single slot, every second create request is throttled else."""

MAX_ROUNDS = 8
"""The most rounds between two probes."""

MAX_SECONDS = 60.0
"""The most seconds between two probes."""

MAX_FAILED_PROBES = 12
"""The throttled probes that count for that."""

JITTER = 0.25
"""The part by which the time between two probes is shorter or longer at random."""


class Phase(enum.Enum):
    """The phases of the limit."""

    GROWING = enum.auto()
    WAITING = enum.auto()
    PROBING = enum.auto()


@define
class ProbeTimer:
    """The time from a probe, or from a decrease, to the next probe.

    Attributes:
        jitter: The random factor.
        failed: The throttled probes that delay the next one.
        rounds: The rounds since it started.
    """

    jitter: float = 1.0
    failed: int = 0
    rounds: float = 0.0
    _started_at: float = 0.0

    @property
    def due_at(self) -> float:
        """The time at which the next probe is due at the latest."""
        return self._started_at + min(MAX_SECONDS, FIRST_PROBE_SECONDS * self._delay) * self.jitter

    def is_due(self, slots: int, now: float) -> bool:
        """Return True if a session with so many slots may probe now."""
        most = min(max(MIN_ROUNDS, slots), MAX_ROUNDS)
        return now >= self.due_at or self.rounds >= min(most, FIRST_PROBE_ROUNDS * self._delay) * self.jitter

    def start(self, now: float) -> None:
        """Start again."""
        self.rounds = 0.0
        self._started_at = now

    def record_failure(self) -> None:
        """Delay the next probe, because the account throttled one."""
        self.failed = min(self.failed + 1, MAX_FAILED_PROBES)

    @property
    def _delay(self) -> float:
        return float(PROBE_FACTOR**self.failed)


@define
class AdaptiveLimit:
    """The number of slots, and the session's common pause.

    Attributes:
        ceiling: The most slots, at least 1. It may be changed.
        pause: The session's pause.
        in_flight: The slots that are in use.
        accepted_in_flight: The slots whose task the gateway has accepted.
    """

    ceiling: int
    pause: SessionPause = field(factory=SessionPause)
    in_flight: int = field(default=0, init=False)
    accepted_in_flight: int = field(default=0, init=False)
    _found: int = field(default=FIRST_ROUND, init=False)  # the limit, but for the ceiling
    _phase: Phase = field(default=Phase.GROWING, init=False)
    _round: int = field(default=FIRST_ROUND, init=False)  # the slots that growth, or a probe, added last
    _round_began: float = field(default=-math.inf, init=False)
    _accepted: int = field(default=0, init=False)  # requests of that round
    _decreased_at: float = field(default=-math.inf, init=False)
    _throttled_level: int = field(default=0, init=False)  # the level of the last decrease
    _reached: int = field(default=0, init=False)  # the level that growth reached, unless others took from it since
    _evidence: ThrottlingEvidence = field(factory=ThrottlingEvidence, init=False)
    _timer: ProbeTimer = field(factory=ProbeTimer, init=False)

    @property
    def limit(self) -> int:
        """The slots at present."""
        return min(self.ceiling, self._found)

    @property
    def expected_limit(self) -> int:
        """The slots to expect: while growth was never throttled, as many as the ceiling allows."""
        return self.limit if self._was_throttled else self.ceiling

    @property
    def paused_until(self) -> float:
        """The time before which no create request goes out."""
        return self.pause.until

    def can_acquire(self, now: float) -> bool:
        """Return True if one more create request may go out now."""
        if now < self.paused_until:
            return False
        return self.in_flight < self.limit or (self._may_probe and self._timer.is_due(self._found, now))

    def acquire(self, now: float) -> None:
        """Acquire a slot for a create request that is about to go out. One beyond the limit is a probe."""
        self.in_flight += 1
        if self.in_flight > self.limit:
            self._phase = Phase.PROBING
            self._add_round(1, now)

    def next_chance(self, now: float) -> float:
        """Return the time at which a slot may become free although nothing else happens; infinite if none does."""
        if now < self.paused_until:
            return self.paused_until
        return self._timer.due_at if self._may_probe else math.inf

    def release(self, *, accepted: bool) -> None:
        """Release a slot.

        Args:
            accepted: True if the gateway had accepted its task, which has ended or is no longer polled.
        """
        self.in_flight -= 1
        self.accepted_in_flight -= accepted
        if not self.in_flight and self._was_throttled and self._found > FIRST_ROUND:
            self._restart()

    def record_accepted(self, sent_at: float, now: float) -> None:
        """Record that the gateway accepted a create request.

        Args:
            sent_at: The time at which the request was sent.
            now: The present time.
        """
        self.accepted_in_flight += 1
        self.pause.record_accepted()
        level = self.accepted_in_flight
        if sent_at <= self._decreased_at:  # it was in flight at the decrease, and shows that the account sustains more
            self._found = max(self._found, level)
            if self._phase is Phase.GROWING:  # from one request at a time
                self._wait(now)
            return
        self._evidence.record_accepted(level)
        if self.in_flight < self.limit:
            return  # a limit is tested only while all of it is used
        self._timer.rounds += 1 / self._found
        self._accepted += sent_at >= self._round_began
        if self._phase is not Phase.WAITING and (self._accepted >= MOST * self._round or level >= self.limit):
            self._end_round(now)

    def record_throttled(self, sent_at: float, now: float, retry_after: float | None, random: float) -> float:
        """Record that the gateway throttled a create request: 429, or 503 with ``Retry-After``.

        Args:
            sent_at: The time at which the request was sent.
            now: The present time.
            retry_after: The ``Retry-After`` of the response, in seconds; None if it has none.
            random: A number from 0 to 1.

        Returns:
            The seconds for which no create request may go out.
        """
        if sent_at > self._decreased_at:  # else a decrease has followed this congestion already
            in_round = 0 if self._phase is Phase.WAITING else self._round
            if self._evidence.record_throttled(self.accepted_in_flight, in_round):
                self._timer.jitter = 1 + JITTER * (2 * random - 1)
                self._decrease(now)
        return self.pause.record_throttled(sent_at, now, retry_after, random)

    @property
    def _was_throttled(self) -> bool:
        return self._decreased_at > -math.inf

    @property
    def _has_room(self) -> bool:
        """True if requests are accepted above the level of the last decrease."""
        return self.accepted_in_flight > self._throttled_level

    @property
    def _most(self) -> int:
        """The most slots that growth may find: more than the ceiling, which may be raised later."""
        return max(2 * self.ceiling + FIRST_ROUND, self.in_flight + 1)

    @property
    def _may_probe(self) -> bool:
        return self._phase is Phase.WAITING and self.in_flight == self.limit < self.ceiling

    def _end_round(self, now: float) -> None:
        """Continue after a round, or a probe, that was accepted."""
        is_probe = self._phase is Phase.PROBING
        regained = self.accepted_in_flight if is_probe else self._found
        if not self._has_room and regained >= self._reached:
            self._wait(now)
        elif is_probe:
            self._phase = Phase.GROWING
            self._add_round(1, now)
        elif self._found < self._most:
            if self._has_room and self._round >= ROOM:
                self._timer.failed = 0
            self._add_round(2 * self._round, now)

    def _add_round(self, slots: int, now: float) -> None:
        """Raise the limit: from below the level that growth reached only to it, and never far beyond the ceiling."""
        most = self._reached if self.accepted_in_flight < self._reached else self._most
        self._found = max(self._found + 1, min(self._found + slots, most))
        self._begin_round(slots, now)

    def _begin_round(self, slots: int, now: float) -> None:
        self._round, self._round_began, self._accepted = slots, now, 0

    def _wait(self, now: float) -> None:
        self._phase = Phase.WAITING
        self._timer.start(now)

    def _decrease(self, now: float) -> None:
        if self._phase is not Phase.WAITING and self._was_throttled:
            self._timer.record_failure()
        self._evidence.discard()
        self._decreased_at = now
        if self.accepted_in_flight:
            self._fall_to_level(self.accepted_in_flight)
            self._wait(now)
        else:
            self._fall_to_one(now)

    def _fall_to_level(self, level: int) -> None:
        if self._phase is Phase.PROBING:
            part, self._reached = 1.0, min(self._reached, level)
        elif self._phase is Phase.GROWING:
            part, self._reached = DECREASE, level
        else:
            is_steady = level >= STEADY * self._throttled_level
            part, self._reached = STEADY_DECREASE if is_steady else DECREASE, 0
        self._throttled_level = level
        self._found = max(1, min(self._found, round(part * level)))

    def _fall_to_one(self, now: float) -> None:
        """Fall to one request at a time, from which growth leads to half of the limit, or on if there never was one."""
        if self._throttled_level:
            self._reached = self._throttled_level = max(1, self._found // 2)
        self._found = 1
        self._phase = Phase.GROWING
        self._begin_round(1, now)

    def _restart(self) -> None:
        """Start from the first round again, because nothing is in flight; others may have taken the slots meanwhile."""
        self._reached = max(self._reached, self._found)
        self._throttled_level = max(self._throttled_level, self._reached)
        self._found = FIRST_ROUND
        self._phase = Phase.GROWING
        self._begin_round(FIRST_ROUND, -math.inf)
