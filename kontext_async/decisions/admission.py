"""Decides whether one more request may wait for a slot, and when a refused one may come again. No await, no clock.

The requests that were refused come back at the rate at which slots become free, and not all at once: each is promised a
place of its own in the queue, later than that of the one before it. So a crowd of a thousand spreads over the seconds
that the session needs for a thousand requests, and each of them finds room when it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from typing import Any

    from kontext_async.decisions.shares import ShareState

__all__ = ["Pace", "is_full", "promise", "share_of_pace", "wait_in_queue"]

SPREAD = 1.05
"""The factor by which the places that are promised are further apart than the requests that start."""

LONGEST = 600.0
"""The most seconds that a request is sent away for. Further ones come at random in the second half of them."""


@frozen(kw_only=True)
class Pace:
    """The rate at which requests start.

    Attributes:
        slots: The slots.
        seconds: The seconds for which a request is expected to occupy one.
        pause: The seconds until the session's pause ends; 0 without one.
    """

    slots: int
    seconds: float
    pause: float = 0.0

    @property
    def gap(self) -> float:
        """The seconds between two starts."""
        return max(self.seconds, 0.001) / max(self.slots, 1)


def is_full(counted: int, most: int | None) -> bool:
    """Return True if a queue has as many requests as it may have; None is no limit."""
    return most is not None and counted >= most


def wait_in_queue(queued: int, pace: Pace) -> float:
    """Return the seconds for which a request waits that comes after `queued` others."""
    return pace.pause + (queued + 1) * pace.gap


def promise(promised: float, too_many: int, pace: Pace, now: float, random: float) -> tuple[float, float]:
    """Return the time until which places are promised, and the seconds after which a refused request may come again.

    Args:
        promised: The time until which places are promised to the requests that were refused before.
        too_many: The requests that must leave the queue before there is room for one more.
        pace: The rate at which they leave it.
        now: The present time.
        random: A number from 0 to 1.
    """
    room = now + pace.pause + too_many * pace.gap
    place = max(room, promised + SPREAD * pace.gap)
    if place > now + LONGEST:
        return now + LONGEST, LONGEST * (1 + random) / 2
    return place, place - now + random * SPREAD * pace.gap


def share_of_pace(pace: Pace, share: ShareState[Any], active_weight: float) -> Pace:
    """Return the rate at which the requests of one share start, while all others have requests too."""
    part = share.weight / max(active_weight, share.weight)
    return Pace(slots=pace.slots, seconds=pace.seconds / part, pause=pace.pause) if part < 1 else pace
