"""The order in which steps are written: those of one row one after another, those of others together. Pure.

A group takes rows in the order in which they came. A row that is being written waits with its later steps, so that two
groups may be written at the same time. `Intended` ends what a group takes of a row: the step after it depends on what
became of it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import define, field

from kontext_async.errors import StoreError
from kontext_async.store.steps import Intended, Orphaned, Resubmitted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator

    from kontext_async.store.rows import StepResult
    from kontext_async.store.steps import Step

__all__ = ["BEFORE_CREATE", "QueuedStep", "StepQueue"]

BEFORE_CREATE = (Intended, Resubmitted, Orphaned)
"""Steps before a create request: nothing was paid for, so that a caller may give them up."""


@define(eq=False)
class QueuedStep:
    """A step that waits to be written.

    Attributes:
        row: The number of the row.
        step: The step.
        done: What became of the step, once that is known. An error is its result: nobody has to look at it.
        is_noted: True if no caller waits for it.
        tries: How often it was sent to the store: after the first time it may have been written.
        is_given_up: True if its caller no longer waits, and nothing was sent.
    """

    row: int
    step: Step
    done: asyncio.Future[StepResult | StoreError]
    is_noted: bool = False
    tries: int = 0
    is_given_up: bool = False

    def result(self) -> StepResult:
        """Return what became of the step, once it is done.

        Raises:
            StoreError: It failed.
        """
        result = self.done.result()
        if isinstance(result, StoreError):
            raise result
        return result


@define(eq=False)
class StepQueue:
    """Steps by row. Between `take` and `finish` a group is in flight."""

    _ready: dict[int, deque[QueuedStep]] = field(factory=dict, init=False)
    _behind: dict[int, deque[QueuedStep]] = field(factory=dict, init=False)
    """The later steps of rows that are in flight."""
    _in_flight: dict[QueuedStep, None] = field(factory=dict, init=False)

    def __bool__(self) -> bool:
        return bool(self._ready or self._in_flight)

    def __iter__(self) -> Iterator[QueuedStep]:
        """Yield all steps that are not known to be written."""
        yield from self._in_flight
        for rows in (self._ready, self._behind):
            for items in rows.values():
                yield from items

    @property
    def has_ready(self) -> bool:
        """True if a group can be taken."""
        return bool(self._ready)

    def add(self, item: QueuedStep) -> None:
        """Add a step behind the others of its row."""
        behind = self._behind.get(item.row)
        if behind is None:
            behind = self._ready.setdefault(item.row, deque())
        behind.append(item)

    def take(self, limit: int) -> list[QueuedStep]:
        """Take the next group, of up to `limit` steps."""
        group: list[QueuedStep] = []
        while self._ready and len(group) < limit:
            row = next(iter(self._ready))
            items = self._ready.pop(row)
            while items and len(group) < limit:
                item = items.popleft()
                group.append(item)
                if isinstance(item.step, Intended):
                    break
            self._behind[row] = items
        self._in_flight.update(dict.fromkeys(group))
        return group

    def finish(self, group: Iterable[QueuedStep], again: Iterable[QueuedStep] = ()) -> None:
        """End a group. The steps in `again` come first in their rows, and the rows last in the queue."""
        first: dict[int, list[QueuedStep]] = {}
        for item in again:
            first.setdefault(item.row, []).append(item)
        for item in group:
            del self._in_flight[item]
        for row in dict.fromkeys(item.row for item in group):
            items = self._behind.pop(row)
            items.extendleft(reversed(first.get(row, ())))
            if items:
                self._ready[row] = items

    def remove(self, item: QueuedStep) -> bool:
        """Remove a step that is not in flight; return True if it was in the queue."""
        for rows in (self._ready, self._behind):
            items = rows.get(item.row, ())
            if item in items:
                rows[item.row].remove(item)
                if not rows[item.row] and rows is self._ready:
                    del self._ready[item.row]
                return True
        return False
