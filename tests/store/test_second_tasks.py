"""A second paid task of a row, in every store: it is never lost, and counts as spent."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from store_support import NOTHING, PRICE, Worker, accept, open_run

from kontext_async.store.steps import (
    Accepted,
    Completed,
    Failed,
    Intended,
    Orphaned,
    Resubmitted,
    State,
    Uncertain,
    Verdict,
    Withdrawn,
)

if TYPE_CHECKING:
    from kontext_async.store.rows import Row

pytestmark = pytest.mark.anyio


@pytest.fixture
async def resent(worker: Worker, another: Worker, row: Row) -> Row:
    """A row whose second attempt, of `another`, is on the wire; `worker` made the first."""
    await worker.must_take(row, (Intended, 1))
    await worker.die()
    await another.must_take(row, (Orphaned, 1), (Resubmitted, 1))
    return await another.must_take(row, (Intended, 2), reserved=2 * PRICE)


async def test_a_response_to_the_first_attempt_is_recorded_beside_the_second(
    worker: Worker, another: Worker, resent: Row
) -> None:
    for _ in range(2):
        result = await worker.take(resent, Accepted, 1, task_id="task-1", reference="eu/1", at=21.0)
        assert result.verdict is Verdict.SECOND_TASK
        assert result.row is not None
        assert (result.row.state, result.row.attempt) == (State.INTENT, 2)
    [task] = await worker.store.second_tasks()
    assert (task.row, task.run, task.key, task.attempt) == (resent.id, "default", "fox", 1)
    assert (task.task_id, task.reference, task.account) == ("task-1", "eu/1", 1)
    assert (task.state, task.cost, task.accepted_at, task.received_at) == (State.ACCEPTED, None, 21.0, None)
    assert (await another.must_take(resent, (Accepted, 2), task_id="task-2")).task_id == "task-2"


async def test_both_tasks_are_spent_and_the_row_keeps_the_first_that_completed(
    worker: Worker, another: Worker, resent: Row
) -> None:
    await another.must_take(resent, (Accepted, 2), task_id="task-2")
    await worker.take(resent, Accepted, 1, task_id="task-1")
    await worker.revive()
    taken = await worker.take(resent, Completed, 1, task_id="task-1", cost=PRICE)
    assert (taken.verdict, taken.row) == (Verdict.SECOND_TASK, await worker.read(resent))
    row = await worker.read(resent)
    assert (row.state, row.task_id, row.cost, row.owner) == (State.COMPLETED, "task-1", PRICE, worker.number)
    assert [task.task_id for task in await worker.store.second_tasks(1)] == ["task-2"]
    result = await another.take(resent, Completed, 2, task_id="task-2", cost=3 * PRICE)
    assert (result.verdict, result.row) == (Verdict.SECOND_TASK, await worker.read(resent))
    assert (await worker.read(resent)).task_id == "task-1"
    [task] = await worker.store.second_tasks(1)
    assert (task.task_id, task.state, task.cost) == ("task-2", State.COMPLETED, 3 * PRICE)
    summary = await worker.store.summary(1)
    assert (summary.spent, summary.reserved) == (4 * PRICE, NOTHING)


async def test_a_second_task_that_ends_after_the_row_is_spent_once(
    worker: Worker, another: Worker, resent: Row
) -> None:
    await another.must_take(resent, (Accepted, 2), task_id="task-2")
    await another.must_take(resent, (Completed, 2), task_id="task-2", reserved=PRICE)
    await worker.take(resent, Accepted, 1, task_id="task-1")
    before = await worker.store.summary(1)
    assert (before.spent, before.reserved, before.owed) == (PRICE, PRICE, {("pro", 0): 1})
    for _ in range(2):
        await worker.take(resent, Completed, 1, task_id="task-1", cost=PRICE)
    after = await worker.store.summary(1)
    assert (after.spent, after.reserved, after.owed) == (2 * PRICE, NOTHING, Counter())


async def test_an_accepted_second_task_becomes_the_task_of_a_row_whose_attempt_was_refused(
    worker: Worker, another: Worker, resent: Row
) -> None:
    await worker.take(resent, Accepted, 1, task_id="task-1", reference="eu/1")
    row = await another.must_take(resent, (Withdrawn, 2))
    assert (row.state, row.task_id, row.reference, row.owner) == (State.ACCEPTED, "task-1", "eu/1", None)
    assert await worker.store.second_tasks() == []
    assert (await another.take(resent, Intended, 3)).verdict is Verdict.LOST, "it is paid for"


async def test_a_late_response_becomes_the_task_of_an_uncertain_row(
    worker: Worker, another: Worker, resent: Row
) -> None:
    await another.must_take(resent, (Uncertain, 2))
    row = await worker.must_take(resent, (Accepted, 1), task_id="task-1")
    assert (row.state, row.task_id, row.attempt) == (State.ACCEPTED, "task-1", 2)
    assert row.uncertain_attempts == 1, "the second attempt"
    assert (await another.take(resent, Failed, 2, task_id=None)).verdict is Verdict.LOST
    assert (await another.take(resent, Accepted, 2, task_id="task-2")).verdict is Verdict.SECOND_TASK


async def test_a_task_that_completes_before_its_id_was_recorded_is_the_rows(worker: Worker, row: Row) -> None:
    await worker.must_take(row, (Intended, 1))
    done = await worker.must_take(row, (Completed, 1), task_id="task-1")
    assert (done.state, done.task_id) == (State.COMPLETED, "task-1")
    assert (await worker.take(row, Accepted, 1, task_id="task-1")).verdict is Verdict.REPEATED


async def test_a_failed_task_that_is_recorded_once_more_is_not_the_new_attempts(
    worker: Worker, another: Worker, row: Row
) -> None:
    await accept(worker, row)
    await worker.must_take(row, (Failed, 1), task_id="task-1", cost=PRICE)
    await another.must_take(row, (Resubmitted, 1))
    for kind in (Accepted, Failed):
        assert (await worker.take(row, kind, 1, task_id="task-1")).verdict is Verdict.SECOND_TASK
    assert (await worker.read(row)).state is State.PLANNED
    assert (await worker.store.summary(1)).spent == PRICE


async def test_a_second_task_is_received(worker: Worker, another: Worker, resent: Row) -> None:
    await worker.take(resent, Accepted, 1, task_id="task-1")
    await another.store.receive_second_task(resent.id, "task-1", 99.0)
    await another.store.receive_second_task(resent.id, "unknown", 99.0)
    assert [task.received_at for task in await worker.store.second_tasks()] == [99.0]


async def test_second_tasks_are_listed_by_run(worker: Worker, another: Worker, resent: Row) -> None:
    await worker.take(resent, Accepted, 1, task_id="task-1")
    other = await open_run(worker.store, "another")
    assert await worker.store.second_tasks(other.id) == []
    assert len(await worker.store.second_tasks(1)) == 1
