"""A database: its connections, and the transactions that run on them.

A transaction belongs to the database, not to its caller: if the caller is cancelled, it ends by itself, within its
deadline. So no connection is left in the middle of a statement.
"""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from kontext_async.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from kontext_async.settings import StoreSettings
    from kontext_async.store.sql.migrations import Identity
    from kontext_async.store.sql.transaction import Transaction

__all__ = ["Database", "Lane"]

P = ParamSpec("P")
T = TypeVar("T")

LONG_SECONDS = 600.0
"""The longest time for reading, summing up or forgetting a large run, and for a migration."""


class Lane(enum.Enum):
    """The purpose of a transaction. Those of one lane do not wait for those of another."""

    WRITE = enum.auto()
    READ = enum.auto()
    BEAT = enum.auto()


class Database(ABC):
    """A database.

    Args:
        name: Its name for people, without a password.
        settings: The settings of the store.

    Attributes:
        name: Its name for people, without a password.
        concurrency: The number of groups of steps that may be written at the same time.
        folder: The folder of its file; None for a server.
    """

    concurrency: int
    folder: Path | None = None

    def __init__(self, name: str, settings: StoreSettings) -> None:
        self.name = name
        self.settings = settings
        self._running: set[asyncio.Task[Any]] = set()
        self._is_open = False

    async def open(self) -> Identity:
        """Open it, and create or migrate its tables.

        Raises:
            StoreUnusable: It is not a store, is damaged, is newer than this library, or rights are missing.
            StoreUnavailable: It cannot be reached.
        """
        self._is_open = True
        try:
            return await self._own(self._open())
        except BaseException:
            await self.aclose()
            raise

    async def run(
        self,
        body: Callable[Concatenate[Transaction, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        """Run a function in a transaction that writes; return what it returned once that is durable.

        Raises:
            StoreUnavailable: The database cannot be used now. The transaction may be durable or not.
            StoreUnusable: The database cannot be used.
        """
        return await self.run_in(Lane.WRITE, self.settings.connect, body, *arguments, **options)

    async def run_in(
        self,
        lane: Lane,
        seconds: float,
        body: Callable[Concatenate[Transaction, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        """Run a function in a transaction of a lane, within a time: see `run`."""
        if not self._is_open:
            raise StoreUnavailable(f"the store {self.name} is closed")

        def run(transaction: Transaction) -> T:
            return body(transaction, *arguments, **options)

        return await self._own(self._transact(lane, seconds, run))

    async def aclose(self) -> None:
        """Wait for the transactions that run, and close all connections. It does not raise."""
        self._is_open = False
        if self._running:
            await asyncio.wait(self._running, timeout=self.settings.connect)
        await self._close()

    async def _own(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in a task of the database. It ends by itself if the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(coroutine, name="kontext_async store")
        self._running.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it

    @abstractmethod
    async def _open(self) -> Identity:
        """See `open`."""

    @abstractmethod
    async def _transact(self, lane: Lane, seconds: float, body: Callable[[Transaction], T]) -> T:
        """See `run_in`."""

    @abstractmethod
    async def _close(self) -> None:
        """Close all connections. It does not raise."""
