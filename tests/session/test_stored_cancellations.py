"""Callers of a key that are cancelled at every await: whoever calls again gets the image, and nothing is paid twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from session_support import until

from kontext_async import KontextSession, SessionClosed, SubmissionUncertain
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.store.memory import MemoryStore
from kontext_async.store.steps import State
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

MAX_TURNS = 400


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def stored(emulator: Emulator, store: MemoryStore) -> AsyncIterator[KontextSession]:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST, store=store) as session:
        yield session


async def call(session: KontextSession, name: str, key: str) -> None:
    if name == "generate":
        await session.generate("a fox", key=key)
    elif name == "generate with a timeout":
        await session.generate("a fox", key=key, timeout=30)
    elif name == "submit and wait":
        await (await session.submit("a fox", key=key)).wait()
    else:
        await asyncio.gather(*(session.generate("a fox", key=key) for _ in range(3)))


@pytest.mark.parametrize("name", ["generate", "generate with a timeout", "submit and wait", "three callers"])
async def test_a_call_can_be_cancelled_at_every_turn_of_the_loop(
    name: str, stored: KontextSession, emulator: Emulator, store: MemoryStore
) -> None:
    turns, cancelled, completed_in_a_row, keys = 0, 0, 0, 0
    while completed_in_a_row < 3 and turns < MAX_TURNS:
        keys += 1
        task = asyncio.create_task(call(stored, name, f"job-{keys}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_cancelled = task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.done()
        cancelled += was_cancelled
        completed_in_a_row = 0 if was_cancelled else completed_in_a_row + 1
        assert (await stored.generate("a fox", key=f"job-{keys}")).images
        turns += 1 if turns < 40 else 7
    assert cancelled > 10
    await until(lambda: stored.statistics().in_flight == 0)
    assert emulator.ledger.accepted == keys
    assert {row.task_id for row in store.database.rows.values()} == set(emulator.ledger.task_ids)
    assert {row.state for row in store.database.rows.values()} == {State.COMPLETED}


async def test_a_session_that_closes_while_a_request_is_on_the_wire_records_its_id(
    emulator: Emulator, store: MemoryStore
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST, store=store) as session:
        call = asyncio.create_task(session.generate("a fox", key="job-42"))
        await until(lambda: emulator.ledger.accepted)
    with pytest.raises(SessionClosed) as caught:
        await call
    assert [caught.value.task_id] == list(emulator.ledger.task_ids)
    assert [row.task_id for row in store.database.rows.values()] == list(emulator.ledger.task_ids)
    async with KontextSession(
        emulator.api_key, base_url=emulator.base_url, settings=FAST, store=store.share()
    ) as session:
        assert (await session.generate("a fox", key="job-42")).images
    assert emulator.ledger.accepted == 1


async def test_a_session_that_closes_before_the_response_leaves_an_uncertain_request(
    emulator: Emulator, store: MemoryStore
) -> None:
    from attrs import evolve

    emulator.faults.script("create", [FaultKind.STALL_AFTER_ACCEPT])
    hasty = evolve(FAST, timeouts=evolve(FAST.timeouts, cancel=0.1))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=hasty, store=store) as session:
        call = asyncio.create_task(session.generate("a fox", key="job-42"))
        await until(lambda: emulator.ledger.accepted)
    with pytest.raises(SubmissionUncertain):
        await call
    assert [row.state for row in store.database.rows.values()] == [State.UNCERTAIN]
