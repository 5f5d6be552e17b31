"""The consequences of throttled create requests: a pause, and evidence of a full account. No await, no clock.

The pause is one of a whole pool of models: of the session, where the gateway has only one. As evidence, a single
throttled request proves little where hundreds are in flight: a rate limit or a faulty proxy that throttles a few
percent would bring them down to a handful, while an account that is full accepts nothing else. So a high level, or a
large round of growth, needs several throttled requests without one accepted request at their level. The *level* is the
number of accepted tasks in flight.
"""

from __future__ import annotations

import math
from bisect import bisect_right

from attrs import define, field

from kontext_async.decisions.resend import backoff, retry_delay
from kontext_async.settings import Retries

__all__ = ["SessionPause", "ThrottlingEvidence"]

MAX_DOUBLED = 3
"""The throttled attempts in a row, none of them accepted, for which the pause doubles. The tasks of others may end at
any time, so it stays short."""

LEVELS = (27, 81, 243, 729)
"""The levels at which one more throttled request is needed: one below 27, five from 729."""

ROUNDS = (4, 16, 64, 256)
"""The create requests in a round of growth at which one more is needed: a full account throttles all of them."""

TOLERANCE = 0.02
"""The part by which the level of an accepted request may be below that of a throttled one, and still contradict it:
the level is known a little late."""


@define
class SessionPause:
    """The pause of all create requests of a pool of models: of the session, where there is one pool.

    Attributes:
        retries: The user's settings for pauses.
        until: The time at which it ends.
    """

    retries: Retries = field(factory=Retries)
    until: float = field(default=-math.inf, init=False)
    _attempts: int = field(default=0, init=False)  # throttled in a row; requests that were out together count once
    _throttled_at: float = field(default=-math.inf, init=False)

    def record_accepted(self) -> None:
        """Let the next pause be a short one again."""
        self._attempts = 0

    def extend(self, until: float) -> None:
        """Pause until a time, if the pause is not longer already."""
        self.until = max(self.until, until)

    def record_throttled(self, sent_at: float, now: float, retry_after: float | None, random: float) -> float:
        """Pause from `now` on, and return the seconds: ``Retry-After``, or a backoff that doubles.

        "Retry-After: 0" is obeyed once, and not at every attempt until the caller's deadline.

        Args:
            sent_at: The time at which the throttled request was sent.
            now: The present time.
            retry_after: The ``Retry-After`` of the response, in seconds; None if it has none.
            random: A number from 0 to 1.
        """
        if sent_at > self._throttled_at:
            self._attempts = min(self._attempts + 1, MAX_DOUBLED)
            self._throttled_at = now
        seconds = retry_delay(retry_after, self._attempts, self.retries, random)
        if self._attempts > 1:
            seconds = max(seconds, backoff(self._attempts - 1, self.retries, random))
        self.extend(now + seconds)
        return seconds


@define
class ThrottlingEvidence:
    """The throttled create requests that no accepted one contradicts."""

    _count: int = field(default=0, init=False)
    _level: float = field(default=math.inf, init=False)  # the lowest of theirs

    def record_accepted(self, level: int) -> None:
        """Discard the evidence if a request was accepted at its level."""
        if level >= self._level * (1 - TOLERANCE) + 1:
            self.discard()

    def record_throttled(self, level: int, in_round: int) -> bool:
        """Record a throttled request, and return True if the account is full.

        Args:
            level: The accepted tasks in flight.
            in_round: The create requests in the round of growth; 0 if there is none.
        """
        self._count += 1
        self._level = min(self._level, level)
        return self._count > max(bisect_right(LEVELS, level), bisect_right(ROUNDS, in_round))

    def discard(self) -> None:
        """Begin again without evidence."""
        self._count = 0
        self._level = math.inf
