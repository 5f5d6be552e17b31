"""The cost limit of a run, what it has spent, and what is forgotten, in every store."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import pytest
from store_support import NOTHING, PRICE, Stores, Worker, accept, complete, new_row, new_step, open_run

from kontext_async.store.rows import Row, RowStep, RunSummary, Selection
from kontext_async.store.steps import (
    Accepted,
    Completed,
    Failed,
    Forgotten,
    Intended,
    Resubmitted,
    State,
    Uncertain,
    Verdict,
    Withdrawn,
)

pytestmark = pytest.mark.anyio


class TestMoney:
    async def test_the_limit_holds_for_all_workers_together(self, stores: Stores) -> None:
        workers = [await stores.start_worker() for _ in range(3)]
        rows = await workers[0].store.plan(1, [new_row(f"key-{number}") for number in range(30)])
        results = await asyncio.gather(
            *(
                worker.store.apply(
                    worker.number,
                    [RowStep(row=row.id, step=new_step(Intended, 1, limit=10 * PRICE)) for row in rows[share::3]],
                )
                for share, worker in enumerate(workers)
            )
        )
        verdicts = Counter(result.verdict for group in results for result in group)
        assert verdicts == {Verdict.APPLIED: 10, Verdict.OVER_LIMIT: 20}
        assert (await workers[0].store.summary(1)).reserved == 10 * PRICE

    async def test_a_refusal_says_what_is_committed_and_in_flight(self, worker: Worker) -> None:
        rows = await worker.store.plan(1, [new_row(key) for key in "abc"])
        await complete(worker, rows[0])
        await accept(worker, rows[1])
        refused = await worker.take(rows[2], Intended, 1, limit=Decimal("0.11"))
        assert (refused.verdict, refused.committed, refused.in_flight) == (Verdict.OVER_LIMIT, 2 * PRICE, 1)
        assert refused.row == await worker.read(rows[2])
        assert refused.row is not None
        assert refused.row.state is State.PLANNED
        assert (await worker.take(rows[2], Intended, 1, limit=Decimal("0.12"))).verdict is Verdict.APPLIED

    async def test_what_an_uncertain_attempt_may_cost_stays_reserved(self, worker: Worker, row: Row) -> None:
        await worker.must_take(row, (Intended, 1), (Uncertain, 1), (Resubmitted, 1))
        assert (await worker.store.summary(1)).reserved == PRICE
        assert (await worker.take(row, Intended, 2, reserved=2 * PRICE, limit=PRICE)).verdict is Verdict.OVER_LIMIT
        again = await worker.must_take(row, (Intended, 2), reserved=2 * PRICE, limit=2 * PRICE)
        assert again.reserved == 2 * PRICE, "what the row reserved before does not count twice"
        assert (await worker.must_take(row, (Withdrawn, 2), reserved=PRICE)).reserved == PRICE
        await worker.must_take(row, (Intended, 3))
        await worker.must_take(row, (Accepted, 3), task_id="task-3")
        await worker.must_take(row, (Completed, 3), task_id="task-3", reserved=PRICE)
        summary = await worker.store.summary(1)
        assert (summary.spent, summary.reserved, summary.owed) == (PRICE, PRICE, {("pro", 0): 1})

    async def test_a_step_that_reserves_nothing_keeps_what_uncertain_attempts_may_cost(
        self, worker: Worker, row: Row
    ) -> None:
        await worker.must_take(row, (Intended, 1), (Uncertain, 1), (Resubmitted, 1))
        await worker.must_take(row, (Intended, 2), reserved=3 * PRICE)
        assert (await worker.must_take(row, (Withdrawn, 2))).reserved == 3 * PRICE
        await worker.must_take(row, (Intended, 3), reserved=3 * PRICE)
        await worker.must_take(row, (Accepted, 3), task_id="task-3")
        done = await worker.must_take(row, (Completed, 3), task_id="task-3", cost=PRICE)
        assert (done.reserved, done.uncertain_attempts) == (2 * PRICE, 1)

    async def test_a_request_of_an_unknown_price_must_be_the_only_one_in_flight(
        self, worker: Worker, another: Worker
    ) -> None:
        first, second, third = await worker.store.plan(1, [new_row(key) for key in "abc"])
        await worker.must_take(first, (Intended, 1), reserved=None, limit=PRICE)
        for reserved in (None, PRICE):
            refused = await another.take(second, Intended, 1, reserved=reserved, limit=9 * PRICE)
            assert (refused.verdict, refused.in_flight) == (Verdict.OVER_LIMIT, 1)
        await worker.must_take(first, (Accepted, 1), task_id="task-1")
        await worker.must_take(first, (Completed, 1), task_id="task-1", cost=PRICE)
        assert (await another.take(second, Intended, 1, reserved=None, limit=PRICE)).verdict is Verdict.OVER_LIMIT
        await another.must_take(second, (Intended, 1), limit=9 * PRICE)
        assert (await another.take(third, Intended, 1, reserved=None, limit=9 * PRICE)).verdict is Verdict.OVER_LIMIT

    async def test_the_limit_is_that_of_one_run(self, worker: Worker, row: Row) -> None:
        await complete(worker, row)
        other = await open_run(worker.store, "another")
        [apart] = await worker.store.plan(other.id, [new_row()])
        assert (await worker.take(apart, Intended, 1, limit=PRICE)).verdict is Verdict.APPLIED

    async def test_sums_are_exact(self, worker: Worker) -> None:
        rows = await worker.store.plan(1, [new_row(f"key-{number}") for number in range(20)])
        for number, row in enumerate(rows):
            cost = Decimal("0.1") if number % 2 else Decimal("1e-20")
            steps = (
                new_step(Intended, 1),
                new_step(Accepted, 1, task_id="task"),
                new_step(Completed, 1, task_id="task", cost=cost),
            )
            await worker.store.apply(worker.number, [RowStep(row=row.id, step=step) for step in steps])
        assert (await worker.store.summary(1)).spent == Decimal("1.00000000000000000010")
        assert (await open_run(worker.store, "default")).spent == Decimal("1.00000000000000000010")

    async def test_a_run_is_summed_up(self, worker: Worker) -> None:
        planned, intent, unpriced, failed, costly = await worker.store.plan(
            1, [new_row(key, images=key == "e") for key in "abcde"]
        )
        await worker.must_take(intent, (Intended, 1))
        await accept(worker, unpriced)
        await worker.must_take(unpriced, (Completed, 1), task_id="task-1", cost=None)
        await worker.must_take(failed, (Failed, 0))
        await accept(worker, costly)
        await worker.must_take(costly, (Completed, 1), task_id="task-1", cost=Decimal("0.50"))
        summary = await worker.store.summary(1)
        assert summary.states == {State.PLANNED: 1, State.INTENT: 1, State.COMPLETED: 2, State.FAILED: 1}
        assert summary.costs == {("pro", 1): Decimal("0.50")}
        assert summary.owed == {("pro", 0): 2}, "the intent, and the completed one without a cost"
        assert (summary.spent, summary.reserved) == (Decimal("0.50"), PRICE)
        assert planned.state is State.PLANNED

    async def test_an_empty_run_is_summed_up(self, worker: Worker) -> None:
        summary = await worker.store.summary(1)
        assert summary == RunSummary(spent=NOTHING, reserved=NOTHING, states=Counter(), costs={}, owed=Counter())


class TestForgetting:
    async def test_what_a_forgotten_row_cost_stays_spent(self, worker: Worker, row: Row) -> None:
        await complete(worker, row)
        assert (await worker.take(row, Forgotten, 1)).verdict is Verdict.APPLIED
        assert await worker.store.fetch([row.id]) == {}
        assert (await worker.store.summary(1)).spent == PRICE
        [again] = await worker.store.plan(1, [new_row()])
        assert again.id > row.id, "a number is never used again"
        assert again.state is State.PLANNED
        late = await worker.take(row, Accepted, 1, task_id="task-9")
        assert (late.verdict, late.row) == (Verdict.LOST, None)

    async def test_an_uncertain_row_is_not_forgotten(self, worker: Worker, row: Row) -> None:
        await worker.must_take(row, (Intended, 1), (Uncertain, 1))
        assert (await worker.take(row, Forgotten, 1)).verdict is Verdict.LOST

    async def test_old_rows_are_forgotten_and_nothing_open(self, worker: Worker) -> None:
        store = worker.store
        old, young, failed, accepted, planned = await store.plan(1, [new_row(key) for key in "abcde"])
        await complete(worker, old, at=100.0)
        await complete(worker, young, at=300.0)
        await worker.must_take(failed, (Failed, 0), at=100.0)
        await accept(worker, accepted)
        assert await store.forget(200.0) == 2
        assert [row.id for row in await store.page(Selection(run=1))] == [young.id, accepted.id, planned.id]
        assert await store.forget(200.0) == 0
        assert (await store.summary(1)).spent == 2 * PRICE

    async def test_bulk_runs_are_forgotten_by_name_only(self, worker: Worker) -> None:
        run = await open_run(worker.store, "night", executes=True)
        [row] = await worker.store.plan(run.id, [new_row()], execution=1)
        await complete(worker, row)
        assert await worker.store.forget(1000.0) == 0
        assert await worker.store.forget(1000.0, run=1) == 0
        assert await worker.store.forget(1000.0, run=run.id) == 1

    async def test_a_paid_second_task_outlives_its_row_until_it_is_received(self, worker: Worker, row: Row) -> None:
        await complete(worker, row)
        await worker.take(row, Accepted, 1, task_id="another")
        assert await worker.store.forget(1000.0) == 1
        assert [(task.key, task.task_id) for task in await worker.store.second_tasks(1)] == [("fox", "another")]
        await worker.store.receive_second_task(row.id, "another", 99.0)
        assert await worker.store.forget(1000.0) == 0
        assert await worker.store.second_tasks() == []
