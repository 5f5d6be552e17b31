"""A store in memory whose methods fail, hang, or write and then fail, on command; and workers over it."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from store_support import new_row

from kontext_async.errors import StoreUnavailable
from kontext_async.settings import StoreSettings
from kontext_async.store.memory import MemoryDatabase, MemoryStore
from kontext_async.store.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
    from pathlib import Path

    from kontext_async.errors import StoreError
    from kontext_async.store.rows import Account, NewRow, Row, RowStep, Run, StepResult
    from kontext_async.store.steps import Step

__all__ = ["Fault", "UnreliableStore", "open_worker", "plan_row", "start", "worker_settings"]

T = TypeVar("T")


class Fault(enum.Enum):
    """What goes wrong with a call."""

    FAIL = enum.auto()
    HANG = enum.auto()
    WRITE_AND_FAIL = enum.auto()
    """The transaction was committed, and the connection was lost before the response."""
    CRASH = enum.auto()
    """The driver raises something of its own, with the statement in it."""
    FORGET_A_RESULT = enum.auto()


class UnreliableStore(MemoryStore):
    """A store in memory.

    Attributes:
        faults: The fault of each method, by name, until it is removed.
        script: The faults of the next groups of steps, before those of `faults`.
        error: What is raised.
        poison: Steps that the database never takes.
        groups: The groups that were written or tried.
        broken_rules: The rules of `Store` that callers broke. An exception would be repeated as a failure.
        gates: A call of a method waits, once it was sent, until its gate is open.
        calls: The number of calls by method.
        has_reserve: True if disk space is reserved.
        is_full: True if no disk space can be reserved again.
        slow: True if a group is in flight for 20 ms.
        turns: The number of turns of the loop for which a group, or a plan, is in flight.
        most_at_once: The most groups that were in flight at the same time.
    """

    def __init__(self, database: MemoryDatabase | None = None, *, concurrency: int = 1) -> None:
        super().__init__(database)
        self.concurrency = concurrency
        self.faults: dict[str, Fault] = {}
        self.script: list[Fault] = []
        self.error: StoreError = StoreUnavailable("the server was stopped")
        self.poison: list[Step] = []
        self.groups: list[list[RowStep]] = []
        self.broken_rules: list[str] = []
        self.calls: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.has_reserve = False
        self.is_full = False
        self.slow = False
        self.turns = 0
        self.most_at_once = 0
        self._in_flight: list[int] = []

    @property
    def steps(self) -> list[Step]:
        """All steps that were tried, in order."""
        return [each.step for group in self.groups for each in group]

    async def beat(self, worker: int, lease: float) -> None:
        await self._call("beat", super().beat(worker, lease))

    async def remove_worker(self, worker: int) -> None:
        await self._call("remove_worker", super().remove_worker(worker))

    async def account(self, account: Account) -> int:
        return await self._call("account", super().account(account))

    async def open_run(self, name: str, *, create: bool = True, executes: bool = False) -> Run | None:
        return await self._call("open_run", super().open_run(name, create=create, executes=executes))

    async def plan(
        self, run: int, rows: Sequence[NewRow], *, worker: int | None = None, execution: int | None = None
    ) -> list[Row]:
        self._expect(len({row.key for row in rows}) == len(rows), "the keys of a statement differ")
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return await self._call("plan", super().plan(run, rows, worker=worker, execution=execution))

    async def fetch(self, rows: Collection[int]) -> dict[int, Row]:
        return await self._call("fetch", super().fetch(rows))

    async def apply(self, worker: int, steps: Sequence[RowStep]) -> list[StepResult]:
        self.groups.append(list(steps))
        rows = {each.row for each in steps}
        self._expect(not rows & set(self._in_flight), "two groups at once have no row in common")
        if any(each.step in self.poison for each in steps):
            raise self.error
        fault = self.script.pop(0) if self.script else self.faults.get("apply")
        self._in_flight += rows
        self.most_at_once = max(self.most_at_once, len(self._in_flight))
        try:
            await asyncio.sleep(0.02 if self.slow else 0)
            for _ in range(self.turns):
                await asyncio.sleep(0)
            results = await self._fail("apply", super().apply(worker, steps), fault)
        finally:
            for row in rows:
                self._in_flight.remove(row)
        return results[:-1] if fault is Fault.FORGET_A_RESULT else results

    def release_reserve(self) -> bool:
        had, self.has_reserve = self.has_reserve, False
        if had:
            self.script = []  # there is space now
        return had

    def restore_reserve(self) -> bool:
        self.has_reserve = not self.is_full
        return self.has_reserve

    def _expect(self, holds: bool, rule: str) -> None:  # noqa: FBT001 # read as a sentence
        if not holds:
            self.broken_rules.append(rule)

    async def _call(self, name: str, call: Awaitable[T]) -> T:
        return await self._fail(name, call, self.faults.get(name))

    async def _fail(self, name: str, call: Awaitable[T], fault: Fault | None) -> T:
        self.calls[name] += 1
        if gate := self.gates.get(name):
            await gate.wait()
        if fault is Fault.WRITE_AND_FAIL:
            await call
        elif fault in (None, Fault.FORGET_A_RESULT):
            return await call
        else:
            call.close()  # type: ignore[attr-defined] # it is a coroutine
        if fault is Fault.HANG:
            await asyncio.Event().wait()
        if fault is Fault.CRASH:
            raise LookupError("INSERT INTO kontext_requests VALUES ('secret')")
        raise self.error.copy()


def worker_settings(folder: Path, *, step: float = 0.5, connect: float = 0.2, beat: float = 0.05) -> StoreSettings:
    """Return settings with short limits, and a spool of the test's own."""
    return StoreSettings(lease=4 * beat, beat=beat, connect=connect, step=step, spool=folder)


async def start(worker: Worker, account: str | None = "team") -> Worker:
    """Start a worker."""
    await worker.start(gateway="vtrix", base_url="https://gateway.example", api_key="sk-key", account=account)
    return worker


@asynccontextmanager
async def open_worker(store: MemoryStore, settings: StoreSettings) -> AsyncIterator[Worker]:
    """Start a worker, and close it."""
    worker = await start(Worker(store, settings))
    try:
        yield worker
    finally:
        await worker.aclose(0.3)
        assert not isinstance(store, UnreliableStore) or store.broken_rules == []


async def plan_row(worker: Worker, key: str = "fox") -> Row:
    """Plan one row."""
    run = await worker.run("default")
    assert run
    [row] = await worker.plan(run.id, [new_row(key)])
    return row
