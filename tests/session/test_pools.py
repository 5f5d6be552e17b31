"""Pools of models with limits of their own: the emulator enforces them, and a full one holds up no other."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from gateway_sessions import connect, new_emulator
from session_support import turn_loop, until

from kontext_async import ConfigurationError, KontextRequest, KontextSession, Limits, SessionClosed
from kontext_async.emulator import Emulator, Fault
from kontext_async.events import Accepted, Throttled
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emulator_support import ManualTime

pytestmark = pytest.mark.anyio

PRO, MAX = "flux_kontext_pro", "flux_kontext_max"
SECONDS = 10.0
"""The duration of each task, on the gateway's clock."""


@pytest.fixture
async def emulator(gateway_time: ManualTime) -> AsyncIterator[Emulator]:
    """An account with two pools: 5 tasks of [pro], and 2 of [max]."""
    limits = {PRO: 5, MAX: 2}
    async with new_emulator(service_time=SECONDS, clock=gateway_time, max_tasks_by_model=limits) as running:
        yield running


@pytest.fixture
def limits() -> Limits:
    return Limits(max_in_flight=5, max_in_flight_by_model={MAX: 2}, polls_per_second=2000)


@pytest.fixture
async def session(emulator: Emulator, limits: Limits) -> AsyncIterator[KontextSession]:
    async with connect("bfl", emulator, settings=attrs.evolve(FAST, limits=limits)) as running:
        yield running


def start(session: KontextSession, model: str, count: int) -> list[asyncio.Task[Any]]:
    requests = [KontextRequest(f"{model} {number}", model=model) for number in range(count)]
    return [asyncio.create_task(session.generate(each)) for each in requests]


async def stop(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def accepted(emulator: Emulator) -> list[str]:
    return [entry.prompt or "" for entry in emulator.ledger.entries if entry.task_id]


async def test_requests_that_wait_in_a_full_pool_hold_up_no_other(session: KontextSession, emulator: Emulator) -> None:
    tasks = start(session, MAX, 6)
    await until(lambda: session.statistics().accepted == 2)
    tasks += start(session, PRO, 8)
    await until(lambda: session.statistics().accepted == 7)
    await turn_loop(50)
    assert accepted(emulator) == [*(f"{MAX} {number}" for number in range(2)), *(f"{PRO} {n}" for n in range(5))]
    figures = session.statistics()
    assert (figures.in_flight, figures.limit, figures.queued) == (7, 7, 7)
    assert emulator.ledger.refused == 0
    await stop(tasks)


async def test_each_pool_is_first_in_first_out(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    tasks = [task for pair in zip(start(session, MAX, 6), start(session, PRO, 6), strict=True) for task in pair]
    while not all(task.done() for task in tasks):
        await turn_loop(100)
        gateway_time.advance(SECONDS)
    await asyncio.gather(*tasks)
    for model in (MAX, PRO):
        assert [each for each in accepted(emulator) if each.startswith(model)] == [f"{model} {n}" for n in range(6)]
    assert (emulator.ledger.billed, emulator.ledger.billed_twice) == (12, {})


class TestAnAccountThatAllowsFewer:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(max_in_flight=20, max_in_flight_by_model={MAX: 20}, polls_per_second=2000)

    async def test_each_pool_finds_its_own_limit(
        self, session: KontextSession, emulator: Emulator, gateway_time: ManualTime
    ) -> None:
        tasks = [*start(session, MAX, 20), *start(session, PRO, 40)]
        while not all(task.done() for task in tasks):
            await turn_loop(100)
            gateway_time.advance(SECONDS / 20)
        await asyncio.gather(*tasks)
        assert (emulator.ledger.billed, emulator.ledger.billed_twice) == (60, {})
        assert session._engine.slots.of(MAX).adaptive_limit.limit <= 4
        assert session._engine.slots.of(PRO).adaptive_limit.limit >= 4

    async def test_a_throttled_pool_does_not_pause_the_other(self, session: KontextSession, emulator: Emulator) -> None:
        throttled: list[Throttled] = []
        session.subscribe(throttled.append, Throttled)
        emulator.faults.script("create", [Fault(kind="rate-limited", retry_after=60)])
        tasks = start(session, MAX, 1)
        await until(lambda: throttled)
        tasks += start(session, PRO, 3)
        await until(lambda: session.statistics().accepted == 3)
        assert all(each.startswith(PRO) for each in accepted(emulator))
        await stop(tasks)

    async def test_a_gateway_that_is_not_available_pauses_all(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        throttled: list[Throttled] = []
        events: list[Accepted] = []
        session.subscribe(throttled.append, Throttled)
        session.subscribe(events.append, Accepted)
        tasks = start(session, PRO, 1)
        await until(lambda: events)
        emulator.faults.script("create", [Fault(kind="unavailable", retry_after=60)])
        tasks += start(session, MAX, 1)
        await until(lambda: throttled)
        tasks += start(session, PRO, 3)
        await turn_loop(100)
        assert (len(events), session.statistics().queued) == (1, 4)
        await stop(tasks)


async def test_the_ceiling_is_changed_for_all_pools(session: KontextSession, emulator: Emulator) -> None:
    tasks = [*start(session, MAX, 4), *start(session, PRO, 9)]
    await until(lambda: session.statistics().accepted == 7)
    session.set_max_in_flight(4)
    assert session.statistics().limit == 6
    session.set_max_in_flight(5)
    assert session.statistics().limit == 7
    assert emulator.ledger.refused == 0
    await stop(tasks)


async def test_a_pool_that_is_first_used_after_the_close_admits_nothing(session: KontextSession) -> None:
    slots = session._engine.slots
    await session.aclose()
    with pytest.raises(SessionClosed):
        await slots.of(MAX).acquire()


@pytest.mark.parametrize("value", [None, 3, {MAX: 0}, {MAX: True}, {MAX: 1.5}, {3: 3}, [(MAX, 2)]], ids=repr)
def test_wrong_numbers_by_model_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Limits\.max_in_flight_by_model"):
        Limits(max_in_flight_by_model=value)


def test_limits_with_numbers_by_model_are_values() -> None:
    given = {MAX: 2}
    limits = Limits(max_in_flight_by_model=given)
    given[MAX] = 9
    assert limits == Limits(max_in_flight_by_model={MAX: 2})
    assert hash(limits) == hash(Limits(max_in_flight_by_model={MAX: 2}))
    assert pickle.loads(pickle.dumps(limits)) == limits  # noqa: S301 # our own
