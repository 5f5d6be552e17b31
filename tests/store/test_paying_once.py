"""What a caller gets from every store: who may send a request, and what becomes of each step."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import pytest
from store_support import PRICE, Stores, Worker, accept, complete, new_row, new_step

from kontext_async.store.rows import Row, RowStep, Selection
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
    State,
    Uncertain,
    Verdict,
    Withdrawn,
)

pytestmark = pytest.mark.anyio

ACCEPT = ((Intended, 1), (Accepted, 1))
COMPLETE = (*ACCEPT, (Completed, 1))


async def test_one_of_many_workers_gets_a_planned_row(stores: Stores, row: Row) -> None:
    workers = [await stores.start_worker() for _ in range(4)]
    results = await asyncio.gather(*(worker.take(row, Intended, 1) for worker in workers))
    assert Counter(result.verdict for result in results) == {Verdict.APPLIED: 1, Verdict.LOST: 3}
    owner = (await workers[0].read(row)).owner
    for worker, result in zip(workers, results, strict=True):
        assert (result.verdict is Verdict.APPLIED) == (worker.number == owner)
        if result.row is not None:
            assert (result.row.state, result.row.owner, result.row.owner_alive) == (State.INTENT, owner, True)


async def test_many_rows_are_shared_by_workers_without_one_twice(stores: Stores) -> None:
    workers = [await stores.start_worker() for _ in range(3)]
    rows = await workers[0].store.plan(1, [new_row(f"key-{number}") for number in range(200)])
    intents = [RowStep(row=row.id, step=new_step(Intended, 1)) for row in rows]
    orders = [intents, intents[::-1], intents[100:] + intents[:100]]
    results = await asyncio.gather(
        *(worker.store.apply(worker.number, order) for worker, order in zip(workers, orders, strict=True))
    )
    verdicts = Counter(result.verdict for group in results for result in group)
    assert verdicts == {Verdict.APPLIED: 200, Verdict.LOST: 400}


async def test_the_way_of_a_row(worker: Worker, row: Row) -> None:
    intended = await worker.must_take(row, (Intended, 1), at=11.0, reserved=Decimal("0.05"))
    assert (intended.state, intended.attempt, intended.owner) == (State.INTENT, 1, worker.number)
    assert (intended.intended_at, intended.reserved, intended.account) == (11.0, Decimal("0.05"), 1)
    accepted = await worker.must_take(row, (Accepted, 1), task_id="task-1", reference="eu/7", at=22.5)
    assert (accepted.state, accepted.task_id, accepted.reference) == (State.ACCEPTED, "task-1", "eu/7")
    assert (accepted.accepted_at, accepted.owner_alive) == (22.5, True)
    result = {"images": ["https://images.example/1?x=ü"], "seed": 7}
    completed = await worker.must_take(
        row, (Completed, 1), task_id="task-1", result=result, cost=Decimal("0.0400"), seconds=8.25, at=33.0
    )
    assert (completed.state, completed.result, completed.seconds) == (State.COMPLETED, result, 8.25)
    assert (str(completed.cost), completed.reserved, completed.completed_at) == ("0.0400", None, 33.0)
    assert completed.received_at is None
    assert (await worker.must_take(row, (Received, 1), at=44.0)).received_at == 44.0


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ((), Intended),
        (((Intended, 1),), Accepted),
        (((Intended, 1),), Withdrawn),
        (((Intended, 1), (Uncertain, 1)), Resubmitted),
        (ACCEPT, Completed),
        (ACCEPT, Failed),
        (ACCEPT, Expired),
        (COMPLETE, Received),
        (COMPLETE, Saved),
        ((*COMPLETE, (Saved, 1)), FilesLost),
        (COMPLETE, Forgotten),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_a_step_that_is_repeated_changes_nothing_more(
    worker: Worker, row: Row, before: tuple[tuple[type[Accepted], int], ...], kind: type[Accepted]
) -> None:
    named = {Accepted, Completed, Failed, Expired}
    for each, attempt in before:
        await worker.must_take(row, (each, attempt), **({"task_id": "task"} if each in named else {}))
    details = {"task_id": "task"} if kind in named else {}
    assert (await worker.take(row, kind, 1, **details)).verdict is Verdict.APPLIED
    rows, summary = await worker.store.fetch([row.id]), await worker.store.summary(1)
    assert (await worker.take(row, kind, 1, **details)).verdict is Verdict.REPEATED
    assert (await worker.store.fetch([row.id]), await worker.store.summary(1)) == (rows, summary)


async def test_a_step_that_changes_nothing_leaves_the_row(worker: Worker, row: Row) -> None:
    uncertain = await worker.must_take(row, (Intended, 1), (Uncertain, 1))
    assert await worker.must_take(row, (Uncertain, 1)) == uncertain


async def test_steps_of_one_group_are_taken_in_order(worker: Worker, row: Row) -> None:
    steps = [
        new_step(Intended, 1),
        new_step(Withdrawn, 1),
        new_step(Intended, 2),
        new_step(Accepted, 2, task_id="task-2"),
        new_step(Completed, 2, task_id="task-2"),
        new_step(Received, 2),
    ]
    results = await worker.store.apply(worker.number, [RowStep(row=row.id, step=step) for step in steps])
    assert [result.verdict for result in results] == [Verdict.APPLIED] * 6
    done = await worker.read(row)
    assert (done.state, done.attempt, done.received_at) == (State.COMPLETED, 2, 50.0)


async def test_a_step_that_is_lost_does_not_affect_the_others(worker: Worker) -> None:
    one, other = await worker.store.plan(1, [new_row("one"), new_row("other")])
    steps = [(one, Intended, 5), (other, Intended, 1), (one, Intended, 1)]
    results = await worker.store.apply(
        worker.number, [RowStep(row=row.id, step=new_step(kind, attempt)) for row, kind, attempt in steps]
    )
    assert [result.verdict for result in results] == [Verdict.LOST, Verdict.APPLIED, Verdict.APPLIED]


async def test_no_steps_are_no_work(worker: Worker) -> None:
    assert await worker.store.apply(worker.number, []) == []
    assert await worker.store.plan(1, []) == []


async def test_a_step_of_an_unknown_row_is_lost(worker: Worker) -> None:
    result = await worker.take(4711, Intended, 1)
    assert (result.verdict, result.row) == (Verdict.LOST, None)


async def test_a_withdrawn_request_is_free_for_everybody(worker: Worker, another: Worker, row: Row) -> None:
    withdrawn = await worker.must_take(row, (Intended, 1), (Withdrawn, 1))
    assert (withdrawn.state, withdrawn.attempt, withdrawn.owner) == (State.PLANNED, 1, None)
    assert withdrawn.reserved is None
    assert (await another.take(row, Intended, 1)).verdict is Verdict.LOST, "that attempt was made"
    assert (await another.must_take(row, (Intended, 2))).owner == another.number


async def test_a_rejected_request_fails_at_once_and_costs_nothing(worker: Worker, row: Row) -> None:
    error = {"type": "RequestRejected", "message": "no"}
    failed = await worker.must_take(row, (Intended, 1), (Failed, 1), error=error)
    assert (failed.state, failed.error, failed.reserved, failed.cost) == (State.FAILED, error, None, None)
    assert (await worker.store.summary(1)).spent == 0


async def test_an_intent_of_a_living_worker_cannot_be_taken(worker: Worker, another: Worker, row: Row) -> None:
    await worker.must_take(row, (Intended, 1))
    for kind, attempt in ((Intended, 1), (Intended, 2), (Orphaned, 1), (Resubmitted, 1), (Forgotten, 1)):
        result = await another.take(row, kind, attempt)
        assert result.verdict is Verdict.LOST
        assert result.row == await worker.read(row)


async def test_an_intent_of_a_dead_worker_becomes_uncertain_and_is_not_sent_again(
    worker: Worker, another: Worker, row: Row
) -> None:
    await worker.must_take(row, (Intended, 1))
    await worker.die()
    assert not (await another.read(row)).owner_alive
    assert (await another.take(row, Intended, 2)).verdict is Verdict.LOST
    orphan = await another.must_take(row, (Orphaned, 1))
    assert (orphan.state, orphan.attempt, orphan.owner, orphan.reserved) == (State.UNCERTAIN, 1, None, PRICE)
    assert (await another.take(row, Intended, 2)).verdict is Verdict.LOST


async def test_the_rows_of_a_worker_that_leaves_are_free(worker: Worker, another: Worker, row: Row) -> None:
    accepted = await accept(worker, row)
    assert accepted.owner_alive
    await worker.store.remove_worker(worker.number)
    assert not (await another.read(row)).owner_alive


async def test_several_requests_for_a_resend_are_one_resend(stores: Stores, row: Row) -> None:
    workers = [await stores.start_worker() for _ in range(3)]
    await workers[0].must_take(row, (Intended, 1), (Uncertain, 1))
    results = await asyncio.gather(*(worker.take(row, Resubmitted, 1) for worker in workers))
    assert Counter(result.verdict for result in results) == {Verdict.APPLIED: 1, Verdict.REPEATED: 2}
    await workers[0].must_take(row, (Intended, 2))
    assert (await workers[1].take(row, Resubmitted, 1)).verdict is Verdict.LOST
    await workers[0].must_take(row, (Uncertain, 2))
    assert (await workers[1].take(row, Resubmitted, 1)).verdict is Verdict.LOST, "that attempt was sent again"
    assert (await workers[1].read(row)).attempt == 2


async def test_a_stopped_worker_that_sent_nothing_withdraws_its_swept_attempt(
    worker: Worker, another: Worker, row: Row
) -> None:
    await worker.must_take(row, (Intended, 1))
    await worker.die()
    await another.must_take(row, (Orphaned, 1))
    await worker.revive()
    assert (await worker.must_take(row, (Withdrawn, 1))).state is State.PLANNED


async def test_a_stopped_worker_withdraws_nothing_of_a_later_attempt(worker: Worker, another: Worker, row: Row) -> None:
    await worker.must_take(row, (Intended, 1))
    await worker.die()
    await another.must_take(row, (Orphaned, 1), (Resubmitted, 1), (Intended, 2))
    result = await worker.take(row, Withdrawn, 1)
    assert result.verdict is Verdict.LOST
    assert result.row is not None
    assert (result.row.state, result.row.attempt, result.row.owner) == (State.INTENT, 2, another.number)


async def test_the_task_of_a_worker_taken_for_dead_is_recorded(worker: Worker, another: Worker, row: Row) -> None:
    await worker.must_take(row, (Intended, 1))
    await worker.die()
    await another.must_take(row, (Orphaned, 1))
    late = await worker.must_take(row, (Accepted, 1), task_id="task-1")
    assert (late.state, late.task_id, late.owner) == (State.ACCEPTED, "task-1", worker.number)


async def test_everybody_may_complete_an_accepted_task(worker: Worker, another: Worker, row: Row) -> None:
    await accept(worker, row)
    await another.must_take(row, (Completed, 1), task_id="task-1")
    result = await worker.take(row, Completed, 1, task_id="task-1")
    assert result.verdict is Verdict.REPEATED
    assert (await worker.store.summary(1)).spent == PRICE, "it was paid once"


async def test_one_of_many_workers_adopts_the_task_of_a_dead_one(stores: Stores, row: Row) -> None:
    dead, *living = [await stores.start_worker() for _ in range(4)]
    await accept(dead, row)
    assert (await living[0].take(row, Adopted, 1)).verdict is Verdict.LOST
    await dead.die()
    assert (await living[0].take(row, Adopted, 1, account=2)).verdict is Verdict.LOST
    results = await asyncio.gather(*(worker.take(row, Adopted, 1) for worker in living))
    assert Counter(result.verdict for result in results) == {Verdict.APPLIED: 1, Verdict.LOST: 2}
    adopted = await dead.read(row)
    assert living[[result.verdict for result in results].index(Verdict.APPLIED)].number == adopted.owner
    assert (adopted.state, adopted.task_id, adopted.owner_alive) == (State.ACCEPTED, "task-1", True)


async def test_another_account_does_not_pay_for_what_may_be_billed_to_the_first(worker: Worker, row: Row) -> None:
    await worker.must_take(row, (Intended, 1), (Uncertain, 1))
    await worker.must_take(row, (Resubmitted, 1), uncertain_attempts=1)
    assert (await worker.take(row, Intended, 2, account=2)).verdict is Verdict.LOST
    assert (await worker.take(row, Intended, 2, account=1)).verdict is Verdict.APPLIED


async def test_another_account_may_pay_for_what_was_certainly_not_billed(worker: Worker, row: Row) -> None:
    await worker.must_take(row, (Intended, 1), (Withdrawn, 1))
    assert (await worker.take(row, Intended, 2, account=2)).verdict is Verdict.APPLIED


async def test_a_failed_row_is_tried_again_on_request(worker: Worker, another: Worker, row: Row) -> None:
    await accept(worker, row)
    await worker.must_take(row, (Failed, 1), task_id="task-1", cost=PRICE)
    assert (await another.take(row, Intended, 2)).verdict is Verdict.LOST
    again = await another.must_take(row, (Resubmitted, 1), uncertain_attempts=0, reserved=None)
    assert (again.state, again.task_id, again.cost, again.error) == (State.PLANNED, None, None, None)
    assert (await accept(another, row, 2)).state is State.ACCEPTED
    [failed] = await worker.store.second_tasks(1)
    assert (failed.task_id, failed.state, failed.cost) == ("task-1", State.FAILED, PRICE)
    assert (await worker.store.summary(1)).spent == PRICE


async def test_an_expired_task_that_another_worker_saw_completed_is_completed(
    worker: Worker, another: Worker, row: Row
) -> None:
    await accept(worker, row)
    await another.must_take(row, (Expired, 1), task_id="task-1")
    assert (await worker.must_take(row, (Completed, 1), task_id="task-1")).state is State.COMPLETED


async def test_lost_files_are_saved_again_by_the_worker_that_misses_them(worker: Worker, row: Row) -> None:
    await complete(worker, row)
    files = (("füchse/1.jpg", 10), ("2.png", 2**40))
    saved = await worker.must_take(row, (Saved, 1), folder=3, files=files, completion=5, at=60.0)
    assert (saved.state, saved.folder, saved.files, saved.completion) == (State.SAVED, 3, files, 5)
    assert (saved.owner, saved.cost) == (None, PRICE)
    missed = await worker.must_take(row, (FilesLost, 1))
    assert (missed.state, missed.owner, missed.owner_alive) == (State.COMPLETED, worker.number, True)
    assert await worker.store.page(Selection(run=1, unowned=True)) == []


async def test_images_that_expired_keep_their_cost(worker: Worker, row: Row) -> None:
    await complete(worker, row)
    expired = await worker.must_take(row, (Expired, 1), task_id="task-1")
    assert (expired.state, expired.cost) == (State.EXPIRED, PRICE)
    assert (await worker.store.summary(1)).spent == PRICE
