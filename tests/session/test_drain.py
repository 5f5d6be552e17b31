"""`KontextSession.drain` and `KontextSession.health`: a server stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from session_support import count_creates, new_session, turn_loop, until

from kontext_async import InvalidRequest, KontextSession, Limits, Overloaded, SessionClosed, SessionHealth
from kontext_async.bulk import BulkRun
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from emulator_support import ManualTime

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

SLOTS = 2


@pytest.fixture
def emulator_options(gateway_time: ManualTime) -> dict[str, Any]:
    return {"service_time": 10.0, "pixels": 64 * 64, "clock": gateway_time}


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[KontextSession]:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=SLOTS, polls_per_second=2000))
    async with new_session(emulator, settings) as running:
        yield running


async def start(session: KontextSession, queued: int) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(session.generate("a fox")) for _ in range(SLOTS + queued)]
    await until(lambda: session.statistics().accepted == SLOTS and session.statistics().queued == queued)
    return tasks


async def test_accepted_tasks_are_finished_and_queued_requests_are_not_sent(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    accepted, queued = (tasks := await start(session, 3))[:SLOTS], tasks[SLOTS:]
    draining = asyncio.create_task(session.drain())
    refused = await asyncio.gather(*queued, return_exceptions=True)
    assert [type(error) for error in refused] == [Overloaded] * 3
    with pytest.raises(Overloaded) as caught:
        await session.share("late").generate("a fox")
    assert caught.value.retry_after > 0
    assert not draining.done()
    gateway_time.advance(11.0)
    assert await draining == ()
    images = [generation.image for generation in await asyncio.gather(*accepted)]
    assert await session.read(images[0]), "downloads continue"
    assert count_creates(emulator) == SLOTS


async def test_after_the_grace_those_who_wait_get_the_id(session: KontextSession, gateway_time: ManualTime) -> None:
    tasks = await start(session, 0)
    unfinished = await session.drain(grace=0.05)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, SessionClosed) for error in errors)
    assert {error.task_id for error in errors if isinstance(error, SessionClosed)} == set(unfinished)
    assert len(unfinished) == SLOTS
    gateway_time.advance(11.0)
    assert (await session.attach(unfinished[0]).wait(5)).image.url


async def test_an_idle_session_drains_at_once_and_more_than_once(session: KontextSession) -> None:
    assert await session.drain(grace=60.0) == ()
    assert await session.drain(grace=0) == ()


async def test_a_task_that_was_attached_is_waited_for(
    session: KontextSession, gateway_time: ManualTime, emulator: Emulator
) -> None:
    async with new_session(emulator) as other:
        task_id = (await other.submit("a fox")).id
    waiting = asyncio.create_task(session.attach(task_id).wait(30))
    await until(lambda: session.statistics().pending == 1)
    draining = asyncio.create_task(session.drain())
    await turn_loop(20)
    assert not draining.done()
    gateway_time.advance(11.0)
    assert await draining == ()
    assert (await waiting).task_id == task_id


async def test_a_durable_run_stops_and_leaves_the_rest_to_the_next_one(
    session: KontextSession, gateway_time: ManualTime, tmp_path: Path
) -> None:
    bulk = BulkRun(session, tmp_path)
    run = asyncio.create_task(bulk.execute([f"fox {number}" for number in range(20)]))
    await until(lambda: session.statistics().accepted == SLOTS and session.statistics().queued >= 1)
    draining = asyncio.create_task(session.drain())
    await turn_loop(20)
    gateway_time.advance(11.0)
    assert await draining == ()
    report = await run
    assert (report.completed, report.failed) == (SLOTS, {})
    assert report.remaining > 0
    assert isinstance(report.stopped, Overloaded)


@pytest.mark.parametrize("grace", [-1, float("inf"), "8", None])
async def test_a_grace_that_is_no_time_is_refused(grace: Any, session: KontextSession) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await session.drain(grace)
    assert caught.value.field == "grace"
    assert not session.health().is_draining


async def test_a_closed_session_cannot_drain(emulator: Emulator) -> None:
    with pytest.raises(SessionClosed):
        await new_session(emulator).drain()


class TestHealth:
    async def test_a_session_is_ready_while_it_runs(self, emulator: Emulator) -> None:
        session = new_session(emulator)
        assert session.health().reason == "the session is not running"
        async with session:
            assert session.health().is_ready
            assert session.health().expected_wait == 0
        assert not session.health().is_ready

    async def test_a_session_that_drains_is_not_ready(self, session: KontextSession) -> None:
        await session.drain()
        assert session.health().reason == "the session drains"

    async def test_the_expected_wait_grows_with_the_queue(
        self, session: KontextSession, gateway_time: ManualTime
    ) -> None:
        tasks = await start(session, 1)
        short = session.health().expected_wait
        tasks += [asyncio.create_task(session.generate("a fox")) for _ in range(6)]
        await until(lambda: session.statistics().queued == 7)
        assert session.health().expected_wait > short > 0
        while not all(task.done() for task in tasks):
            gateway_time.advance(11.0)
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)

    @pytest.mark.parametrize("circuit", ["open", "half_open", "stopped"])
    def test_a_session_that_does_not_submit_is_not_ready(self, circuit: str) -> None:
        health = SessionHealth(
            is_running=True,
            is_draining=False,
            circuit=circuit,
            queued=0,
            is_queue_full=False,
            in_flight=0,
            limit=1,
            expected_wait=0.0,
        )
        assert not health.is_ready
        assert circuit in (health.reason or "")
