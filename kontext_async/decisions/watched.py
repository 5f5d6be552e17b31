"""The record of a task that is asked about. No await, no clock.

There may be a hundred thousand of these: what is rare is None, and what can be derived is not kept.
"""

from __future__ import annotations

import enum

from attrs import Factory, define, field

__all__ = ["Place", "Trouble", "Watched"]


class Place(enum.Enum):
    """Where in the agenda a task stands; what other places hold of it is stale."""

    NOWHERE = enum.auto()
    LATER = enum.auto()
    DUE = enum.auto()
    HURRIED = enum.auto()
    ASKING = enum.auto()


@define
class Trouble:
    """Asks that failed, one after the other.

    Attributes:
        since: When the first of them failed.
        failures: How many there are.
        missing_since: When the first of the latest 404s in a row came.
    """

    since: float
    failures: int = 0
    missing_since: float | None = None


@define(eq=False, weakref_slot=False)
class Watched:
    """A task that is asked about.

    Attributes:
        task_id: The task's id.
        since: When it was accepted, or attached.
        due: When it shall be asked about next; from when it is asked about until that is known, when that was.
        place: Where it waits for that.
        trouble: The failed asks since the last one that did not fail; None when there are none.
        unfinished_at: When it was last asked about and not finished; when it was accepted, before that.
        foretold: The age at which it will be finished, as its progress has it; 0 where that says nothing.
        kind: The number of its kind of request; None while its age is not known, -1 for kinds without a number.
    """

    task_id: str
    since: float
    due: float = field(default=0.0, init=False)
    place: Place = field(default=Place.NOWHERE, init=False)
    trouble: Trouble | None = field(default=None, init=False)
    unfinished_at: float = field(default=Factory(lambda self: self.since, takes_self=True), init=False)
    foretold: float = field(default=0.0, init=False)
    kind: int | None = field(default=None, init=False)

    @property
    def failures(self) -> int:
        """Asks that failed, one after the other."""
        return 0 if self.trouble is None else self.trouble.failures
