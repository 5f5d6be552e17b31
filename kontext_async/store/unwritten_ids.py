"""Keeps the IDs of paid tasks until the store has them: in the spool as soon as the store fails or is slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from attrs import define

from kontext_async.store.rows import StepResult
from kontext_async.store.spool import SpooledId

if TYPE_CHECKING:
    from kontext_async.errors import StoreError
    from kontext_async.store.availability import Availability
    from kontext_async.store.spool import Spool
    from kontext_async.store.steps import Accepted

__all__ = ["UnwrittenIds"]

SPOOL_AFTER = 1.0
"""Seconds for which an ID waits for the store, while that does not fail, before it is spooled."""


@define(eq=False)
class _Kept:
    spooled: SpooledId
    since: float
    safe: asyncio.Future[None]


class UnwrittenIds:
    """The IDs that the store does not have yet, and the task that spools them. Create it in a running event loop.

    Args:
        spool: The spool of the worker.
        availability: An ID is spooled at once while the store fails.
    """

    def __init__(self, spool: Spool, availability: Availability) -> None:
        self._spool = spool
        self._availability = availability
        self._exposed: dict[_Kept, None] = {}
        self._spooled: set[_Kept] = set()
        self._removable: list[SpooledId] = []
        self._wake = asyncio.Event()
        self._is_closing = False
        self._loop = asyncio.get_running_loop()
        self._owner = self._loop.create_task(self._run(), name="kontext_async spool")
        availability.on_failure.add(self._on_failure)

    @property
    def task_ids(self) -> list[str]:
        """The IDs that neither the store nor the spool could take yet; references where an ID is not enough."""
        return [kept.spooled.reference or kept.spooled.task_id for kept in self._exposed]

    def add(self, row: int, step: Accepted, written: asyncio.Future[StepResult | StoreError]) -> asyncio.Future[None]:
        """Keep the ID of a step until it is written; return a future that is done when the ID is durable."""
        spooled = SpooledId(row=row, attempt=step.attempt, task_id=step.task_id, reference=step.reference, at=step.at)
        kept = _Kept(spooled=spooled, since=self._loop.time(), safe=self._loop.create_future())
        if not self._exposed or self._availability.failure:
            self._wake.set()
        self._exposed[kept] = None
        written.add_done_callback(lambda done: self._on_written(kept, done))
        return kept.safe

    def adopt(self, spooled: SpooledId, written: asyncio.Future[StepResult | StoreError]) -> None:
        """Keep an ID that is in the spool already."""
        kept = _Kept(spooled=spooled, since=self._loop.time(), safe=self._loop.create_future())
        kept.safe.set_result(None)
        self._spooled.add(kept)
        written.add_done_callback(lambda done: self._on_written(kept, done))

    async def aclose(self) -> None:
        """Spool what the store does not have, and close the spool."""
        self._is_closing = True
        self._wake.set()
        await asyncio.wait([self._owner])
        await self._spool.aclose()

    async def _run(self) -> None:
        while not self._is_closing:
            due = min((kept.since for kept in self._exposed), default=None)
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
        due = [kept for kept in self._exposed if is_urgent or kept.since + SPOOL_AFTER <= now]
        if due:
            self._note_spooled(due, is_spooled=await self._spool.add([kept.spooled for kept in due]))

    def _note_spooled(self, items: list[_Kept], *, is_spooled: bool) -> None:
        for kept in items:
            if not is_spooled:
                kept.since = self._loop.time()  # tried again later
            elif kept in self._exposed:
                del self._exposed[kept]
                self._spooled.add(kept)
                _set_safe(kept)
            else:  # the store took it meanwhile
                self._removable.append(kept.spooled)
                self._wake.set()

    def _on_failure(self, _: object) -> None:
        if self._exposed:
            self._wake.set()

    def _on_written(self, kept: _Kept, done: asyncio.Future[StepResult | StoreError]) -> None:
        if done.cancelled() or not isinstance(done.result(), StepResult):
            return
        _set_safe(kept)
        if kept in self._spooled:
            self._spooled.discard(kept)
            self._removable.append(kept.spooled)
            self._wake.set()
        else:
            self._exposed.pop(kept, None)


def _set_safe(kept: _Kept) -> None:
    if not kept.safe.done():
        kept.safe.set_result(None)
