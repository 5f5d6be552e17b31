"""Keeps the IDs of paid tasks until the store has them: in the spool as soon as the store fails or is slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kontext_async.store.spool import SpooledId
from kontext_async.store.steps import Accepted

if TYPE_CHECKING:
    from kontext_async.store.availability import Availability
    from kontext_async.store.spool import Spool
    from kontext_async.store.step_queue import QueuedStep

__all__ = ["UnwrittenIds"]

SPOOL_AFTER = 1.0
"""Seconds for which an ID waits for the store, while that does not fail, before it is spooled."""


class UnwrittenIds:
    """The IDs that the store does not have yet, and the task that spools them. Create it in a running event loop.

    Args:
        spool: The spool of the worker.
        availability: An ID is spooled at once while the store fails.
    """

    def __init__(self, spool: Spool, availability: Availability) -> None:
        self._spool = spool
        self._availability = availability
        self._exposed: dict[QueuedStep, float] = {}
        """The steps whose IDs nobody has but this process, and the time since which they wait."""
        self._spooled: set[QueuedStep] = set()
        self._removable: list[SpooledId] = []
        self._wake = asyncio.Event()
        self._is_closing = False
        self._loop = asyncio.get_running_loop()
        self._owner = self._loop.create_task(self._run(), name="kontext_async spool")
        availability.on_failure.add(self._on_failure)

    @property
    def task_ids(self) -> list[str]:
        """The IDs that neither the store nor the spool could take yet; references where an ID is not enough."""
        return [item.reference or item.task_id for item in map(_spooled_id, self._exposed)]

    def add(self, item: QueuedStep) -> None:
        """Keep the ID of an `Accepted` until it is written; `QueuedStep.wait_until_durable` waits for it."""
        if not self._exposed or self._availability.failure:
            self._wake.set()
        self._exposed[item] = self._loop.time()
        item.on_outcome = self._on_outcome

    def adopt(self, item: QueuedStep) -> None:
        """Keep an ID that is in the spool already."""
        item.note_spooled()
        self._spooled.add(item)
        item.on_outcome = self._on_outcome

    async def aclose(self) -> None:
        """Spool what the store does not have, and close the spool."""
        self._is_closing = True
        self._wake.set()
        await asyncio.wait([self._owner])
        await self._spool.aclose()

    async def _run(self) -> None:
        while not self._is_closing:
            due = min(self._exposed.values(), default=None)
            try:
                async with asyncio.timeout_at(None if due is None else due + SPOOL_AFTER):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._work(is_urgent=self._availability.failure is not None)
        await self._work(is_urgent=True)

    async def _work(self, *, is_urgent: bool) -> None:
        removable, self._removable = self._removable, []
        if removable:
            await self._spool.remove(removable)
        now = self._loop.time()
        due = [item for item, since in self._exposed.items() if is_urgent or since + SPOOL_AFTER <= now]
        if due:
            self._note_spooled(due, is_spooled=await self._spool.add([_spooled_id(item) for item in due]))

    def _note_spooled(self, items: list[QueuedStep], *, is_spooled: bool) -> None:
        for item in items:
            if not is_spooled:
                if item in self._exposed:
                    self._exposed[item] = self._loop.time()  # tried again later
            elif item in self._exposed:
                del self._exposed[item]
                self._spooled.add(item)
                item.note_spooled()
            else:  # the store took it meanwhile
                self._remove(item)

    def _on_failure(self, _: object) -> None:
        if self._exposed:
            self._wake.set()

    def _on_outcome(self, item: QueuedStep) -> None:
        if not item.is_written:
            return
        if item in self._spooled:
            self._spooled.discard(item)
            self._remove(item)
        else:
            self._exposed.pop(item, None)

    def _remove(self, item: QueuedStep) -> None:
        """Remove an ID from the spool soon: the store has it."""
        self._removable.append(_spooled_id(item))
        self._wake.set()


def _spooled_id(item: QueuedStep) -> SpooledId:
    step = item.step
    if not isinstance(step, Accepted):
        raise TypeError("only the IDs of accepted tasks are spooled")
    return SpooledId(row=item.row, attempt=step.attempt, task_id=step.task_id, reference=step.reference, at=step.at)
