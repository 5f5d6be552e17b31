"""The limit on tasks in flight, which adapts to what the account sustains, and the session's pause. No await, no clock.

A slot is held from before the create request until the task ends, because gateways count unfinished tasks. The limit
finds the number of slots that the account sustains: additive increase, multiplicative decrease on 429, below a ceiling.

Three things differ from the textbook.

- The decrease starts from the number of tasks that the gateway has accepted, which it evidently sustains, instead of
  from the limit.
- One throttled request proves little: a rate limit or a faulty proxy that throttles a few percent would bring hundreds
  in flight down to a handful. At its capacity a gateway accepts nothing else. So a decrease needs several throttled
  requests without one accepted request at their level, and the more slots there are to lose, the more of them. The
  *level* is the number of accepted tasks in flight.
- Where a task takes seconds, one more slot for each round of tasks is slow. The increase is one slot in the first round
  after a decrease, two in the second, and so on.

The ceiling can be changed at any time. A lower one keeps what was found: when it is raised again, the limit goes to
where it was, or on to the new ceiling if nothing below it was ever found too high.

In simulation (tests/decisions/test_concurrency.py; tasks of 8 s, 0.93 is the most that polling permits), this kept 0.89
to 0.91 of a capacity of 24 to 500 busy under a ceiling of up to twenty times as much, and 0.82 to 0.92 of 300 slots
with 5 % throttled at random, where a decrease at each throttled request left 0.02.
"""

from __future__ import annotations

from bisect import bisect_right

from attrs import define, field

__all__ = ["AdaptiveLimit"]

DECREASE = 0.9
"""The part of the accepted tasks in flight that remains as the limit after a decrease."""

EVIDENCE_LEVELS = (9, 27, 81, 243, 729)
"""The levels at which a decrease begins to need one more throttled request: one below 9, two below 27, six from 729."""

LEVEL_TOLERANCE = 0.02
"""The part by which the level of an accepted request may be below that of a throttled one, and still contradict it:
the level is known a little late."""

MIN_ROUND = 4
"""The fewest create requests that make a round: with one slot, every second one would otherwise be throttled."""


@define
class AdaptiveLimit:
    """The number of slots, and the session's common pause.

    Attributes:
        ceiling: The most slots, at least 1. It may be changed.
        in_flight: The slots that are in use.
        accepted_in_flight: The slots whose task the gateway has accepted.
        paused_until: The time before which no create request goes out.
    """

    ceiling: int
    in_flight: int = field(default=0, init=False)
    accepted_in_flight: int = field(default=0, init=False)
    paused_until: float = field(default=float("-inf"), init=False)
    _sustained: float = field(default=float("inf"), init=False)  # infinite unless a decrease is not made up for
    _decreased_at: float = field(default=float("-inf"), init=False)
    _throttled: int = field(default=0, init=False)  # without an accepted request at their level
    _throttled_level: float = field(default=float("inf"), init=False)  # the lowest of them
    _rounds: float = field(default=0.0, init=False)  # since the last decrease

    @property
    def limit(self) -> float:
        """The slots at present; the whole part counts."""
        return min(float(self.ceiling), self._sustained)

    def can_acquire(self, now: float) -> bool:
        """Return True if one more create request may go out now."""
        return now >= self.paused_until and self.in_flight < int(self.limit)

    def acquire(self) -> None:
        """Acquire a slot for a create request that is about to go out."""
        self.in_flight += 1

    def release(self, *, accepted: bool) -> None:
        """Release a slot.

        Args:
            accepted: True if the gateway had accepted its task, which has ended or is no longer polled.
        """
        self.in_flight -= 1
        self.accepted_in_flight -= accepted

    def record_accepted(self, sent_at: float) -> None:
        """Record that the gateway accepted a create request that was sent at `sent_at`."""
        self.accepted_in_flight += 1
        if sent_at <= self._decreased_at:  # it was in flight at the decrease, and shows that the account sustains more
            self._sustained = max(self._sustained, DECREASE * self.accepted_in_flight)
            return
        if self.accepted_in_flight > self._throttled_level * (1 - LEVEL_TOLERANCE):
            self._discard_evidence()
        if not self._throttled and self.in_flight >= int(self.limit):  # a limit is tested only while all of it is used
            share = 1 / max(MIN_ROUND, self.limit)
            self._rounds += share
            self._increase(max(1.0, self._rounds) * share)

    def record_throttled(self, sent_at: float, now: float, pause: float) -> None:
        """Record that the gateway throttled a create request: 429, or 503 with ``Retry-After``.

        Args:
            sent_at: The time at which the request was sent.
            now: The present time.
            pause: The seconds for which no create request may go out.
        """
        self.paused_until = max(self.paused_until, now + pause)
        if sent_at <= self._decreased_at:
            return  # a decrease has followed this congestion already
        self._throttled += 1
        self._throttled_level = min(self._throttled_level, self.accepted_in_flight)
        if self._throttled > bisect_right(EVIDENCE_LEVELS, self.accepted_in_flight):
            self._discard_evidence()
            self._decreased_at = now
            self._rounds = 0.0
            self._sustained = max(1.0, min(self._sustained, DECREASE * self.accepted_in_flight))

    def _increase(self, slots: float) -> None:
        """Raise the limit below the ceiling. At the ceiling the decrease is made up for: a higher one holds at once."""
        if self._sustained < self.ceiling:
            self._sustained += slots
            if self._sustained >= self.ceiling:
                self._sustained = float("inf")

    def _discard_evidence(self) -> None:
        self._throttled = 0
        self._throttled_level = float("inf")
