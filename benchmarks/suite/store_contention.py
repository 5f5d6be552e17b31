"""The time in which several workers take the same rows of a PostgreSQL store, and the deadlocks meanwhile.

``python -m benchmarks.suite.store_contention [--full]``

At the end of a shared run, each worker submits whatever is left. Here the workers read the same rows in batches of a
random order. They write groups of steps like those of a session, without a pause, so that the groups meet: the attempts
of free rows, and what follows for the rows that they have won. Beside it, each worker has rows of its own. There is no
gateway.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from benchmarks.support.stores import POSTGRES, start_store
from benchmarks.support.thresholds import check_threshold
from kontext_async.errors import StoreUnavailable
from kontext_async.settings import StoreSettings
from kontext_async.store.rows import NewRow, RowStep
from kontext_async.store.steps import Accepted, Completed, Intended, Saved, Verdict
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from benchmarks.servers.postgres import PostgresDatabase
    from kontext_async.store.base import Store
    from kontext_async.store.rows import StepResult
    from kontext_async.store.steps import Step

__all__ = ["Sizes", "describe", "measure"]

BATCH = 256
"""The rows that a worker reads together."""
LARGEST = 64
"""The most steps of a group."""
PRICE = Decimal("0.04")
PAUSE = 0.05
"""Seconds before a group is repeated."""
STATISTICS_SECONDS = 20.0
"""The longest wait until PostgreSQL has counted what the closed connections did."""


@frozen(kw_only=True)
class Sizes:
    """How much to measure.

    Attributes:
        workers: The workers.
        rows: The rows that they take together.
        rounds: The times that they do so.
    """

    workers: int = 4
    rows: int = 2000
    rounds: int = 3


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure the race for the same rows, and the same work apart, by turns."""
    sizes = sizes or (Sizes() if quick else Sizes(rounds=20))
    seconds: dict[str, list[float]] = {"together": [], "apart": []}
    won: list[int] = []
    with tempfile.TemporaryDirectory() as name, start_store(POSTGRES, Path(name)) as server:
        assert server.database is not None
        for number in range(sizes.rounds):
            for case, some in seconds.items():
                run = f"{case} {number}"
                took, taken = asyncio.run(take_rows(server.url, run, sizes, number, shares=case == "together"))
                some.append(round(took, 3))
                won.append(taken)
        deadlocks, undone = count_undone(server.database)
    worst = max(together / apart for together, apart in zip(*seconds.values(), strict=True))
    return {
        "settings": {"workers": sizes.workers, "rows": sizes.rows, "rounds": sizes.rounds},
        "seconds": seconds,
        "undone": undone,
        "thresholds": [
            check_threshold("deadlocks", deadlocks, 0),
            check_threshold("rows that were not taken exactly once", sum(each != sizes.rows for each in won), 0),
            check_threshold("the longest race, as a multiple of the same work apart", round(worst, 2), 4),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the times."""
    times = figures["seconds"]
    return [
        f"{case}: {', '.join(f'{seconds:.2f}' for seconds in times[case])} s for {figures['settings']['rows']} rows"
        for case in times
    ] + [f"{figures['undone']} transactions were undone"]


async def take_rows(url: str, run: str, sizes: Sizes, seed: int, *, shares: bool) -> tuple[float, int]:
    """Have all workers take rows, the same ones if `shares`; return the seconds, and how many rows they have won."""
    racers = [await Racer.start(url, run) for _ in range(sizes.workers)]
    try:
        keys = [f"key-{number}" for number in range(sizes.rows)]
        for number, racer in enumerate(racers):
            mine = keys if shares else keys[number :: sizes.workers]
            await racer.read(mine, Random(seed * sizes.workers + number))
        began = time.perf_counter()
        await asyncio.gather(*(racer.race() for racer in racers))
        return time.perf_counter() - began, sum(racer.won for racer in racers)
    finally:
        for racer in racers:
            await racer.store.aclose()


def count_undone(database: PostgresDatabase) -> tuple[int, int]:
    """Return the deadlocks and the transactions that were undone, once all connections are closed."""
    end = time.monotonic() + STATISTICS_SECONDS
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while database.execute(others)[0][0] and time.monotonic() < end:
        time.sleep(0.1)
    query = "SELECT deadlocks, xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    [(deadlocks, undone)] = database.execute(query)
    return deadlocks, undone


@define
class Racer:
    """A worker.

    Attributes:
        store: Its store.
        number: Its number.
        run: The number of the run.
        execution: The number of its execution.
        won: The rows that it has taken.
    """

    store: Store
    number: int
    run: int
    execution: int
    won: int = 0
    _free: list[int] = field(factory=list, init=False)
    _following: list[RowStep] = field(factory=list, init=False)

    @classmethod
    async def start(cls, url: str, run: str) -> Racer:
        """Open a store, and join a run."""
        store = store_from_url(url, StoreSettings())
        await store.open()
        opened = await store.open_run(run, executes=True)
        assert opened is not None
        return cls(store, await store.add_worker(secrets.token_bytes(16), 600.0), opened.id, opened.execution)

    async def read(self, keys: list[str], random: Random) -> None:
        """Plan rows. The worker takes them in a random order of batches."""
        new = [NewRow(key=key, digest=bytes(32), model="pro", images=0, prompt="a fox") for key in keys]
        batches = [new[start : start + BATCH] for start in range(0, len(new), BATCH)]
        random.shuffle(batches)
        for batch in batches:
            rows = await self.store.plan(self.run, batch, worker=self.number, execution=self.execution)
            self._free += [row.id for row in rows]
        self._free.reverse()

    async def race(self) -> None:
        """Take rows, with as many writers as a session has, until none is left."""
        await asyncio.gather(*(self._write() for _ in range(self.store.concurrency)))

    async def _write(self) -> None:
        while group := self._take_group():
            for each, result in zip(group, await self._apply(group), strict=True):
                self._follow(each, result)

    async def _apply(self, group: list[RowStep]) -> list[StepResult]:
        """Write a group; repeat it if the server has undone it too often."""
        while True:
            with suppress(StoreUnavailable):
                return await self.store.apply(self.number, group)
            await asyncio.sleep(PAUSE)

    def _take_group(self) -> list[RowStep]:
        group, self._following = self._following[:LARGEST], self._following[LARGEST:]
        while self._free and len(group) < LARGEST:
            group.append(RowStep(row=self._free.pop(), step=Intended(attempt=1, account=1, at=time.time())))
        return group

    def _follow(self, each: RowStep, result: StepResult) -> None:
        """Queue the next step of a row that this worker has won."""
        if result.verdict is not Verdict.APPLIED:
            return
        self.won += isinstance(each.step, Intended)
        if step := next_step(each):
            self._following.append(RowStep(row=each.row, step=step))


def next_step(each: RowStep) -> Step | None:
    """Return the step that follows one."""
    task = f"task-{each.row}"
    match each.step:
        case Intended():
            return Accepted(attempt=1, task_id=task, at=time.time())
        case Accepted():
            return Completed(attempt=1, task_id=task, result={"images": []}, cost=PRICE, at=time.time())
        case Completed():
            return Saved(attempt=1, folder=1, files=(("fox.png", 3),), completion=1, at=time.time())
    return None


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("store_contention")
