"""Rows and steps for the tests of the store: the values that a test does not care about are filled in."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from attrs import define, field, frozen

from kontext_async.settings import StoreSettings
from kontext_async.store.base import DEFAULT_RUN
from kontext_async.store.memory import MemoryDatabase, MemoryStore
from kontext_async.store.rows import Account, NewRow, RowStep
from kontext_async.store.steps import (
    Accepted,
    Adopted,
    Completed,
    Expired,
    Failed,
    FilesLost,
    Forgotten,
    Intended,
    Orphaned,
    Received,
    Resubmitted,
    Saved,
    Step,
    Uncertain,
    Verdict,
    Withdrawn,
)
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row, Run, StepResult

__all__ = [
    "ACCOUNT",
    "LEASE",
    "NOTHING",
    "PRICE",
    "STEPS",
    "Stores",
    "Worker",
    "accept",
    "complete",
    "new_row",
    "new_step",
    "open_run",
]

LEASE = 15.0
PRICE = Decimal("0.04")
NOTHING = Decimal(0)
ACCOUNT = Account(gateway="vtrix", base="https://gateway.example", name="team")

DETAILS: dict[type[Step], dict[str, Any]] = {
    Intended: {"account": 1, "at": 10.0, "reserved": PRICE},
    Accepted: {"at": 20.0},
    Adopted: {"account": 1},
    Completed: {"at": 30.0, "result": {"images": []}, "cost": PRICE},
    Failed: {"at": 30.0, "error": {"type": "TaskFailed"}},
    Expired: {"at": 30.0, "error": {"type": "TaskNotFound"}},
    Uncertain: {"error": {"type": "SubmissionUncertain"}},
    Resubmitted: {"uncertain_attempts": 1, "reserved": PRICE},
    Saved: {"folder": 1, "files": (("fox.jpg", 3),), "completion": 1, "at": 40.0},
    Received: {"at": 50.0},
}

STEPS: tuple[type[Step], ...] = (
    Intended,
    Accepted,
    Adopted,
    Withdrawn,
    Uncertain,
    Orphaned,
    Completed,
    Failed,
    Expired,
    Resubmitted,
    Saved,
    FilesLost,
    Received,
    Forgotten,
)
"""All steps, in the order in which a row takes them."""


def new_step(kind: type[Step], attempt: int, **details: Any) -> Step:
    """Return a step."""
    return kind(attempt=attempt, **DETAILS.get(kind, {}) | details)


def new_row(key: str = "fox", **details: Any) -> NewRow:
    """Return a request to plan."""
    values: dict[str, Any] = {"digest": b"d" * 32, "model": "pro", "images": 0, "prompt": "a fox"}
    return NewRow(key=key, **values | details)


@frozen
class Worker:
    """A worker with a store of its own.

    Attributes:
        store: Its store.
        number: Its number.
    """

    store: Store
    number: int

    async def take(self, row: Row | int, kind: type[Step], attempt: int, **details: Any) -> StepResult:
        """Write one step, and return what became of it."""
        number = row if isinstance(row, int) else row.id
        [result] = await self.store.apply(self.number, [RowStep(row=number, step=new_step(kind, attempt, **details))])
        return result

    async def must_take(self, row: Row | int, *steps: tuple[type[Step], int], **details: Any) -> Row:
        """Write steps that must be applied, and return the row after them."""
        for kind, attempt in steps:
            result = await self.take(row, kind, attempt, **(details if kind is steps[-1][0] else {}))
            assert result.verdict is Verdict.APPLIED, (kind, result)
        return await self.read(row)

    async def read(self, row: Row | int) -> Row:
        """Return the row as it is now."""
        number = row if isinstance(row, int) else row.id
        return (await self.store.fetch([number]))[number]

    async def die(self) -> None:
        """Let the lease of the worker pass."""
        await self.store.beat(self.number, 0.0)

    async def revive(self) -> None:
        """Beat once more: the process was stopped, and continues."""
        await self.store.beat(self.number, LEASE)


@define
class Stores:
    """As many stores over one database as a test needs. They are closed at the end.

    Attributes:
        place: The database in memory, or the URL of one.
    """

    place: MemoryDatabase | str
    _ends: AsyncExitStack = field(factory=AsyncExitStack, init=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._ends.aclose()

    async def connect(self) -> Store:
        """Open another store, as another process would, with the first account and the first run."""
        store = self._new_store()
        await store.open()
        self._ends.push_async_callback(store.aclose)
        assert await store.account(ACCOUNT) == 1
        assert (await open_run(store, DEFAULT_RUN)).id == 1
        return store

    async def start_worker(self) -> Worker:
        """Open another store, and register a worker."""
        store = await self.connect()
        return Worker(store, await store.add_worker(secrets.token_bytes(16), LEASE))

    def _new_store(self) -> Store:
        if isinstance(self.place, MemoryDatabase):
            return MemoryStore(self.place)
        return store_from_url(self.place, StoreSettings())


async def open_run(store: Store, name: str, *, executes: bool = False) -> Run:
    """Open a run that may be new."""
    run = await store.open_run(name, executes=executes)
    assert run is not None
    return run


async def accept(worker: Worker, row: Row, attempt: int = 1) -> Row:
    """Record that an attempt was sent and accepted."""
    await worker.must_take(row, (Intended, attempt))
    return await worker.must_take(row, (Accepted, attempt), task_id=f"task-{attempt}")


async def complete(worker: Worker, row: Row, attempt: int = 1, *, at: float = 30.0) -> Row:
    """Record that an attempt was sent and accepted, and that its task completed."""
    await accept(worker, row, attempt)
    return await worker.must_take(row, (Completed, attempt), task_id=f"task-{attempt}", at=at)
