"""The order in which steps are written: those of one row one after another, those of others together. Pure.

A group takes steps in the order in which they came. A row that is being written waits with its later steps, so that two
groups may be written at the same time. `Intended` ends what a group takes of a row: the step after it depends on what
became of it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import define, field

from kontext_async.errors import StoreError
from kontext_async.store.rows import StepResult
from kontext_async.store.steps import Intended, Orphaned, Resubmitted
from kontext_async.waitable import Waitable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kontext_async.store.steps import Step

__all__ = ["BEFORE_CREATE", "QueuedStep", "StepQueue"]

BEFORE_CREATE = (Intended, Resubmitted, Orphaned)
"""Steps before a create request: nothing was paid for, so that a caller may give them up."""


@define(eq=False)
class QueuedStep(Waitable):
    """A step that waits to be written.

    Attributes:
        row: The number of the row.
        step: The step.
        is_noted: True if no caller waits for it.
        tries: How often it was sent to the store: after the first time it may have been written.
        is_given_up: True if its caller no longer waits, and nothing was sent.
        is_spooled: True if the spool has the task ID of the step.
        outcome: What became of the step; None until that is known.
        on_outcome: Is called with the step once its outcome is known.
    """

    row: int
    step: Step
    is_noted: bool = False
    tries: int = 0
    is_given_up: bool = False
    is_spooled: bool = field(default=False, init=False)
    outcome: StepResult | StoreError | None = field(default=None, init=False)
    on_outcome: Callable[[QueuedStep], None] | None = field(default=None, init=False)

    @property
    def is_written(self) -> bool:
        """True if the store decided on the step, and that is durable."""
        return isinstance(self.outcome, StepResult)

    def settle(self, outcome: StepResult | StoreError) -> None:
        """Record what became of the step, and wake those who wait."""
        self.outcome = outcome
        if self.on_outcome:
            self.on_outcome(self)
        self.wake_waiters()

    def note_spooled(self) -> None:
        """Record that the spool has the task ID, and wake those who wait."""
        self.is_spooled = True
        self.wake_waiters()

    async def wait(self) -> None:
        """Return once the outcome is known."""
        while self.outcome is None:
            await self.next_change()

    async def wait_until_durable(self) -> None:
        """Return once the store or the spool has the task ID of the step."""
        while not (self.is_written or self.is_spooled):
            await self.next_change()

    def result(self) -> StepResult:
        """Return what became of the step, once that is known.

        Raises:
            StoreError: It failed.
            LookupError: It is not known yet.
        """
        if isinstance(self.outcome, StoreError):
            raise self.outcome
        if self.outcome is None:
            raise LookupError("it is not known yet what became of the step")
        return self.outcome


@define(eq=False)
class StepQueue:
    """Steps in their order. Between `take` and `finish` a group is in flight."""

    _ready: deque[QueuedStep] = field(factory=deque, init=False)
    _behind: dict[int, list[QueuedStep]] = field(factory=dict, init=False)
    """The later steps of rows that are in flight, as far as `take` has met them: the others are in `_ready`."""
    _in_flight: dict[QueuedStep, None] = field(factory=dict, init=False)
    _rows: set[int] = field(factory=set, init=False)
    """The rows that are in flight."""

    def __bool__(self) -> bool:
        return bool(self._ready or self._in_flight)

    def __iter__(self) -> Iterator[QueuedStep]:
        """Yield all steps that are not known to be written."""
        yield from self._in_flight
        for items in self._behind.values():
            yield from items
        yield from self._ready

    @property
    def has_ready(self) -> bool:
        """True if there may be steps for another group."""
        return bool(self._ready)

    def add(self, item: QueuedStep) -> None:
        """Add a step behind the others."""
        self._ready.append(item)

    def take(self, limit: int) -> list[QueuedStep]:
        """Take the next group, of up to `limit` steps."""
        group: list[QueuedStep] = []
        closed: set[int] = set()
        while self._ready and len(group) < limit:
            item = self._ready.popleft()
            if item.row in self._rows or item.row in closed:
                self._behind.setdefault(item.row, []).append(item)
                continue
            group.append(item)
            if isinstance(item.step, Intended):
                closed.add(item.row)
        self._in_flight.update(dict.fromkeys(group))
        self._rows.update(item.row for item in group)
        return group

    def finish(self, group: Iterable[QueuedStep], again: Sequence[QueuedStep] = ()) -> None:
        """End a group. The steps in `again` come first in their rows, and these rows last in the queue."""
        later: list[QueuedStep] = []
        for item in group:
            del self._in_flight[item]
            self._rows.discard(item.row)
            later += self._behind.pop(item.row, ())
        if not again:
            self._ready.extendleft(reversed(later))  # what else `_ready` has of their rows came after them
            return
        rows = {item.row for item in again}
        others = [*later, *self._ready]
        self._ready = deque(item for item in others if item.row not in rows)
        self._ready += again
        self._ready += (item for item in others if item.row in rows)

    def remove(self, item: QueuedStep) -> bool:
        """Remove a step that is not in flight; return True if it was in the queue."""
        for items in (self._ready, self._behind.get(item.row, [])):
            if item in items:
                items.remove(item)
                return True
        return False
