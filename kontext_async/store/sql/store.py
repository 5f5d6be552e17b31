"""`SqlStore`: the store in SQLite or PostgreSQL. Each method is a transaction: a function of a module beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import anyio.to_thread

from kontext_async.errors import StoreUnusable
from kontext_async.store.base import Store
from kontext_async.store.disk_reserve import DiskReserve
from kontext_async.store.sql import reading, registers
from kontext_async.store.sql.applying import apply_steps
from kontext_async.store.sql.database import LONG_SECONDS, Database, Lane
from kontext_async.store.sql.planning import plan_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from kontext_async.store.limits import Commitment
    from kontext_async.store.rows import (
        Account,
        NewRow,
        Row,
        RowStep,
        Run,
        RunSummary,
        SecondTask,
        Selection,
        StepResult,
    )
    from kontext_async.store.sql.transaction import Transaction

__all__ = ["SqlStore"]

P = ParamSpec("P")
T = TypeVar("T")

RESERVE_SIZE = 2 * 1024 * 1024
"""Bytes, enough for the steps of thousands of tasks in flight."""


class SqlStore(Store):
    """The store in a database.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.name = database.name
        self.concurrency = database.concurrency
        self.reserve_beside = database.folder
        self._reserve = None if database.folder is None else DiskReserve(database.folder, RESERVE_SIZE)

    async def open(self) -> None:
        """See `Store.open`."""
        identity = await self.database.open()
        self.identity, self.salt = identity.text, identity.salt
        if self._reserve is not None:
            try:
                await anyio.to_thread.run_sync(self._reserve.allocate)
            except BaseException:
                await self.aclose()
                raise

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        await self.database.aclose()
        self.release_reserve()

    async def add_worker(self, token: bytes, lease: float) -> int:
        """See `Store.add_worker`."""
        return await self.database.run(registers.add_worker, token, lease)

    async def beat(self, worker: int, lease: float) -> None:
        """See `Store.beat`."""
        await self.database.run_in(Lane.BEAT, self.database.settings.connect, registers.beat, worker, lease)

    async def remove_worker(self, worker: int) -> None:
        """See `Store.remove_worker`."""
        await self.database.run(registers.remove_worker, worker)

    async def account(self, account: Account) -> int:
        """See `Store.account`."""
        return await self.database.run(registers.register_account, account)

    async def accounts(self) -> dict[int, Account]:
        """See `Store.accounts`."""
        return await self._read(registers.fetch_accounts)

    async def open_run(self, name: str, *, create: bool = True, executes: bool = False) -> Run | None:
        """See `Store.open_run`."""
        return await self.database.run(registers.open_run, name, create=create, executes=executes)

    async def run_names(self) -> dict[int, str]:
        """See `Store.run_names`."""
        return await self._read(registers.fetch_run_names)

    async def folder(self, token: bytes, path: str) -> int:
        """See `Store.folder`."""
        return await self.database.run(registers.register_folder, token, path)

    async def folders(self) -> dict[int, str]:
        """See `Store.folders`."""
        return await self._read(registers.fetch_folders)

    async def plan(
        self, run: int, rows: Sequence[NewRow], *, worker: int | None = None, execution: int | None = None
    ) -> list[Row]:
        """See `Store.plan`."""
        return await self.database.run(plan_rows, run, rows, worker, execution)

    async def fetch(self, rows: Collection[int]) -> dict[int, Row]:
        """See `Store.fetch`."""
        return await self._read(reading.fetch_rows, rows)

    async def find(self, run: int, keys: Collection[str]) -> dict[str, Row]:
        """See `Store.find`."""
        return await self._read(reading.fetch_rows_by_key, run, keys)

    async def apply(self, worker: int, steps: Sequence[RowStep]) -> list[StepResult]:
        """See `Store.apply`."""
        return await self.database.run(apply_steps, worker, steps)

    async def page(self, selection: Selection, *, after: int = 0, limit: int = 500) -> list[Row]:
        """See `Store.page`."""
        return await self._read(reading.fetch_page, selection, after, limit)

    async def second_tasks(self, run: int | None = None) -> list[SecondTask]:
        """See `Store.second_tasks`."""
        return await self._read(reading.fetch_second_tasks, run)

    async def receive_second_task(self, row: int, task_id: str, at: float) -> None:
        """See `Store.receive_second_task`."""
        await self.database.run(reading.receive_second_task, row, task_id, at)

    async def commitment(self, run: int) -> Commitment:
        """See `Store.commitment`."""
        return await self._read(reading.read_commitment, run)

    async def summary(self, run: int) -> RunSummary:
        """See `Store.summary`."""
        return await self._read(reading.summarize, run)

    async def forget(self, before: float, *, run: int | None = None) -> int:
        """See `Store.forget`. Rows are deleted in several transactions, so that steps of other workers come between."""
        total, after = 0, 0
        while True:
            deleted, last = await self.database.run(reading.delete_old_rows, before, run, after)
            total += deleted
            if last is None:
                break
            after = last
        await self.database.run(reading.delete_old_second_tasks)
        return total

    def release_reserve(self) -> bool:
        """See `Store.release_reserve`."""
        return self._reserve is not None and self._reserve.release()

    def restore_reserve(self) -> bool:
        """See `Store.restore_reserve`."""
        try:
            if self._reserve is not None:
                self._reserve.allocate()
        except StoreUnusable:
            return False
        return True

    async def _read(self, body: Callable[Concatenate[Transaction, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        return await self.database.run_in(Lane.READ, LONG_SECONDS, body, *arguments, **options)
