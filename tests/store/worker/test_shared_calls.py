"""What concurrent callers of a worker share: statements that plan rows, and the poll for rows of other workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest
from session_support import turn_loop, until
from store_support import new_row, new_step
from unreliable_store import Fault, UnreliableStore, open_worker, plan_row, worker_settings

from kontext_async.errors import StoreUnavailable, StoreUnusable
from kontext_async.store.steps import Accepted, Intended, State

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.settings import StoreSettings
    from kontext_async.store.rows import Row
    from kontext_async.store.worker import Worker

pytestmark = pytest.mark.anyio


class TestPlanning:
    async def test_concurrent_calls_share_a_statement_and_get_their_own_rows(
        self, store: UnreliableStore, tmp_path: Path
    ) -> None:
        async with open_worker(store, worker_settings(tmp_path, step=10.0)) as worker:
            run = await worker.run("default")
            assert run
            calls = (worker.plan(run.id, [new_row(f"{n}"), new_row(f"{n}b")]) for n in range(50))
            planned = await asyncio.gather(*calls)
        assert [[row.key for row in rows] for rows in planned] == [[f"{n}", f"{n}b"] for n in range(50)]
        assert store.calls["plan"] == 1

    async def test_equal_keys_and_other_runs_are_planned_by_statements_of_their_own(
        self, worker: Worker, store: UnreliableStore
    ) -> None:
        first, other = await worker.run("a"), await worker.run("b")
        assert first
        assert other
        calls = [
            worker.plan(first.id, [new_row("fox")]),
            worker.plan(first.id, [new_row("fox")]),
            worker.plan(other.id, [new_row("fox")]),
            worker.plan(first.id, [new_row("fox")], execution=1),
        ]
        [[one], [two], [three], [four]] = await asyncio.gather(*calls)
        assert one.id == two.id == four.id != three.id
        assert (three.run, four.execution) == (other.id, 1)
        assert store.calls["plan"] == 4

    @pytest.mark.parametrize("name", ["plan", "open_run"])
    @pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG, Fault.WRITE_AND_FAIL, Fault.CRASH])
    async def test_a_call_is_repeated_until_the_store_responds(
        self, name: str, fault: Fault, store: UnreliableStore, tmp_path: Path
    ) -> None:
        async with open_worker(store, worker_settings(tmp_path, step=10.0)) as worker:
            store.faults[name] = fault
            planning = asyncio.create_task(plan_row(worker))
            await until(lambda: store.calls[name] >= 2)
            store.faults.clear()
            assert (await planning).key == "fox"

    async def test_a_call_fails_when_the_store_does_not_respond_in_time(
        self, worker: Worker, store: UnreliableStore
    ) -> None:
        store.faults["open_run"] = Fault.FAIL
        with pytest.raises(StoreUnavailable, match=r"within 0.5 s; nothing was sent"):
            await worker.run("default")
        store.faults["open_run"] = Fault.FAIL
        store.error = StoreUnusable("the file was deleted")
        with pytest.raises(StoreUnusable):
            await worker.run("default")

    async def test_a_run_is_read_once_unless_it_executes(self, worker: Worker, store: UnreliableStore) -> None:
        assert await worker.run("night", create=False) is None
        first = await worker.run("night")
        assert await worker.run("night") is first
        executed = await worker.run("night", executes=True)
        assert executed
        assert executed.execution == 1
        assert store.calls["open_run"] == 3

    async def test_concurrent_callers_read_a_run_once(self, worker: Worker, store: UnreliableStore) -> None:
        store.gates["open_run"] = asyncio.Event()
        calls = [asyncio.create_task(worker.run("night")) for _ in range(100)]
        await until(lambda: store.calls["open_run"] > 0)
        await turn_loop(5)
        store.gates["open_run"].set()
        runs = await asyncio.gather(*calls)
        assert set(runs) == {runs[0]}
        assert store.calls["open_run"] == 1

    async def test_a_planning_caller_can_be_cancelled(self, worker: Worker, store: UnreliableStore) -> None:
        for turns in range(0, 60, 2):
            task = asyncio.create_task(worker.plan(1, [new_row(f"{turns}")]))
            await turn_loop(turns)
            task.cancel()
            await asyncio.wait([task])
        run = await worker.run("default")
        assert run
        assert [row.key for row in await worker.plan(run.id, [new_row("last")])] == ["last"]


class TestWaiting:
    async def test_a_waiting_caller_gets_the_row_that_another_worker_changed(
        self, worker: Worker, store: UnreliableStore, settings: StoreSettings, row: Row
    ) -> None:
        async with open_worker(UnreliableStore(store.database), settings) as other:
            mine = (await other.record(row, new_step(Intended, 1))).row
            assert mine
            waiting = [asyncio.create_task(worker.changed(mine)) for _ in range(20)]
            await until(lambda: store.calls["fetch"] >= 2)
            assert not any(each.done() for each in waiting)
            await other.record(mine, new_step(Accepted, 1, task_id="t1"))
            found = await asyncio.gather(*waiting)
            assert {each.task_id for each in found if each} == {"t1"}
            assert store.calls["fetch"] < 20

    async def test_a_waiting_caller_learns_that_the_owner_died(
        self, worker: Worker, store: UnreliableStore, settings: StoreSettings, row: Row
    ) -> None:
        async with open_worker(UnreliableStore(store.database), settings) as other:
            mine = (await other.record(row, new_step(Intended, 1))).row
        assert mine
        found = await worker.changed(mine)
        assert found
        assert (found.state, found.owner_alive) == (State.INTENT, False)

    async def test_a_waiting_caller_learns_that_the_row_is_gone(self, worker: Worker, row: Row) -> None:
        assert await worker.changed(attrs.evolve(row, id=999)) is None

    @pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG, Fault.CRASH])
    async def test_a_caller_waits_on_while_the_store_fails(
        self, fault: Fault, worker: Worker, store: UnreliableStore, row: Row
    ) -> None:
        store.faults["fetch"] = fault
        waiting = asyncio.create_task(worker.changed(attrs.evolve(row, attempt=7)))
        await until(lambda: store.calls["fetch"] >= 2)
        assert not waiting.done()
        store.faults.clear()
        assert await waiting == row

    async def test_a_waiting_caller_can_be_cancelled(self, worker: Worker, store: UnreliableStore, row: Row) -> None:
        waiting = asyncio.create_task(worker.changed(row))
        await until(lambda: store.calls["fetch"])
        waiting.cancel()
        await asyncio.wait([waiting])
        calls = store.calls["fetch"]
        with anyio.move_on_after(0.01):
            await worker.changed(row)
        assert store.calls["fetch"] <= calls + 1
