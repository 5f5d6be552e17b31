"""The statements of a group against the pure rules: whatever a row is, and whatever the step, both do the same."""

# ruff: noqa: S608 # our words

from __future__ import annotations

import asyncio
import secrets
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings, strategies as st
from store_support import LEASE, STEPS, new_step, open_run

from kontext_async import StoreSettings
from kontext_async.store.outcomes import decide
from kontext_async.store.rows import RowStep, SecondTask
from kontext_async.store.sql.records import COLUMNS, encode
from kontext_async.store.sql.store import SqlStore
from kontext_async.store.steps import Accepted, Completed, Expired, Failed, Intended, State, Verdict
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.store.rows import Row
    from kontext_async.store.sql.transaction import Transaction
    from kontext_async.store.steps import Step

TASK_IDS: dict[State, list[str | None]] = {
    State.ACCEPTED: ["task-1"],
    State.COMPLETED: ["task-1"],
    State.SAVED: ["task-1"],
    State.FAILED: [None, "task-1"],
    State.EXPIRED: ["task-1"],
}
GROUP = 300
"""Rows, each with a step, of one group."""

SECOND_TASK = SecondTask(
    row=0, run="", key="", attempt=1, task_id="task-2", account=1, state=State.ACCEPTED, accepted_at=20.0
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "paid.db")
    address: str = request.getfixturevalue("postgres_database").url
    return address


def draw_record(random: Random, number: int, owners: list[int | None]) -> dict[str, Any]:
    """Return the columns of a row in any state, also of one that no sequence of steps leads to."""
    state = random.choice([*State])
    has_cost = state in (State.COMPLETED, State.SAVED, State.FAILED, State.EXPIRED)
    return {
        "key": f"row-{number}",
        "state": state,
        "attempt": random.choice([0, 1, 2]),
        "owner": random.choice(owners),
        "account": random.choice([None, 1, 2]),
        "digest": bytes(32),
        "model": "pro",
        "images": 0,
        "prompt": "a fox",
        "uncertain_attempts": random.choice([0, 1]),
        "reserved": random.choice([None, Decimal("0.04")]),
        "task_id": random.choice(TASK_IDS.get(state, [None])),
        "cost": random.choice([None, Decimal("0.04")]) if has_cost else None,
        "files": random.choice([(), (("fox.jpg", 3),)]),
        "received_at": random.choice([None, 50.0]),
    }


def draw_step(random: Random) -> Step:
    kind = random.choice(STEPS)
    details: dict[str, Any] = {}
    if kind in (Accepted, Completed, Failed, Expired):
        details["task_id"] = random.choice(["task-1", "task-2"])
    if kind in (Failed, Expired) and random.random() < 0.5:
        details["task_id"] = None
    if kind in (Completed, Failed):
        details["cost"] = random.choice([None, Decimal("0.05")])
    if kind is Intended:
        details["account"] = random.choice([1, 2])
    return new_step(kind, random.choice([0, 1, 2, 3]), **details)


def insert(transaction: Transaction, run: int, records: list[dict[str, Any]]) -> list[int]:
    columns = ["run_id", *(name for name in COLUMNS if name in records[0])]
    statement = (
        f"INSERT INTO kontext_requests ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)}) "
        "RETURNING id"
    )
    return [
        transaction.fetch(statement, run_id=run, **{name: encode(name, value) for name, value in record.items()})[0][0]
        for record in records
    ]


def insert_second_tasks(transaction: Transaction, run: int, rows: list[int]) -> None:
    for row in rows:
        transaction.execute(
            "INSERT INTO kontext_second_tasks (row_id, task_id, run_id, key, attempt, account, state, accepted_at) "
            "VALUES (:row, 'task-2', :run, '', 1, 1, 'accepted', 20.0)",
            row=row,
            run=run,
        )


def strip(row: Row | None) -> Row | None:
    """Return a row without what depends on the clock: whether its owner lives."""
    return row and evolve(row, owner_alive=False)


async def compare(url: str, random: Random) -> None:
    """Apply a group of steps to rows in any state, and compare with what `decide` does to each."""
    store = store_from_url(url, StoreSettings())
    assert isinstance(store, SqlStore)
    await store.open()
    run = await open_run(store, secrets.token_hex(8))
    me, living, dead = [await store.add_worker(secrets.token_bytes(16), lease) for lease in (LEASE, LEASE, 0.0)]
    records = [draw_record(random, number, [None, me, living, dead]) for number in range(GROUP)]
    numbers = await store.database.run(insert, run.id, records)
    doubled = [number for number in numbers if random.random() < 0.2]
    await store.database.run(insert_second_tasks, run.id, doubled)
    before = await store.fetch(numbers)
    steps = [RowStep(row=number, step=draw_step(random)) for number in numbers]

    results = await store.apply(me, steps)

    after, second_tasks = await store.fetch(numbers), await store.second_tasks(run.id)
    spent = Decimal(0)
    for each, result in zip(steps, results, strict=True):
        row = before[each.row]
        known = {"task-2": evolve(SECOND_TASK, row=row.id, run=run.name)} if row.id in doubled else {}
        outcome = decide(row, each.step, me, run=run.name, second_tasks=known)
        spent += outcome.spent
        assert result.verdict is outcome.verdict, (row, each.step)
        assert strip(after.get(each.row)) == strip(outcome.row), (row, each.step)
        found = {task.task_id: (task.state, task.cost) for task in second_tasks if task.row == row.id}
        assert found == {task_id: (task.state, task.cost) for task_id, task in outcome.second_tasks.items()}
        if outcome.verdict in (Verdict.LOST, Verdict.SECOND_TASK):
            assert strip(result.row) == strip(outcome.row)
    assert (await store.summary(run.id)).spent == spent
    await store.aclose()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random=st.randoms(use_true_random=False))
def test_a_group_in_the_database_does_what_the_rules_say(url: str, random: Random) -> None:
    asyncio.run(compare(url, Random(random.random())))
