"""The worker: what becomes of paid work while its store fails, hangs, loses responses or is full."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from session_support import turn_loop, until
from store_support import new_row, new_step
from unreliable_store import Fault, UnreliableStore, open_worker, plan_row, start, worker_settings

from kontext_async.errors import SessionClosed, StoreUnavailable
from kontext_async.store.boot_clock import boot_id, boot_time
from kontext_async.store.rows import Account
from kontext_async.store.spool import parse_spool
from kontext_async.store.steps import (
    Accepted,
    Completed,
    Intended,
    Orphaned,
    Received,
    State,
    Verdict,
    Withdrawn,
)
from kontext_async.store.worker import Worker, account_name
from kontext_async.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.errors import StoreError
    from kontext_async.settings import StoreSettings
    from kontext_async.store.rows import Row
    from kontext_async.store.steps import Step

pytestmark = pytest.mark.anyio


async def read(store: UnreliableStore, row: Row) -> Row:
    return (await store.share().fetch([row.id]))[row.id]


def tasks_of_the_package() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("kontext_async")]


def spooled_ids(settings: StoreSettings) -> list[str]:
    """Return the task IDs in all spools."""
    files = Path(settings.spool or "").rglob("*.jsonl")
    return [each.task_id for path in files for each in parse_spool(path.read_bytes())]


async def submit(worker: Worker, row: Row, task_id: str) -> Row:
    """Take a row up to its task."""
    for step in (new_step(Intended, row.attempt + 1), new_step(Accepted, row.attempt + 1, task_id=task_id)):
        result = await worker.record(row, step)
        assert result.verdict is Verdict.APPLIED
        assert result.row
        row = result.row
    return row


async def test_each_step_returns_the_row_as_it_is_in_the_store(
    worker: Worker, store: UnreliableStore, row: Row
) -> None:
    row = await submit(worker, row, "t1")
    assert row == await read(store, row)
    result = await worker.record(row, new_step(Completed, 1, task_id="t1"))
    assert result.row == await read(store, row)
    worker.note(row, new_step(Received, 1))
    await worker.flush(1.0)
    assert (await read(store, row)).received_at == 50.0
    assert worker.lost == 0


async def test_a_lost_step_returns_the_current_row(worker: Worker, store: UnreliableStore, row: Row) -> None:
    current = await submit(worker, row, "t1")
    result = await worker.record(row, new_step(Intended, 1))
    assert (result.verdict, result.row) == (Verdict.LOST, current)


async def test_the_name_of_an_account_is_given_or_a_keyed_hash(
    worker: Worker, store: UnreliableStore, settings: StoreSettings
) -> None:
    other = await start(Worker(store.share(), settings), account=None)
    accounts = await store.accounts()
    hashed = account_name("sk-key", store.salt)
    assert accounts[worker.account] == Account(gateway="vtrix", base="https://gateway.example", name="team")
    assert accounts[other.account].name == hashed
    assert len(hashed) == 16
    assert hashed != account_name("sk-key", b"x" * 32)
    assert "sk-key" not in repr(vars(other))
    await other.aclose()


async def test_two_sessions_of_one_process_are_two_workers(
    worker: Worker, store: UnreliableStore, settings: StoreSettings
) -> None:
    async with open_worker(store.share(), settings) as other:
        assert other.number != worker.number


async def test_a_worker_is_refused_after_a_fork(worker: Worker) -> None:
    worker.ensure_same_process()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover # the child
        with suppress(BaseException):
            try:
                worker.ensure_same_process()
            except SessionClosed:
                os.write(writing, b"refused")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"refused"
    os.close(reading)
    os.close(writing)


async def test_a_closed_worker_is_dead_and_refuses_everything(worker: Worker, store: UnreliableStore, row: Row) -> None:
    await worker.record(row, new_step(Intended, 1))
    await worker.aclose()
    await worker.aclose()
    assert not (await read(store, row)).owner_alive
    with pytest.raises(SessionClosed):
        await worker.record(row, new_step(Withdrawn, 1))
    with pytest.raises(SessionClosed):
        worker.note(row, new_step(Received, 1))
    with pytest.raises(SessionClosed):
        await worker.plan(1, [new_row()])
    with pytest.raises(SessionClosed):
        await worker.run("default")
    with pytest.raises(SessionClosed):
        await worker.changed(row)
    with pytest.raises(SessionClosed):
        await start(worker)
    assert worker.unwritten_task_ids == []
    result = await worker.record(row, new_step(Accepted, 1, task_id="late"))
    assert result.verdict is Verdict.APPLIED
    assert worker.unwritten_task_ids == ["late"]


async def test_a_worker_that_was_not_started_is_refused(store: UnreliableStore, settings: StoreSettings) -> None:
    worker = Worker(store, settings)
    assert (worker.lost, worker.failure, worker.unwritten_task_ids) == (0, None, [])
    with pytest.raises(SessionClosed):
        worker.is_fresh()
    await worker.aclose()


async def test_a_start_that_fails_leaves_nothing_behind(store: UnreliableStore, settings: StoreSettings) -> None:
    store.faults["account"] = Fault.HANG
    worker = Worker(store, settings)
    with pytest.raises(StoreUnavailable):
        await start(worker)
    assert not store.database.is_alive(worker.number)
    assert tasks_of_the_package() == []


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG, Fault.WRITE_AND_FAIL, Fault.CRASH])
async def test_an_intent_fails_within_its_limit_and_leaves_the_row_free(
    fault: Fault, worker: Worker, store: UnreliableStore, row: Row
) -> None:
    store.faults["apply"] = fault
    with pytest.raises(StoreUnavailable, match="nothing was sent") as caught:
        await worker.record(row, new_step(Intended, 1), timeout=0.3)
    assert "secret" not in str(caught.value)
    store.faults.clear()
    await until(lambda: worker.failure is None)
    await worker.flush(5.0)
    await worker.flush(5.0)
    assert (await read(store, row)).state is State.PLANNED


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG, Fault.WRITE_AND_FAIL, Fault.CRASH, Fault.FORGET_A_RESULT])
async def test_an_id_that_the_store_does_not_take_is_spooled_and_written_later(
    fault: Fault, worker: Worker, store: UnreliableStore, row: Row, settings: StoreSettings
) -> None:
    await worker.record(row, new_step(Intended, 1))
    store.faults["apply"] = fault
    result = await worker.record(row, new_step(Accepted, 1, task_id="t1"))
    assert result.verdict is Verdict.APPLIED
    assert worker.failure is not None
    assert spooled_ids(settings) == ["t1"]
    assert worker.unwritten_task_ids == []
    store.faults.clear()
    await until(lambda: spooled_ids(settings) == [])
    assert (await read(store, row)).task_id == "t1"
    assert worker.failure is None


async def test_an_id_is_spooled_at_once_while_the_store_fails(
    worker: Worker, store: UnreliableStore, settings: StoreSettings
) -> None:
    rows = [await plan_row(worker, key) for key in "ab"]
    for row in rows:
        await worker.record(row, new_step(Intended, 1))
    store.faults["apply"] = Fault.FAIL
    worker.note(rows[0], new_step(Accepted, 1, task_id="t1"))
    await until(lambda: spooled_ids(settings) == ["t1"])
    groups = len(store.groups)
    worker.note(rows[1], new_step(Accepted, 1, task_id="t2"))
    await until(lambda: spooled_ids(settings) == ["t1", "t2"])
    assert len(store.groups) <= groups + 1


async def test_an_id_is_spooled_if_the_store_is_slow(
    store: UnreliableStore, tmp_path: Path, settings: StoreSettings
) -> None:
    settings = worker_settings(tmp_path / "spool", connect=30.0)
    async with open_worker(store, settings) as worker:
        row = await plan_row(worker)
        await worker.record(row, new_step(Intended, 1))
        store.faults["apply"] = Fault.HANG
        await worker.record(row, new_step(Accepted, 1, task_id="t1"), timeout=5)
        assert worker.failure is None
        assert spooled_ids(settings) == ["t1"]


async def test_an_id_outlives_a_session_that_is_closed_while_the_store_fails(
    store: UnreliableStore, settings: StoreSettings
) -> None:
    async with open_worker(store, settings) as worker:
        row = await plan_row(worker)
        await worker.record(row, new_step(Intended, 1))
        store.faults = {"apply": Fault.HANG}
        worker.note(row, new_step(Accepted, 1, task_id="t1"))
    assert worker.unwritten_task_ids == []
    store.faults.clear()
    async with open_worker(UnreliableStore(store.database), settings) as heir:
        await until(lambda: spooled_ids(settings) == [])
        found = await read(store, row)
        assert (found.state, found.task_id, found.owner) == (State.ACCEPTED, "t1", heir.number)


async def test_an_id_that_nobody_could_take_is_named(store: UnreliableStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with open_worker(store, worker_settings(tmp_path / "file")) as worker:
        row = await plan_row(worker)
        await worker.record(row, new_step(Intended, 1))
        store.faults["apply"] = Fault.FAIL
        await worker.record(row, new_step(Accepted, 1, task_id="t1"), timeout=0.2)
        assert worker.unwritten_task_ids == ["t1"]
        store.faults.clear()
        await until(lambda: worker.unwritten_task_ids == [])


async def test_a_result_stays_queued_while_the_store_fails(worker: Worker, store: UnreliableStore, row: Row) -> None:
    row = await submit(worker, row, "t1")
    store.faults["apply"] = Fault.FAIL
    with pytest.raises(StoreUnavailable, match="stays queued"):
        await worker.record(row, new_step(Completed, 1, task_id="t1"), timeout=0.1)
    store.faults.clear()
    await worker.flush(5.0)
    assert (await read(store, row)).state is State.COMPLETED


async def test_failures_and_recoveries_are_reported(worker: Worker, store: UnreliableStore, row: Row) -> None:
    seen: list[StoreError | None] = []
    worker.on_failure.add(seen.append)
    worker.on_recovery.add(lambda: seen.append(None))
    store.faults["apply"] = Fault.FAIL
    with pytest.raises(StoreUnavailable):
        await worker.record(row, new_step(Orphaned, 1), timeout=0.1)
    assert str(worker.failure) == str(seen[0])
    store.faults.clear()
    await until(lambda: worker.failure is None)  # by a beat: no step is left
    assert [type(each) for each in seen] == [StoreUnavailable, type(None)]


async def cancel_recording(
    worker: Worker, store: UnreliableStore, row: Row, kind: type[Step], turns: int, *, is_in_flight: bool
) -> bool:
    """Cancel a caller some turns after it began to wait, or after its group began; return False if it was done."""
    groups = len(store.groups)
    gate = store.gates["apply"] = asyncio.Event()
    if is_in_flight:
        gate.set()
    else:  # the caller's step waits behind a group that is in flight, however slow the machine is
        worker.note(await plan_row(worker, f"before {row.key}"), new_step(Intended, 1))
        await until(lambda: len(store.groups) > groups)
    details = {} if kind is Intended else {"task_id": row.key}
    task = asyncio.create_task(worker.record(row, new_step(kind, 1, **details)))
    await until(lambda: len(store.groups) > groups)
    await turn_loop(turns)
    task.cancel()
    await asyncio.wait([task])
    gate.set()
    for _ in range(2):  # a withdrawal may follow
        await worker.flush(5.0)
    return task.cancelled()


@pytest.mark.parametrize("kind", [Intended, Accepted, Completed])
@pytest.mark.parametrize("is_in_flight", [False, True])
async def test_a_caller_can_be_cancelled_at_every_turn_of_the_loop(
    kind: type[Step], worker: Worker, store: UnreliableStore, *, is_in_flight: bool
) -> None:
    store.turns = 10
    outcomes = set()
    for turns in range(1, 40):
        row = await plan_row(worker, f"t{turns}")
        if kind is not Intended:
            row = (await worker.record(row, new_step(Intended, 1))).row or row
        is_cancelled = await cancel_recording(worker, store, row, kind, turns, is_in_flight=is_in_flight)
        outcomes.add((is_cancelled, (await read(store, row)).state))
    written = {Intended: State.INTENT, Accepted: State.ACCEPTED, Completed: State.COMPLETED}[kind]
    left = (True, State.PLANNED if kind is Intended else written)
    assert outcomes == ({left, (False, written)} if is_in_flight else {left})
    assert worker.unwritten_task_ids == []
    assert worker.lost == 0


async def test_closing_can_be_cancelled_and_still_ends(store: UnreliableStore, settings: StoreSettings) -> None:
    worker = await start(Worker(store, settings))
    row = await plan_row(worker)
    worker.note(row, new_step(Intended, 1))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await worker.aclose()
    await worker.aclose()
    assert (await read(store, row)).state is State.INTENT
    assert not store.database.is_alive(worker.number)


async def test_closing_is_bounded_while_everything_hangs(store: UnreliableStore, settings: StoreSettings) -> None:
    worker = await start(Worker(store, settings))
    row = await plan_row(worker)
    store.faults = dict.fromkeys(("apply", "beat", "fetch", "plan", "remove_worker"), Fault.HANG)
    calls = [asyncio.create_task(each) for each in (worker.changed(row), worker.plan(1, [new_row("x")]))]
    worker.note(row, new_step(Intended, 1))
    await turn_loop(10)
    with anyio.fail_after(3):
        await worker.aclose(0.1)
        await asyncio.wait(calls)
    assert {type(call.exception()) for call in calls} == {SessionClosed}
    assert tasks_of_the_package() == []


class TestBeat:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    async def worker(
        self, anyio_backend: str, store: UnreliableStore, settings: StoreSettings, clock: ManualClock
    ) -> AsyncIterator[Worker]:
        worker = await start(Worker(store, settings, time=clock.time))
        yield worker
        await worker.aclose()

    async def test_a_worker_is_fresh_for_half_a_lease_after_the_beat_was_sent(
        self, worker: Worker, store: UnreliableStore, settings: StoreSettings, clock: ManualClock
    ) -> None:
        store.faults["beat"] = Fault.HANG
        clock.advance(settings.lease / 2)
        assert worker.is_fresh()
        clock.advance(0.001)
        assert not worker.is_fresh()
        store.faults.clear()
        await until(worker.is_fresh)

    async def test_the_time_of_a_beat_is_when_it_was_sent(
        self, worker: Worker, store: UnreliableStore, settings: StoreSettings, clock: ManualClock
    ) -> None:
        gate = store.gates["beat"] = asyncio.Event()
        before = store.calls["beat"]
        await until(lambda: store.calls["beat"] > before)
        clock.advance(settings.lease)
        del store.gates["beat"]
        store.faults["beat"] = Fault.FAIL
        gate.set()
        await turn_loop(10)
        assert not worker.is_fresh()

    async def test_an_intent_of_a_stopped_worker_waits_for_a_beat(
        self, worker: Worker, store: UnreliableStore, row: Row, settings: StoreSettings, clock: ManualClock
    ) -> None:
        store.faults["beat"] = Fault.FAIL
        clock.advance(settings.lease)
        with pytest.raises(StoreUnavailable, match="nothing was sent"):
            await worker.record(row, new_step(Intended, 1), timeout=0.1)
        assert store.steps == []
        await until(lambda: worker.failure)
        store.faults.clear()
        assert (await worker.record(row, new_step(Intended, 1))).verdict is Verdict.APPLIED
        assert worker.is_fresh()
        assert worker.failure is None

    async def test_beats_continue_after_errors_of_every_kind(self, worker: Worker, store: UnreliableStore) -> None:
        for fault in (Fault.FAIL, Fault.HANG, Fault.CRASH):
            store.faults["beat"] = fault
            target = store.calls["beat"] + 2
            while store.calls["beat"] < target:
                await asyncio.sleep(0)
        store.faults.clear()
        await until(worker.is_fresh)


def test_the_boot_clock_advances_and_a_boot_has_a_name() -> None:
    first = boot_time()
    assert boot_time() >= first > 0
    assert boot_id() == boot_id()
