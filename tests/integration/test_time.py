"""What takes minutes, in no time: session and emulator share a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from kontext_async import (
    GatewayUnavailable,
    KontextSession,
    Limits,
    Polling,
    RateLimited,
    SessionClosed,
    Settings,
    TaskNotFound,
    TaskTimeout,
    Timeouts,
)
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio


ENOUGH_TURNS = 10
"""Turns of the loop after which everybody who could go on has done so."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def emulator(anyio_backend: str, clock: ManualClock) -> AsyncIterator[Emulator]:
    async with Emulator(service_time=100.0, clock=clock.unix, pixels=4096) as running:
        yield running


@pytest.fixture
async def session(emulator: Emulator, clock: ManualClock) -> AsyncIterator[KontextSession]:
    settings = Settings(polling=Polling(initial_delay=1.0, interval=10.0), limits=Limits(max_in_flight=3))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as running:
        yield running


async def in_time(awaitable: Awaitable[Any], clock: ManualClock, session: KontextSession) -> Any:
    """Turn the clock to whatever is next, whenever nothing is on the wire, until there is a result."""
    task = asyncio.ensure_future(awaitable)
    quiet = 0
    for _ in range(100_000):
        await asyncio.sleep(0)
        if task.done():
            return await task
        busy = session.statistics().polls_in_flight or session._engine.scheduler._in_flight
        quiet = 0 if busy else quiet + 1
        if quiet > ENOUGH_TURNS and clock.next_at is not None:
            clock.advance(max(0.0, clock.next_at - clock.time()))
            quiet = 0
    raise AssertionError("nothing came of it")


async def test_a_task_is_asked_about_at_the_settings_pace(session: KontextSession, clock: ManualClock) -> None:
    fox = await in_time(session.generate("a fox"), clock, session)
    assert 100 <= fox.elapsed <= 112
    assert 10 <= session.statistics().polls <= 13


async def test_the_longest_wait_is_from_acceptance(emulator: Emulator, clock: ManualClock) -> None:
    settings = Settings(polling=Polling(interval=5.0), timeouts=Timeouts(wait=50))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as session:
        task = await in_time(session.submit("a fox"), clock, session)
        clock.advance(30)
        with pytest.raises(TaskTimeout) as caught:
            await in_time(task.wait(), clock, session)
        assert clock.time() == pytest.approx(60, abs=0.5)  # no less than the patience of one status request
        assert caught.value.last_status is not None
        clock.advance(60)
        assert (await in_time(task.wait(), clock, session)).task_id == task.id


async def test_a_task_that_nobody_waits_for_gives_its_slot_back_in_the_end(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS] * 3)
    for n in range(3):
        await in_time(session.submit(f"hangs {n}"), clock, session)
    assert session.statistics().in_flight == 3
    fox = await in_time(session.generate("waits for a slot"), clock, session)
    assert clock.time() >= 600 + 100
    assert fox.images
    assert session.statistics().abandoned == 3
    assert session.statistics().in_flight == 0


async def test_a_404_counts_after_the_grace_period(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    emulator.faults.script("create", [FaultKind.TASK_VANISHES])
    with pytest.raises(TaskNotFound):
        await in_time(session.generate("gone"), clock, session)
    assert 10 <= clock.time() <= 25


async def test_failures_in_a_row_are_borne_for_their_budget(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    task = await in_time(session.submit("a fox"), clock, session)
    emulator.faults.set_rate(Fault(kind=FaultKind.HTTP_STATUS, on=["status"], status=500), 1)
    with pytest.raises(GatewayUnavailable) as caught:
        await in_time(task.wait(timeout=1000), clock, session)
    assert 300 <= clock.time() <= 340
    assert caught.value.task_id == task.id
    assert caught.value.may_be_charged
    emulator.faults.clear()
    assert (await in_time(task.wait(), clock, session)).task_id == task.id


@pytest.mark.parametrize(("named", "waited"), [(60, 60), ("1e9", 120), ("inf", 120)])
async def test_a_named_wait_is_kept_and_capped(
    session: KontextSession, emulator: Emulator, clock: ManualClock, named: float | str, waited: float
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.RATE_LIMITED, retry_after=named)])
    await in_time(session.submit("a fox"), clock, session)
    assert waited <= clock.time() <= waited + 0.1


async def test_a_date_is_taken_by_the_sessions_clock(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    late = Fault(kind=FaultKind.RATE_LIMITED, retry_after=30, retry_after_date=True)
    emulator.faults.script("create", [late])
    await in_time(session.submit("a fox"), clock, session)
    assert 29 <= clock.time() <= 31


async def test_a_timeout_while_all_slots_are_taken(
    session: KontextSession, clock: ManualClock, until: Callable[..., Any]
) -> None:
    for n in range(3):
        await in_time(session.submit(f"fox {n}"), clock, session)
    submitted = session.statistics().submitted
    with pytest.raises(GatewayUnavailable, match="not submitted") as caught:
        await in_time(session.generate("no room", timeout=20), clock, session)
    assert not caught.value.may_be_charged
    assert session.statistics().submitted == submitted
    assert session.statistics().queued == 0


def test_the_manual_clock() -> None:
    clock = ManualClock()
    seen: list[str] = []
    clock.call_at(2, lambda: seen.append(f"two at {clock.time():g}"))
    clock.call_at(1, lambda: seen.append(f"one at {clock.time():g}"))
    clock.call_at(3, lambda: seen.append("never")).cancel()
    clock.call_at(0, lambda: seen.append("at once"))
    assert clock.next_at == 1
    clock.advance(10)
    assert seen == ["at once", "one at 1", "two at 2"]
    assert clock.time() == 10
    assert clock.next_at is None
    assert clock.unix() == clock.utcnow().timestamp()


async def test_asking_out_of_turn_keeps_to_the_cap(emulator: Emulator, clock: ManualClock) -> None:
    settings = Settings(polling=Polling(initial_delay=1000.0), limits=Limits(polls_per_second=0.5))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as session:
        task = await in_time(session.submit("a fox"), clock, session)
        began = clock.time()
        statuses = await in_time(asyncio.gather(*(task.status() for _ in range(6))), clock, session)
        assert [status.task_id for status in statuses] == [task.id] * 6
        assert clock.time() - began == pytest.approx(5 * 2.0, abs=0.1)
        assert session.statistics().polls == 6


async def test_asking_out_of_turn_waits_while_the_gateway_holds_back(emulator: Emulator, clock: ManualClock) -> None:
    emulator.faults.script("status", [Fault(kind=FaultKind.HTTP_STATUS, status=429, retry_after=40.0)])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, clock=clock) as session:
        task = await in_time(session.submit("a fox"), clock, session)
        with pytest.raises(RateLimited):
            await in_time(task.status(), clock, session)
        refused = clock.time()
        await in_time(task.status(), clock, session)
        assert clock.time() >= refused + 40


async def test_closing_ends_a_wait_for_a_turn(emulator: Emulator, clock: ManualClock) -> None:
    settings = Settings(polling=Polling(initial_delay=1000.0), limits=Limits(polls_per_second=0.001))
    session = KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock)
    await session.start()
    task = await in_time(session.submit("a fox"), clock, session)
    await in_time(task.status(), clock, session)
    waiting = asyncio.create_task(task.status())
    caller_cancelled = asyncio.create_task(task.status())
    await asyncio.sleep(0)
    caller_cancelled.cancel()
    await asyncio.wait([caller_cancelled])
    assert caller_cancelled.cancelled()
    await session.aclose()
    with pytest.raises(SessionClosed) as caught:
        await waiting
    assert caught.value.task_id == task.id


def broken(*_: object) -> None:
    raise ZeroDivisionError("a bug")


async def test_a_fault_in_the_timer_ends_the_session(
    session: KontextSession, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await in_time(session.submit("a fox"), clock, session)
    waiting = asyncio.create_task(task.wait())
    for _ in range(ENOUGH_TURNS):
        await asyncio.sleep(0)
    monkeypatch.setattr(session._engine.poll_loop._queue, "wake_at", broken)
    clock.advance(1.5)
    with pytest.raises(SessionClosed) as caught:
        await waiting
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.task_id == task.id


async def test_a_fault_that_nobody_is_there_for_is_the_event_loops(
    session: KontextSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session._engine.poll_loop._queue, "wake_at", broken)
    with pytest.raises(ZeroDivisionError):
        session._engine.poll_loop._workers._on_timer()


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_BODY, FaultKind.CUT])
async def test_an_outcome_that_took_too_long_says_what_was_said_last(
    emulator: Emulator, clock: ManualClock, kind: FaultKind
) -> None:
    settings = Settings(polling=Polling(interval=5.0), timeouts=Timeouts(wait=50), limits=Limits(max_in_flight=1))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as session:
        (said,) = await in_time(session.generate_all(["a fox"]), clock, session)
        assert isinstance(said.error, TaskTimeout)
        assert said.error.last_status is not None
        emulator.faults.set_rate(Fault(kind=kind, on=["status"]), 1)
        (unsaid,) = await in_time(session.generate_all(["a fox"]), clock, session)
        assert isinstance(unsaid.error, TaskTimeout)
        assert unsaid.error.last_status is None
