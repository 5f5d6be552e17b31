"""The schedule of a task that somebody watches, a person before a display for example. Pure.

The learned schedule polls when a task is likely to have ended, so that a task of 8 s may be polled three times. Its
watcher wants to see it move. A watched task is therefore polled at least every so many seconds, and sooner where the
schedule says so. The shortest interval of several watchers counts, `Polling.min_interval` stays the least, and a poll
that failed is still repeated after its backoff.

Watched polls keep to the session's limits. Where more tasks are due than may be polled, every second poll goes to a
watched task: a watcher does not wait behind a thousand tasks that nobody watches, and these are never starved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["UNWATCHED", "shortest_interval", "watched_due"]

UNWATCHED = float("inf")
"""The interval of a task that nobody watches."""


def shortest_interval(intervals: Iterable[float]) -> float:
    """Return the interval that serves all watchers of a task; `UNWATCHED` without a watcher."""
    return min(intervals, default=UNWATCHED)


def watched_due(due: float, last_poll: float, interval: float, *, least: float, grain: float) -> float:
    """Return the time of the next poll of a task that may be watched.

    Args:
        due: The time that the schedule says.
        last_poll: The time of the last poll, or of the acceptance.
        interval: The most seconds between two polls; `UNWATCHED` leaves `due` as it is.
        least: The fewest seconds between two polls, which comes before `interval`.
        grain: The seconds by which a due time may be rounded up: the poll is due so much sooner.
    """
    return min(due, last_poll + max(least, interval - grain))
