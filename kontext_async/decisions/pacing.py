"""How many tasks may be in flight, and until when to hold back. No await, no clock.

A slot is held from before the create until the task is finished, since gateways count unfinished tasks. How many
slots the account bears is found: additive increase, multiplicative decrease on 429, below a ceiling.

Two things differ from the textbook. The decrease starts from what the gateway had accepted when it refused, which it
evidently bears, instead of from the limit. And a 429 that was not about the number of tasks is recognised: when a
create that was on the wire at the same time is accepted at the same level, the decrease is taken back. Without that, a
rate limit or a faulty proxy that refuses a few per cent would bring hundreds in flight down to a handful.
"""

from __future__ import annotations

from attrs import define, field, frozen

__all__ = ["Pacer"]

DECREASE = 0.8
"""What remains of the accepted level after a refusal."""


@frozen
class _Decrease:
    """The last decrease: when it was made, at which level of accepted tasks, and what the limit was before."""

    at: float
    level: int
    limit_before: float


@define
class Pacer:
    """The number of slots, and the session's common pause.

    Attributes:
        ceiling: Slots at most.
        limit: Slots at present; its whole part counts.
        in_flight: Slots that are taken.
        level: Slots whose task the gateway has accepted.
        paused_until: No create goes out before this time.
    """

    ceiling: int
    limit: float = field(init=False)
    in_flight: int = field(default=0, init=False)
    level: int = field(default=0, init=False)
    paused_until: float = field(default=float("-inf"), init=False)
    _decrease: _Decrease | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.limit = float(self.ceiling)

    def admits(self, now: float) -> bool:
        """Whether one more create may go out now."""
        return now >= self.paused_until and self.in_flight < int(self.limit)

    def take(self) -> None:
        """A slot is taken: a create is about to go out."""
        self.in_flight += 1

    def give_back(self, *, accepted: bool) -> None:
        """A slot is free again.

        Args:
            accepted: Whether its task had been accepted, and is now finished or no longer followed.
        """
        self.in_flight -= 1
        self.level -= accepted

    def accepted(self, sent_at: float) -> None:
        """A create was accepted that had been sent at `sent_at`."""
        decrease = self._decrease
        if decrease and sent_at <= decrease.at:
            if self.level >= decrease.level:
                self.limit = max(self.limit, decrease.limit_before)
                self._decrease = None
        elif self.in_flight >= int(self.limit):  # only a limit that is used has been tried
            self.limit = min(self.ceiling, self.limit + 1 / self.limit)
        self.level += 1

    def refused(self, sent_at: float, now: float, pause: float) -> None:
        """A create was refused with 429, or 503 with a wait, that had been sent at `sent_at`.

        Args:
            sent_at: When it went out.
            now: The present time.
            pause: Seconds for which nothing more may go out.
        """
        self.paused_until = max(self.paused_until, now + pause)
        if self._decrease and sent_at <= self._decrease.at:
            return  # the same congestion, already answered
        self._decrease = _Decrease(now, self.level, self.limit)
        self.limit = max(1.0, min(self.limit, DECREASE * self.level))
