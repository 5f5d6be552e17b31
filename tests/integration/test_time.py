"""Minutes in no time: the session and the emulator share a clock that is advanced by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from session_support import ENOUGH_TURNS, run_with_clock, turn_loop

from kontext_async import (
    GatewayUnavailable,
    KontextSession,
    Limits,
    Polling,
    RateLimited,
    SessionClosed,
    SessionCrashed,
    Settings,
    TaskNotFound,
    TaskTimeout,
    Timeouts,
)
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def emulator_options(clock: ManualClock) -> dict[str, Any]:
    return {"service_time": 100.0, "clock": clock.unix, "pixels": 4096}


@pytest.fixture
async def session(emulator: Emulator, clock: ManualClock) -> AsyncIterator[KontextSession]:
    settings = Settings(polling=Polling(initial_delay=1.0, interval=10.0), limits=Limits(max_in_flight=3))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as running:
        yield running


async def test_a_task_is_polled_at_the_interval_of_the_settings(session: KontextSession, clock: ManualClock) -> None:
    fox = await run_with_clock(session.generate("a fox"), clock, session)
    assert 100 <= fox.elapsed <= 112
    assert 15 <= session.statistics().polls <= 19


async def test_the_longest_wait_counts_from_acceptance(emulator: Emulator, clock: ManualClock) -> None:
    settings = Settings(polling=Polling(interval=5.0), timeouts=Timeouts(wait=50))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as session:
        task = await run_with_clock(session.submit("a fox"), clock, session)
        clock.advance(30)
        with pytest.raises(TaskTimeout) as caught:
            await run_with_clock(task.wait(), clock, session)
        assert clock.time() == pytest.approx(60, abs=0.5)  # never less than the timeout of one status request
        assert caught.value.last_status is not None
        clock.advance(60)
        assert (await run_with_clock(task.wait(), clock, session)).task_id == task.id


async def test_an_unwatched_task_releases_its_slot_after_the_longest_wait(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS] * 3)
    for n in range(3):
        await run_with_clock(session.submit(f"hangs {n}"), clock, session)
    assert session.statistics().in_flight == 3
    fox = await run_with_clock(session.generate("waits for a slot"), clock, session)
    assert clock.time() >= 600 + 100
    assert fox.images
    assert session.statistics().abandoned == 3
    assert session.statistics().in_flight == 0


async def test_a_404_fails_the_task_after_the_grace_period(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    emulator.faults.script("create", [FaultKind.TASK_VANISHES])
    with pytest.raises(TaskNotFound):
        await run_with_clock(session.generate("gone"), clock, session)
    # the first poll after 1.1 s at most, then the grace period, and at most one more backoff of 16 s
    assert 10 <= clock.time() <= 1.1 + 10 + 16 + 0.1


async def test_consecutive_failures_fail_the_task_after_their_budget(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    task = await run_with_clock(session.submit("a fox"), clock, session)
    emulator.faults.set_rate(Fault(kind=FaultKind.HTTP_STATUS, on=["status"], status=500), 1)
    with pytest.raises(GatewayUnavailable) as caught:
        await run_with_clock(task.wait(timeout=1000), clock, session)
    assert 300 <= clock.time() <= 340
    assert caught.value.task_id == task.id
    assert caught.value.may_be_charged
    emulator.faults.clear()
    assert (await run_with_clock(task.wait(), clock, session)).task_id == task.id


@pytest.mark.parametrize(("retry_after", "waited"), [(60, 60), ("1e9", 120), ("inf", 120)])
async def test_retry_after_is_obeyed_up_to_its_maximum(
    session: KontextSession, emulator: Emulator, clock: ManualClock, retry_after: float | str, waited: float
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.RATE_LIMITED, retry_after=retry_after)])
    await run_with_clock(session.submit("a fox"), clock, session)
    assert waited <= clock.time() <= waited + 0.1


async def test_a_retry_after_date_is_read_by_the_clock_of_the_session(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    late = Fault(kind=FaultKind.RATE_LIMITED, retry_after=30, retry_after_date=True)
    emulator.faults.script("create", [late])
    await run_with_clock(session.submit("a fox"), clock, session)
    assert 29 <= clock.time() <= 31


async def test_a_timeout_while_all_slots_are_in_use_sends_nothing(session: KontextSession, clock: ManualClock) -> None:
    for n in range(3):
        await run_with_clock(session.submit(f"fox {n}"), clock, session)
    submitted = session.statistics().submitted
    with pytest.raises(GatewayUnavailable, match="not submitted") as caught:
        await run_with_clock(session.generate("no room", timeout=20), clock, session)
    assert not caught.value.may_be_charged
    assert session.statistics().submitted == submitted
    assert session.statistics().queued == 0


def test_the_manual_clock_calls_back_in_order_and_on_time() -> None:
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


async def test_immediate_polls_keep_to_the_rate_limit(emulator: Emulator, clock: ManualClock) -> None:
    settings = Settings(polling=Polling(initial_delay=1000.0), limits=Limits(polls_per_second=0.5))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as session:
        task = await run_with_clock(session.submit("a fox"), clock, session)
        began = clock.time()
        statuses = await run_with_clock(asyncio.gather(*(task.status() for _ in range(6))), clock, session)
        assert [status.task_id for status in statuses] == [task.id] * 6
        assert clock.time() - began == pytest.approx(5 * 2.0, abs=0.1)
        assert session.statistics().polls == 6


async def test_an_immediate_poll_waits_while_the_gateway_throttles(emulator: Emulator, clock: ManualClock) -> None:
    emulator.faults.script("status", [Fault(kind=FaultKind.HTTP_STATUS, status=429, retry_after=40.0)])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, clock=clock) as session:
        task = await run_with_clock(session.submit("a fox"), clock, session)
        with pytest.raises(RateLimited):
            await run_with_clock(task.status(), clock, session)
        throttled = clock.time()
        await run_with_clock(task.status(), clock, session)
        assert clock.time() >= throttled + 40


async def test_closing_fails_an_immediate_poll_that_waits_its_turn(emulator: Emulator, clock: ManualClock) -> None:
    settings = Settings(polling=Polling(initial_delay=1000.0), limits=Limits(polls_per_second=0.001))
    session = KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock)
    await session.start()
    task = await run_with_clock(session.submit("a fox"), clock, session)
    await run_with_clock(task.status(), clock, session)
    waiting = asyncio.create_task(task.status())
    cancelled = asyncio.create_task(task.status())
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert cancelled.cancelled()
    await session.aclose()
    with pytest.raises(SessionClosed) as caught:
        await waiting
    assert caught.value.task_id == task.id


def fail(*_: object) -> None:
    raise ZeroDivisionError("a bug")


async def test_an_error_in_the_timer_crashes_the_session(
    session: KontextSession, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await run_with_clock(session.submit("a fox"), clock, session)
    waiting = asyncio.create_task(task.wait())
    await turn_loop(ENOUGH_TURNS)
    monkeypatch.setattr(session._engine.poll_loop._queue, "wake_at", fail)
    clock.advance(1.5)
    with pytest.raises(SessionCrashed) as caught:
        await waiting
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.task_id == task.id


async def test_an_error_in_the_timer_without_an_idle_worker_crashes_the_session_too(
    session: KontextSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session._engine.poll_loop._queue, "wake_at", fail)
    session._engine.poll_loop._workers._on_timer()
    await turn_loop(ENOUGH_TURNS)
    with pytest.raises(SessionCrashed) as caught:
        await session.generate("a fox")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_BODY, FaultKind.CUT])
async def test_an_outcome_past_the_longest_wait_has_the_last_known_status(
    emulator: Emulator, clock: ManualClock, kind: FaultKind
) -> None:
    settings = Settings(polling=Polling(interval=5.0), timeouts=Timeouts(wait=50), limits=Limits(max_in_flight=1))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as session:
        (known,) = await run_with_clock(session.generate_all(["a fox"]), clock, session)
        assert isinstance(known.error, TaskTimeout)
        assert known.error.last_status is not None
        emulator.faults.set_rate(Fault(kind=kind, on=["status"]), 1)
        (unknown,) = await run_with_clock(session.generate_all(["a fox"]), clock, session)
        assert isinstance(unknown.error, TaskTimeout)
        assert unknown.error.last_status is None


async def test_the_only_requests_are_sent_again_after_they_were_all_refused(
    emulator: Emulator, clock: ManualClock
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.HTTP_STATUS, status=429, retry_after=2.0)] * 3)
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, clock=clock) as session:
        outcomes = await run_with_clock(session.generate_all(["a fox"] * 3), clock, session)
        assert [outcome.error for outcome in outcomes] == [None] * 3
        (again,) = await run_with_clock(session.generate_all(["a fox"]), clock, session)
        assert again.ok
        assert session.statistics().queued == 0
