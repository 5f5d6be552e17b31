"""The session's limits against a real gateway: slots, pauses, and the rate of polls."""

from __future__ import annotations

import asyncio

import pytest
from session_support import new_session, until

from kontext_async import KontextSession, Limits, Polling, Settings, TaskTimeout, Timeouts
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST

pytestmark = pytest.mark.anyio


async def test_a_task_holds_its_slot_until_it_ends_or_expires(emulator: Emulator) -> None:
    settings = Settings(limits=Limits(max_in_flight=1), polling=FAST.polling, timeouts=Timeouts(wait=0.3))
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    async with new_session(emulator, settings) as session:
        hanging = await session.submit("hangs")
        second = asyncio.create_task(session.generate("second"))
        await until(lambda: session.statistics().queued == 1)
        assert session.statistics().in_flight == 1
        assert (await second).images  # `Timeouts.wait` has passed for the first
        with pytest.raises(TaskTimeout):
            await hanging.wait(0.05)


@pytest.mark.parametrize("emulator_options", [{"max_tasks": 4, "service_time": 0.03, "pixels": 4096}])
async def test_the_session_finds_the_limit_of_the_account(session: KontextSession, emulator: Emulator) -> None:
    outcomes = await session.generate_all(f"fox {n}" for n in range(60))
    assert all(outcome.ok for outcome in outcomes)
    assert emulator.ledger.billed == 60
    assert session.statistics().limit <= 8
    assert emulator.ledger.refused < 60


async def test_a_throttled_request_pauses_every_submission(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.RATE_LIMITED, retry_after=0.3)])
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = asyncio.create_task(session.generate("throttled"))
    await until(lambda: session.statistics().throttled)
    await session.generate("waits, too")
    assert loop.time() - began >= 0.3
    await first


async def test_polls_stay_under_their_rate_limit(emulator: Emulator) -> None:
    settings = Settings(
        limits=Limits(max_in_flight=50, polls_per_second=40),
        polling=Polling(initial_delay=0.0, interval=0.01, min_interval=0.01),
    )
    emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
    async with new_session(emulator, settings) as session:
        for n in range(30):
            await session.submit(f"fox {n}")
        loop = asyncio.get_running_loop()
        began, polls = loop.time(), session.statistics().polls
        with pytest.raises(TaskTimeout):
            await (await session.submit("one more")).wait(1.0)
        elapsed = loop.time() - began
        assert session.statistics().polls - polls <= 40 * (elapsed + 0.1) + 1
