"""The ceiling on tasks in flight is changed while the session runs."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from session_support import count_creates, new_session, turn_loop, until

from kontext_async import ConfigurationError, Limits, SessionClosed
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from emulator_support import ManualTime

    from kontext_async import KontextSession
    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

SECONDS = 10.0
"""The duration of each task, on the gateway's clock."""


@pytest.fixture
def emulator_options(gateway_time: ManualTime) -> dict[str, Any]:
    return {"service_time": SECONDS, "pixels": 64 * 64, "clock": gateway_time}


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[KontextSession]:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=2, polls_per_second=2000))
    async with new_session(emulator, settings) as running:
        yield running


async def start(session: KontextSession, count: int) -> list[asyncio.Task[Any]]:
    """Start to generate images; return when the ceiling is reached and the other requests wait."""
    tasks = [asyncio.create_task(session.generate(f"fox {number}")) for number in range(count)]
    ceiling = session.settings.limits.max_in_flight
    await until(lambda: session.statistics().accepted == ceiling and session.statistics().queued == count - ceiling)
    return tasks


async def stop(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_higher_number_admits_waiting_requests_at_once(session: KontextSession, emulator: Emulator) -> None:
    tasks = await start(session, 7)
    session.set_max_in_flight(5)
    assert session.statistics().limit == session.statistics().in_flight == 5
    await until(lambda: emulator.ledger.billed == 5)
    assert session.statistics().queued == 2
    await stop(tasks)


async def test_a_lower_number_lets_tasks_in_flight_finish_and_submits_nothing_meanwhile(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    session.set_max_in_flight(4)
    tasks = await start(session, 6)
    session.set_max_in_flight(1)
    assert session.statistics().limit == 1
    assert session.statistics().in_flight == 4
    gateway_time.advance(SECONDS)
    await until(lambda: session.statistics().completed == 4)
    await until(lambda: session.statistics().accepted == 5)
    await turn_loop(50)
    assert count_creates(emulator) == 5, "the sixth waits for the fifth"
    gateway_time.advance(SECONDS)
    await until(lambda: session.statistics().accepted == 6)
    gateway_time.advance(SECONDS)
    assert len(await asyncio.gather(*tasks)) == 6


async def test_generate_many_reads_on_at_once_under_a_higher_number(session: KontextSession) -> None:
    read = 0

    def prompts() -> Iterator[str]:
        nonlocal read
        for read in range(1, 1001):  # noqa: B007 # the test looks at it
            yield "a fox"

    async with aclosing(session.generate_many(prompts())) as outcomes:
        first = asyncio.ensure_future(anext(outcomes))
        await until(lambda: read == 4)
        await turn_loop(50)
        assert read == 4
        session.set_max_in_flight(10)
        await until(lambda: session.statistics().in_flight == 10 and session.statistics().queued == 10)
        await turn_loop(50)
        assert read == 20
        assert not first.done()
        first.cancel()
        await asyncio.wait([first])


async def test_the_settings_have_the_new_number(session: KontextSession) -> None:
    before = session.settings
    session.set_max_in_flight(7)
    assert session.settings.limits == attrs.evolve(before.limits, max_in_flight=7)
    assert attrs.evolve(session.settings, limits=before.limits) == before


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "3", None], ids=repr)
async def test_a_number_that_is_not_allowed_changes_nothing(session: KontextSession, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Limits\.max_in_flight.*at least 1"):
        session.set_max_in_flight(wrong)
    assert session.settings.limits.max_in_flight == session.statistics().limit == 2


async def test_a_session_that_is_not_running_refuses(emulator: Emulator) -> None:
    session = new_session(emulator)
    with pytest.raises(SessionClosed):
        session.set_max_in_flight(3)
    async with session:
        session.set_max_in_flight(3)
    with pytest.raises(SessionClosed):
        session.set_max_in_flight(4)
