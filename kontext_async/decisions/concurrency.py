"""How many tasks may be in flight, and until when to hold back. No await, no clock.

A slot is held from before the create until the task is finished, since gateways count unfinished tasks. How many
slots the account bears is found: additive increase, multiplicative decrease on 429, below a ceiling.

Three things differ from the textbook.

- The decrease starts from what the gateway has accepted, which it evidently bears, instead of from the limit.
- One refusal proves little: a rate limit or a faulty proxy that refuses a few per cent would bring hundreds in flight
  down to a handful. At its capacity a gateway accepts nothing more, so a decrease needs several refusals without one
  create accepted at their accepted_in_flight, and the more slots there are to lose, the more of them.
- Where a task takes seconds, a slot more for each round of tasks is slow. The increase is one slot in the first round
  after a decrease, two in the second, and so on.

In simulation (tests/unit/test_pacing.py; tasks of 8 s, 0.93 is what polling allows), that kept 0.89 to 0.91 of a
capacity of 24 to 500 busy under a ceiling of up to twenty times as much, and 0.82 to 0.92 of 300 slots with 5 % refused
at random, where a decrease at each refusal left 0.02.
"""

from __future__ import annotations

from bisect import bisect_right

from attrs import define, field

__all__ = ["AdaptiveLimit"]

DECREASE = 0.9
"""What remains of the accepted accepted_in_flight after a decrease."""

MORE_REFUSALS_FROM = (9, 27, 81, 243, 729)
"""The levels from which a decrease needs one refusal more: one below 9, two below 27, six from 729 on."""

SLACK = 0.02
"""How far below a refused accepted_in_flight an accepted one speaks against the refusal: the accepted_in_flight is known a little late."""

SMALLEST_ROUND = 4
"""Creates that make a round at least: with one slot, every second create would otherwise be refused."""


@define
class AdaptiveLimit:
    """The number of slots, and the session's common pause.

    Attributes:
        ceiling: Slots at most.
        limit: Slots at present; its whole part counts.
        in_flight: Slots that are taken.
        accepted_in_flight: Slots whose task the gateway has accepted.
        paused_until: No create goes out before this time.
    """

    ceiling: int
    limit: float = field(init=False)
    in_flight: int = field(default=0, init=False)
    accepted_in_flight: int = field(default=0, init=False)
    paused_until: float = field(default=float("-inf"), init=False)
    _decreased_at: float = field(default=float("-inf"), init=False)
    _refusals: int = field(default=0, init=False)  # without an accepted create at their accepted_in_flight
    _refused_level: float = field(default=float("inf"), init=False)  # the lowest of them
    _rounds: float = field(default=0.0, init=False)  # since the last decrease

    def __attrs_post_init__(self) -> None:
        self.limit = float(self.ceiling)

    def can_acquire(self, now: float) -> bool:
        """Whether one more create may go out now."""
        return now >= self.paused_until and self.in_flight < int(self.limit)

    def acquire(self) -> None:
        """A slot is taken: a create is about to go out."""
        self.in_flight += 1

    def release(self, *, accepted: bool) -> None:
        """A slot is free again.

        Args:
            accepted: Whether its task had been accepted, and is now finished or no longer followed.
        """
        self.in_flight -= 1
        self.accepted_in_flight -= accepted

    def accepted(self, sent_at: float) -> None:
        """A create was accepted that had been sent at `sent_at`."""
        self.accepted_in_flight += 1
        if sent_at <= self._decreased_at:  # it was on the wire at the decrease, and shows that more is borne
            self.limit = max(self.limit, DECREASE * self.accepted_in_flight)
            return
        if self.accepted_in_flight > self._refused_level * (1 - SLACK):
            self._forget_refusals()
        if not self._refusals and self.in_flight >= int(self.limit):  # only a limit that is used has been tried
            share = 1 / max(SMALLEST_ROUND, self.limit)
            self._rounds += share
            self.limit = min(float(self.ceiling), self.limit + max(1.0, self._rounds) * share)

    def refused(self, sent_at: float, now: float, pause: float) -> None:
        """A create was refused with 429, or 503 with a wait, that had been sent at `sent_at`.

        Args:
            sent_at: When it went out.
            now: The present time.
            pause: Seconds for which nothing more may go out.
        """
        self.paused_until = max(self.paused_until, now + pause)
        if sent_at <= self._decreased_at:
            return  # the same congestion, already answered
        self._refusals += 1
        self._refused_level = min(self._refused_level, self.accepted_in_flight)
        if self._refusals > bisect_right(MORE_REFUSALS_FROM, self.accepted_in_flight):
            self._forget_refusals()
            self._decreased_at = now
            self._rounds = 0.0
            self.limit = max(1.0, min(self.limit, DECREASE * self.accepted_in_flight))

    def _forget_refusals(self) -> None:
        self._refusals = 0
        self._refused_level = float("inf")
