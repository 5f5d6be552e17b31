"""The former rule, which `pacing` compares with: a first burst as large as the ceiling, and then additive increase."""

from __future__ import annotations

import math
from bisect import bisect_right

from attrs import define, field

from kontext_async.decisions.resend import retry_delay
from kontext_async.settings import Retries

__all__ = ["FormerLimit"]

DECREASE = 0.9
EVIDENCE_LEVELS = (9, 27, 81, 243, 729)
LEVEL_TOLERANCE = 0.02
MIN_ROUND = 4
RETRIES = Retries()


@define
class FormerLimit:
    """Additive increase with accepted requests alone, from what a first burst of `ceiling` requests leaves.

    Attributes:
        ceiling: The most slots.
        in_flight: The slots that are in use.
        accepted_in_flight: The slots whose task the gateway has accepted.
        limit: The slots at present.
        paused_until: The time before which no create request goes out.
    """

    ceiling: int
    in_flight: int = field(default=0, init=False)
    accepted_in_flight: int = field(default=0, init=False)
    limit: float = field(init=False)
    paused_until: float = field(default=-math.inf, init=False)
    _decreased_at: float = field(default=-math.inf, init=False)
    _throttled: int = field(default=0, init=False)
    _throttled_level: float = field(default=math.inf, init=False)
    _rounds: float = field(default=0.0, init=False)
    _attempts: int = field(default=0, init=False)
    _throttled_at: float = field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self.limit = float(self.ceiling)

    def can_acquire(self, now: float) -> bool:
        """See `AdaptiveLimit.can_acquire`."""
        return now >= self.paused_until and self.in_flight < int(self.limit)

    def acquire(self, now: float) -> None:  # noqa: ARG002 # the other rule's signature
        """See `AdaptiveLimit.acquire`."""
        self.in_flight += 1

    def next_chance(self, now: float) -> float:
        """See `AdaptiveLimit.next_chance`."""
        return self.paused_until if now < self.paused_until else math.inf

    def release(self, *, accepted: bool) -> None:
        """See `AdaptiveLimit.release`."""
        self.in_flight -= 1
        self.accepted_in_flight -= accepted

    def record_accepted(self, sent_at: float, now: float) -> None:  # noqa: ARG002 # the other rule's signature
        """See `AdaptiveLimit.record_accepted`."""
        self.accepted_in_flight += 1
        self._attempts = 0
        if sent_at <= self._decreased_at:
            self.limit = max(self.limit, DECREASE * self.accepted_in_flight)
            return
        if self.accepted_in_flight > self._throttled_level * (1 - LEVEL_TOLERANCE):
            self._discard_evidence()
        if not self._throttled and self.in_flight >= int(self.limit):
            share = 1 / max(MIN_ROUND, self.limit)
            self._rounds += share
            self.limit = min(float(self.ceiling), self.limit + max(1.0, self._rounds) * share)

    def record_throttled(self, sent_at: float, now: float, retry_after: float | None, random: float) -> float:
        """See `AdaptiveLimit.record_throttled`. Throttled requests come first, so they share their attempts."""
        if sent_at > self._throttled_at:
            self._attempts += 1
            self._throttled_at = now
        pause = retry_delay(retry_after, self._attempts, RETRIES, random)
        self.paused_until = max(self.paused_until, now + pause)
        if sent_at > self._decreased_at:
            self._throttled += 1
            self._throttled_level = min(self._throttled_level, self.accepted_in_flight)
            if self._throttled > bisect_right(EVIDENCE_LEVELS, self.accepted_in_flight):
                self._discard_evidence()
                self._decreased_at = now
                self._rounds = 0.0
                self.limit = max(1.0, min(self.limit, DECREASE * self.accepted_in_flight))
        return pause

    def _discard_evidence(self) -> None:
        self._throttled = 0
        self._throttled_level = math.inf
