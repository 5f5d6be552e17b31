"""`abandoned=`: the caller of a request leaves before the result is there."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from session_support import count_creates, events_of, new_session, until

from kontext_async import CallerLeft, InvalidRequest, KontextSession, Limits
from kontext_async.events import Abandoned, Event
from kontext_async.testing import FAST, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emulator_support import ManualTime

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

SLOTS = 2


@pytest.fixture
def emulator_options(gateway_time: ManualTime) -> dict[str, Any]:
    return {"service_time": 10.0, "pixels": 64 * 64, "clock": gateway_time}


SETTINGS = attrs.evolve(FAST, limits=Limits(max_in_flight=SLOTS, polls_per_second=2000))


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[KontextSession]:
    async with new_session(emulator, SETTINGS) as running:
        yield running


async def test_a_queued_request_whose_caller_left_is_never_sent(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    left = asyncio.Event()
    running = [asyncio.create_task(session.generate("a fox")) for _ in range(SLOTS)]
    await until(lambda: session.statistics().accepted == SLOTS)
    waiting = asyncio.create_task(session.generate("of nobody", abandoned=left.wait()))
    await until(lambda: session.statistics().queued == 1)
    left.set()
    with pytest.raises(CallerLeft) as caught:
        await waiting
    assert caught.value.task_id is None
    assert not caught.value.may_be_charged
    assert session.statistics().queued == 0
    gateway_time.advance(11.0)
    await asyncio.gather(*running)
    assert count_creates(emulator) == SLOTS


async def test_of_60_that_hang_up_only_those_in_flight_are_billed(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    left = asyncio.Event()
    calls = [asyncio.create_task(session.generate("a fox", abandoned=left.wait())) for _ in range(60)]
    await until(lambda: session.statistics().accepted == SLOTS and session.statistics().queued == 60 - SLOTS)
    left.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, CallerLeft) for result in results)
    gateway_time.advance(11.0)
    await until(lambda: session.statistics().in_flight == 0)
    assert emulator.ledger.billed == SLOTS


async def test_a_caller_that_left_before_the_call_sends_nothing(session: KontextSession, emulator: Emulator) -> None:
    left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left.set_result(None)
    with pytest.raises(CallerLeft):
        await session.generate("of nobody", abandoned=left)
    with pytest.raises(CallerLeft):
        await session.submit("of nobody", abandoned=left)
    assert count_creates(emulator) == 0


async def test_a_paid_task_is_reported_in_an_event_and_in_a_log_line(
    session: KontextSession, events: list[Event], gateway_time: ManualTime, caplog: pytest.LogCaptureFixture
) -> None:
    left = asyncio.Event()
    running = asyncio.create_task(session.generate("a fox", abandoned=left.wait()))
    await until(lambda: session.statistics().accepted == 1)
    with caplog.at_level(logging.WARNING, "kontext_async"):
        left.set()
        with pytest.raises(CallerLeft) as caught:
            await running
    assert caught.value.task_id is not None
    assert caught.value.may_be_charged
    assert [event.task_id for event in events_of(Abandoned, events)] == [caught.value.task_id]
    assert caught.value.task_id in caplog.text
    gateway_time.advance(11.0)
    assert (await session.attach(caught.value.task_id).wait(5)).image.url


async def test_a_result_that_comes_as_the_caller_is_cancelled_is_reported(
    session: KontextSession, events: list[Event], gateway_time: ManualTime
) -> None:
    running = asyncio.create_task(session.generate("a fox"))
    await until(lambda: session.statistics().accepted == 1)
    session.subscribe(lambda event: running.cancel() if type(event).__name__ == "Completed" else None)
    gateway_time.advance(11.0)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(events_of(Abandoned, events)) == 1


async def test_a_paid_task_of_a_caller_that_left_is_in_the_store(emulator: Emulator, gateway_time: ManualTime) -> None:
    left = asyncio.Event()
    async with KontextSession(
        emulator.api_key, base_url=emulator.base_url, settings=SETTINGS, store=MemoryStore()
    ) as session:
        running = asyncio.create_task(session.generate("a fox", key="job-1", abandoned=left.wait()))
        await until(lambda: session.statistics().accepted == 1)
        left.set()
        with pytest.raises(CallerLeft):
            await running
        gateway_time.advance(11.0)
        await until(lambda: session.statistics().completed == 1)
        assert (await session.generate("a fox", key="job-1")).image.url
    assert emulator.ledger.billed == 1


async def test_a_future_of_the_caller_is_left_as_it_is_and_a_coroutine_is_ended(
    session: KontextSession, gateway_time: ManualTime
) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    async def watch() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    calls = [asyncio.create_task(session.generate("a fox", abandoned=each)) for each in (future, watch())]
    await until(lambda: session.statistics().accepted == 2)
    gateway_time.advance(11.0)
    await asyncio.gather(*calls)
    await until(ended.is_set)
    assert not future.done()


async def test_an_awaitable_that_fails_says_nothing(
    session: KontextSession, gateway_time: ManualTime, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise OSError("the socket is odd")

    running = asyncio.create_task(session.generate("a fox", abandoned=fail()))
    await until(lambda: session.statistics().accepted == 1)
    gateway_time.advance(11.0)
    assert (await running).image.url
    assert "abandoned= failed" in caplog.text


async def test_what_is_no_awaitable_is_refused(session: KontextSession, emulator: Emulator) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await session.generate("a fox", abandoned=asyncio.Event())  # type: ignore[arg-type] # what is tested
    assert caught.value.field == "abandoned"
    assert count_creates(emulator) == 0
