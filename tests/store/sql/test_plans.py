"""The plans of the statements that run often: none of them reads a whole table, on either database."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from store_support import LEASE, STEPS, new_row, new_step, open_run

from kontext_async import StoreSettings
from kontext_async.store.rows import RowStep, Selection
from kontext_async.store.sql.store import SqlStore
from kontext_async.store.sql.transaction import MOST_RECORDS, Transaction, with_places
from kontext_async.store.steps import Accepted, Completed, Failed, Intended, State
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.anyio

ROWS = 20_000
OTHERS = 2_000
"""Rows of a finished run, and those of one in progress."""

FILL = """
INSERT INTO kontext_requests (run_id, key, state, attempt, digest, model, images, prompt, task_id, cost, folder,
    completion, execution, account, completed_at, received_at)
SELECT {run}, 'key-' || {run} || '-' || n, {state}, 1, {digest}, 'pro', 0, 'a fox', 'task-' || n, '0.04', 1,
    {completion}, 1, 1, 30.0, {received} FROM {numbers}
"""
NUMBERS = {
    "SQLite": "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n FROM s)",
    "PostgreSQL": "generate_series(1, {rows}) AS s(n)",
}
TASKS = {Accepted, Completed, Failed}
DIGEST = {"SQLite": "zeroblob(32)", "PostgreSQL": "decode(repeat('00', 32), 'hex')"}


def fill(transaction: Transaction, run: int, other: int) -> None:
    """Fill a store: a run that is saved, and one whose rows stand in every state."""
    name = transaction.dialect.name
    states = (
        "CASE n - n / 200 * 200 WHEN 0 THEN 'intent' WHEN 1 THEN 'uncertain' WHEN 2 THEN 'accepted' "
        "WHEN 3 THEN 'finished' WHEN 4 THEN 'failed' WHEN 5 THEN 'expired' ELSE 'saved' END"
    )
    for number, rows, state in ((run, ROWS, "'saved'"), (other, OTHERS, states)):
        transaction.execute(
            FILL.format(
                run=number,
                state=state,
                digest=DIGEST[name],
                completion="n" if number == run else "n + 100000",
                received="50.0" if number == run else "NULL",
                numbers=NUMBERS[name].format(rows=rows),
            )
        )
    transaction.execute(
        "INSERT INTO kontext_second_tasks (row_id, task_id, run_id, key, attempt, state, accepted_at) "
        "SELECT id, 'second', run_id, key, 1, 'failed', 1.0 FROM kontext_requests WHERE id - id / 4 * 4 = 0"
    )


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path) -> AsyncIterator[SqlStore]:
    is_server = request.param == "postgresql"
    url = request.getfixturevalue("postgres_database").url if is_server else str(tmp_path / "paid.db")
    store = store_from_url(url, StoreSettings())
    assert isinstance(store, SqlStore)
    await store.open()
    run, other = await open_run(store, "saved"), await open_run(store, "in progress")
    await store.database.run(fill, run.id, other.id)
    if is_server:
        await store.database.run(lambda transaction: transaction.execute("ANALYZE"))
    yield store
    await store.aclose()


class Plans:
    """Records the plan of each statement of a store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[tuple[str, list[str]]] = []
        for name in ("fetch", "execute"):
            monkeypatch.setattr(Transaction, name, self._explaining(getattr(Transaction, name)))
        fetch = Transaction.fetch_values

        def fetch_values(transaction: Transaction, statement: str, width: int, values: Sequence[Any]) -> Iterator[Any]:
            for count in (1, MOST_RECORDS):
                self._explain(transaction, with_places(statement, width, count), tuple(values[:width]) * count)
            return fetch(transaction, statement, width, values)

        monkeypatch.setattr(Transaction, "fetch_values", fetch_values)

    def _explaining(self, method: Any) -> Any:
        def explain(transaction: Transaction, statement: str, **parameters: Any) -> Any:
            self._explain(transaction, statement, {**transaction._clock, **parameters})
            return method(transaction, statement, **parameters)

        return explain

    def _explain(self, transaction: Transaction, statement: str, parameters: dict[str, Any] | tuple[Any, ...]) -> None:
        is_sqlite = transaction.dialect.name == "SQLite"
        text = transaction.dialect.compile(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{statement}")
        records = transaction.connection.exec_driver_sql(text, parameters).fetchall()
        self.found.append((statement, [str(record[-1]) for record in records]))

    def scans(self) -> list[str]:
        """Return the statements that read all requests, or all second tasks."""
        return [f"{statement}\n{plan}" for statement, plan in self.found for line in plan if is_scan(line)]


def is_scan(line: str) -> bool:
    """Return True for a line of a plan that reads all requests, whose alias is ``r``, or all second tasks."""
    return bool(
        re.match(r"SCAN (r|s|kontext_requests|kontext_second_tasks)\b", line)
        or re.search(r"Seq Scan on kontext_(requests|second_tasks)", line)
    )


@pytest.mark.parametrize(
    "line",
    [
        "SCAN r",
        "SCAN r USING INDEX kontext_requests_key",
        "SCAN s",
        "  ->  Seq Scan on kontext_requests r  (cost=0.00..1.00 rows=1)",
    ],
)
def test_a_scan_is_caught(line: str) -> None:
    assert is_scan(line)


async def test_no_statement_of_a_worker_reads_a_whole_table(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await store.add_worker(os.urandom(16), LEASE)
    run = await open_run(store, "in progress")
    plans = Plans(monkeypatch)
    rows = await store.plan(run.id, [new_row(f"new-{number}") for number in range(30)], worker=worker, execution=2)
    moved = [new_row(f"new-{number}", position=number) for number in range(30)]
    await store.plan(run.id, moved, execution=3)
    await store.remove_worker(worker)
    worker = await store.add_worker(os.urandom(16), LEASE)
    await store.plan(run.id, moved, worker=worker, execution=3)
    await store.fetch([row.id for row in rows])
    await store.find(run.id, [row.key for row in rows])
    for kind in STEPS:
        for details in ({}, {"limit": 1000} if kind is Intended else {}):
            step = new_step(kind, 1, **details) if kind not in TASKS else new_step(kind, 1, task_id="task", **details)
            await store.apply(worker, [RowStep(row=row.id, step=step) for row in rows])
    await store.beat(worker, LEASE)
    assert len(plans.found) > 2 * len(STEPS)
    assert plans.scans() == []


SELECTIONS: dict[str, dict[str, Any]] = {
    "uncertain rows of a run": {"states": frozenset({State.UNCERTAIN})},
    "paid rows that are missing from the latest input": {
        "states": frozenset({State.ACCEPTED, State.COMPLETED}),
        "execution_below": 2,
    },
    "rows to recover": {
        "states": frozenset({State.ACCEPTED, State.COMPLETED, State.UNCERTAIN}),
        "account": 1,
        "unreceived": True,
        "unowned": True,
    },
    "intents of dead workers": {"states": frozenset({State.INTENT}), "unowned": True},
    "rows in the order of completion": {"folder": 1, "by_completion": True},
}


@pytest.mark.parametrize("name", SELECTIONS)
async def test_no_selection_that_is_read_often_reads_a_whole_table(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = await open_run(store, "in progress")
    plans = Plans(monkeypatch)
    selection = Selection(run=run.id, **SELECTIONS[name])
    rows = await store.page(selection)
    await store.page(selection, after=rows[-1].id)
    if selection.unreceived:
        await store.page(evolve(selection, run=None))
    assert plans.scans() == []
    assert rows


async def test_a_whole_run_is_read_in_order_without_sorting_it_for_each_page(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await open_run(store, "saved")
    plans = Plans(monkeypatch)
    rows = await store.page(Selection(run=run.id))
    await store.page(Selection(run=run.id), after=rows[-1].id)
    lines = [line for _, plan in plans.found for line in plan]
    assert not [line for line in lines if "TEMP B-TREE" in line or "Sort" in line]
    assert [line for line in lines if "INTEGER PRIMARY KEY (rowid>?)" in line or "kontext_requests_pkey" in line]


async def test_a_limit_reads_what_is_in_flight_alone(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await store.add_worker(os.urandom(16), LEASE)
    run = await open_run(store, "saved")
    [row] = await store.plan(run.id, [new_row()])
    plans = Plans(monkeypatch)
    await store.apply(worker, [RowStep(row=row.id, step=new_step(Intended, 1, limit=1000))])
    sums = [plan for statement, plan in plans.found if "count(*)" in statement and "GROUP BY" in statement]
    assert any("kontext_requests_reserved" in line for plan in sums for line in plan)
    assert plans.scans() == []
