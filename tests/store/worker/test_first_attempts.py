"""Rows that begin with their first attempt: none stays begun for a caller that left, whatever the store does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from session_support import turn_loop, until
from store_support import new_row
from unreliable_store import Fault, UnreliableStore, open_worker, start, worker_settings

from kontext_async.errors import SessionClosed, StoreUnavailable, StoreUnusable
from kontext_async.store.steps import State, Withdrawn
from kontext_async.store.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kontext_async.settings import StoreSettings

pytestmark = pytest.mark.anyio


async def begin(worker: Worker, key: str = "fox") -> bool:
    """Begin the first attempt of a key, and return True if it began here."""
    run = await worker.run("default")
    assert run
    new = new_row(key, intended=worker.first_attempt())
    return new.has_begun(await worker.begin(run.id, new), worker.number)


def state_of(store: UnreliableStore, key: str = "fox") -> State | None:
    """Return the state of a key's row; None if it has none."""
    number = store.database.keys.get((1, key))
    return None if number is None else store.database.rows[number].state


def is_free(store: UnreliableStore, key: str = "fox") -> bool:
    return state_of(store, key) in (None, State.PLANNED)


@asynccontextmanager
async def in_flight(
    store: UnreliableStore, settings: StoreSettings
) -> AsyncIterator[tuple[Worker, asyncio.Task[bool]]]:
    """Give a worker, and a caller of it whose statement is in flight, and close the worker while that ends."""
    worker = await start(Worker(store, settings))
    await worker.run("default")
    store.gates["plan"] = asyncio.Event()
    caller = asyncio.create_task(begin(worker))
    await until(lambda: store.calls["plan"] == 1)
    yield worker, caller
    closing = asyncio.create_task(worker.aclose())
    await turn_loop(3)
    store.gates["plan"].set()
    await closing


async def test_attempts_that_begin_together_share_a_statement(worker: Worker, store: UnreliableStore) -> None:
    await worker.run("default")
    assert all(await asyncio.gather(*(begin(worker, f"fox {number}") for number in range(50))))
    assert store.calls["plan"] == 1
    assert store.groups == []


async def test_no_two_attempts_begin_at_one_time(worker: Worker) -> None:
    times = [worker.first_attempt().at for _ in range(1000)]
    assert times == sorted(set(times))


async def test_one_of_two_callers_begins(worker: Worker) -> None:
    assert sorted(await asyncio.gather(begin(worker), begin(worker))) == [False, True]


@pytest.mark.parametrize("is_in_flight", [False, True])
async def test_a_caller_can_be_cancelled_at_every_turn_of_the_loop(
    worker: Worker, store: UnreliableStore, *, is_in_flight: bool
) -> None:
    await worker.run("default")
    store.turns = 10
    cancelled = set()
    for turns in range(40):
        key, plans = f"t{turns}", store.calls["plan"]
        task = asyncio.create_task(begin(worker, key))
        await until(lambda before=plans: store.calls["plan"] > before or not is_in_flight)  # type: ignore[misc]
        await turn_loop(turns)
        task.cancel()
        await asyncio.wait([task])
        await begin(worker, f"after {key}")  # the statement of the other has ended
        await worker.flush(5.0)
        cancelled.add(task.cancelled())
        if task.cancelled():
            assert is_free(store, key), turns
        else:
            assert task.result()
            assert state_of(store, key) is State.INTENT
    assert True in cancelled
    assert worker.lost == 0


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG, Fault.WRITE_AND_FAIL, Fault.CRASH])
async def test_an_attempt_begins_once_the_store_responds(fault: Fault, store: UnreliableStore, tmp_path: Path) -> None:
    async with open_worker(store, worker_settings(tmp_path, step=10.0)) as worker:
        store.faults["plan"] = fault
        beginning = asyncio.create_task(begin(worker))
        await until(lambda: store.calls["plan"] >= 2)
        store.faults.clear()
        assert await beginning


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG, Fault.WRITE_AND_FAIL, Fault.CRASH])
async def test_an_attempt_whose_caller_gave_up_is_withdrawn_when_the_store_responds(
    fault: Fault, worker: Worker, store: UnreliableStore
) -> None:
    await worker.run("default")
    store.faults["plan"] = fault
    with pytest.raises(StoreUnavailable, match=r"within 0.5 s; nothing was sent"):
        await begin(worker)
    store.faults.clear()
    calls = store.calls["plan"]
    await until(lambda: store.calls["plan"] > calls)
    await until(lambda: is_free(store))
    assert [type(step) for step in store.steps] == [Withdrawn]


async def test_an_unusable_store_fails_the_caller_at_once(worker: Worker, store: UnreliableStore) -> None:
    await worker.run("default")
    store.faults["plan"], store.error = Fault.WRITE_AND_FAIL, StoreUnusable("the file was deleted")
    with pytest.raises(StoreUnusable):
        await begin(worker)
    store.faults.clear()
    await until(lambda: is_free(store))


async def test_closing_withdraws_what_began_for_a_caller_that_left(
    store: UnreliableStore, settings: StoreSettings
) -> None:
    async with in_flight(store, settings) as (_, caller):
        caller.cancel()
        await asyncio.wait([caller])
    assert state_of(store) is State.PLANNED


async def test_closing_fails_callers_whose_statement_was_not_sent(
    store: UnreliableStore, settings: StoreSettings
) -> None:
    async with in_flight(store, settings) as (worker, first):
        second = asyncio.create_task(begin(worker, "another"))
        await turn_loop(3)
    assert await first
    with pytest.raises(SessionClosed):
        await second
    assert state_of(store, "another") is None
