"""Group commit: concurrent steps are written in one transaction, and each is durable when `commit` returns.

A step is the ID of a row and its changed columns. Steps of one row keep their order; within a group, later ones
override earlier ones.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from kontext_async.bulk.errors import JournalFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["Changes", "Committer", "Write"]

Changes: TypeAlias = "dict[int, dict[str, Any]]"
"""The changed columns and their new values, by the ID of the row."""

Write: TypeAlias = "Callable[[Changes], Awaitable[None]]"

SHORTEST = 0.004
LONGEST = 0.04
PER_STEP = 0.004
"""Seconds for which steps wait for others: `PER_STEP` per step of the previous group, within these bounds. Under load
there are about 20 transactions per second, for any number of tasks; each costs as much as a hundred steps."""


class Committer:
    """Collects steps, and writes them one group at a time.

    Args:
        write: Writes a group durably, or raises `JournalFailed`.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._changes: Changes = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._owner = asyncio.get_running_loop().create_task(self._run(), name="kontext_async journal")

    async def commit(self, row: int, changes: Mapping[str, Any]) -> None:
        """Write one step, and return when it is durable. If the caller is cancelled, the step is still written.

        Raises:
            JournalFailed: The step could not be written.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.note(row, changes)
        self._waiting.append((row, future))
        await future

    def note(self, row: int, changes: Mapping[str, Any]) -> None:
        """Write one step with the next group, without waiting.

        Raises:
            JournalFailed: The journal is closed.
        """
        if self._owner.done():
            raise JournalFailed("the journal is closed: the step was not written")
        self._changes.setdefault(row, {}).update(changes)
        self._news.set()

    async def flush(self) -> None:
        """Return when all earlier steps are written.

        Raises:
            JournalFailed: The step could not be written.
        """
        if self._changes:
            row, changes = next(iter(self._changes.items()))
            await self.commit(row, dict(changes))
        await self._idle.wait()  # a group may be on its way

    async def aclose(self) -> None:
        """Write all remaining steps, and stop."""
        self._closing = True
        self._news.set()
        await asyncio.wait([self._owner])

    async def _run(self) -> None:
        steps = 0
        try:
            while True:
                await self._news.wait()
                if not self._closing:
                    await asyncio.sleep(min(LONGEST, max(SHORTEST, PER_STEP * steps)))
                self._news.clear()
                steps = len(self._changes)
                await self._write_group()
                if self._closing and not self._changes:
                    return
        finally:
            self._resolve(self._waiting, JournalFailed("the journal was closed before the step was written"))

    async def _write_group(self) -> None:
        changes, self._changes = self._changes, {}
        waiting, self._waiting = self._waiting, []
        failure: JournalFailed | None = JournalFailed("the journal was closed before the step was written")
        self._idle.clear()
        try:
            if changes:
                await self._write(changes)
            failure = None
        except JournalFailed as error:
            failure = error
        finally:
            self._idle.set()
            self._resolve(waiting, failure)

    @staticmethod
    def _resolve(waiting: list[tuple[int, asyncio.Future[None]]], failure: JournalFailed | None) -> None:
        for row, future in waiting:
            if future.done():
                continue
            if failure and (failure.rows is None or row in failure.rows):
                future.set_exception(failure.copy())
            else:
                future.set_result(None)
