"""Waits for rows that other workers change: one poll of the store for all rows that are watched.

Deadlines are the callers'. A poll that fails is repeated.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define

from kontext_async.errors import SessionClosed, StoreError
from kontext_async.store.calls import call_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from kontext_async.store.rows import Row

__all__ = ["RowWatcher", "has_changed"]

SHORTEST = 0.2
LONGEST = 1.0
GROWTH = 1.5
"""Seconds between two polls of a row: from the shortest to the longest, each time by this factor longer."""


def has_changed(row: Row, current: Row) -> bool:
    """Return True if a row differs in what concerns a caller who waits for it, or its owner is dead."""
    if current.owner is not None and not current.owner_alive:
        return True
    return (row.state, row.attempt, row.owner, row.task_id) != (
        current.state,
        current.attempt,
        current.owner,
        current.task_id,
    )


@define(eq=False)
class _Watch:
    row: Row
    changed: asyncio.Future[Row | SessionClosed | None]
    """An error is its result: its caller may have left, and asyncio reports an error that nobody looks at."""
    due: float
    interval: float = SHORTEST


class RowWatcher:
    """Polls the rows that callers wait for. Create it in a running event loop.

    Args:
        fetch: Reads rows by their numbers: `Store.fetch`.
        time_limit: Seconds for one poll.
    """

    def __init__(self, fetch: Callable[[Collection[int]], Awaitable[dict[int, Row]]], time_limit: float) -> None:
        self._fetch = fetch
        self._time_limit = time_limit
        self._watches: dict[_Watch, None] = {}
        self._news = asyncio.Event()
        self._wakes_at: float | None = None
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._owner = self._loop.create_task(self._run(), name="kontext_async rows")

    async def changed(self, row: Row) -> Row | None:
        """Wait until a row differs in the store from the given one, and return it; None if it is gone.

        Raises:
            SessionClosed: The worker has ended.
        """
        if self._is_closed:
            raise _closed()
        watch = _Watch(row=row, changed=self._loop.create_future(), due=self._loop.time() + SHORTEST)
        self._watches[watch] = None
        if self._wakes_at is None or self._wakes_at > watch.due:
            self._news.set()
        try:
            changed = await watch.changed
        finally:
            self._watches.pop(watch, None)
        if isinstance(changed, SessionClosed):
            raise changed
        return changed

    async def aclose(self) -> None:
        """Stop polling. Callers fail with `SessionClosed`."""
        self._is_closed = True
        self._owner.cancel()
        await asyncio.wait([self._owner])
        for watch in self._watches:
            if not watch.changed.done():
                watch.changed.set_result(_closed())

    async def _run(self) -> None:
        while True:
            self._news.clear()
            self._wakes_at = min((watch.due for watch in self._watches), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._wakes_at):
                    await self._news.wait()
            now = self._loop.time()
            if due := [watch for watch in self._watches if watch.due <= now]:
                await self._poll(due)

    async def _poll(self, watches: list[_Watch]) -> None:
        rows = None
        with suppress(StoreError):
            rows = await call_store(self._fetch({watch.row.id for watch in watches}), self._time_limit)
        now = self._loop.time()
        for watch in watches:
            watch.interval = min(LONGEST, watch.interval * GROWTH)
            watch.due = now + watch.interval
            if rows is not None and not watch.changed.done():
                current = rows.get(watch.row.id)
                if current is None or has_changed(watch.row, current):
                    watch.changed.set_result(current)


def _closed() -> SessionClosed:
    return SessionClosed("the session was closed while it waited for another worker's request")
