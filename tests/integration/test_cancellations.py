"""Callers that are cancelled at every await: nothing hangs, no slot leaks, and the ID of no billed task is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest
from session_support import events_of, new_session, until

from kontext_async import KontextSession, Limits, SubmissionUncertain, TaskTimeout, Timeouts
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.events import Abandoned, Accepted, Completed, Event, Failed
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff" + bytes(200_000)
MAX_TURNS = 400
"""Turns of the loop after which every operation here is over."""


async def operate(name: str, session: KontextSession, folder: Path) -> None:
    """Perform an operation of `OPERATIONS`."""
    if name == "generate":
        await session.generate("a fox")
    elif name == "generate with a timeout":
        await session.generate("a fox", timeout=30)
    elif name == "submit and wait":
        await (await session.submit("a fox")).wait(30)
    elif name == "updates":
        async for _ in (await session.submit("a fox")).updates():
            pass
    elif name == "status":
        await (await session.submit("a fox")).status()
    elif name == "save":
        await session.save(await session.generate("a fox"), folder / "fox.jpg")
    elif name == "read":
        await session.read((await session.generate("a fox")).images[0])
    elif name == "generate_all":
        await session.generate_all(f"fox {n}" for n in range(5))
    else:
        raise AssertionError(name)


OPERATIONS = (
    "generate",
    "generate with a timeout",
    "submit and wait",
    "updates",
    "status",
    "save",
    "read",
    "generate_all",
)


async def cancel_natively(work: Coroutine[Any, Any, None], turns: int) -> bool:
    """Cancel the asyncio task after a number of turns; return False if it was done by then."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    cancelled = task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.done()
    return cancelled and task.cancelled()


async def cancel_by_scope(work: Coroutine[Any, Any, None], turns: int) -> bool:
    """Cancel an anyio scope after a number of turns; return False if its body was done by then."""
    scope = anyio.CancelScope()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:

            async def inside() -> None:
                with scope:
                    await work

            group.start_soon(inside)
            for _ in range(turns):
                await asyncio.sleep(0)
            scope.cancel()
    return scope.cancelled_caught


@pytest.mark.parametrize("cancel", [cancel_natively, cancel_by_scope])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_can_be_cancelled_at_every_turn_of_the_loop(
    name: str,
    cancel: Callable[[Coroutine[Any, Any, None], int], Awaitable[bool]],
    session: KontextSession,
    emulator: Emulator,
    events: list[Event],
    tmp_path: Path,
) -> None:
    turns, cancelled, completed_in_a_row = 0, 0, 0
    while completed_in_a_row < 3 and turns < MAX_TURNS:
        was_cancelled = await cancel(operate(name, session, tmp_path), turns)
        cancelled += was_cancelled
        completed_in_a_row = 0 if was_cancelled else completed_in_a_row + 1
        turns += 1 if turns < 40 else 7
    assert cancelled > 10
    await until(lambda: session.statistics().in_flight == 0)
    assert session.statistics().queued == session.statistics().pending == 0
    assert {event.task_id for event in events_of(Accepted, events)} == set(emulator.ledger.task_ids)
    assert session.statistics().uncertain == 0
    assert not list(tmp_path.glob(".*")), "a temporary file was left behind"
    assert (await session.generate("still works")).images


SLOW_TASKS = pytest.mark.parametrize("emulator_options", [{"service_time": 0.5, "pixels": 4096}])


@SLOW_TASKS
async def test_a_cancelled_caller_waits_for_the_response_to_its_create_request(
    session: KontextSession, emulator: Emulator, events: list[Event]
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    accepted = [event.task_id for event in events_of(Accepted, events)]
    abandoned = [event.task_id for event in events_of(Abandoned, events)]
    assert accepted == abandoned == list(emulator.ledger.task_ids)
    assert abandoned[0] is not None
    assert (await session.attach(abandoned[0]).wait(5)).images


async def test_a_cancelled_caller_waits_for_the_response_for_a_bounded_time(emulator: Emulator) -> None:
    settings = attrs.evolve(FAST, timeouts=Timeouts(cancel=0.05, submit=0.4))
    emulator.faults.script("create", [FaultKind.STALL_AFTER_ACCEPT])
    events: list[Event] = []
    async with new_session(emulator, settings) as session:
        session.subscribe(events.append)
        task = asyncio.create_task(session.generate("a fox"))
        await until(lambda: emulator.ledger.accepted)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (abandoned,) = events_of(Abandoned, events)
        assert abandoned.reason == "the caller was cancelled before the gateway responded"
        assert abandoned.task_id is None
        await until(lambda: session.statistics().uncertain)  # the request itself keeps running to its deadline
        assert session.statistics().in_flight == 0


@SLOW_TASKS
async def test_a_second_cancellation_ends_the_wait_for_the_response_at_once(
    session: KontextSession, emulator: Emulator, events: list[Event]
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.3)])
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.wait([task], timeout=0.1)
    assert task.cancelled()
    assert not events_of(Accepted, events)
    await until(lambda: events_of(Abandoned, events))
    await until(lambda: events_of(Completed, events))


async def test_a_failed_create_request_is_not_retried_after_its_caller_left(
    session: KontextSession, emulator: Emulator, events: list[Event]
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.HTTP_STATUS_AFTER_ACCEPT, status=500)])
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(event.error) for event in events_of(Failed, events)] == [SubmissionUncertain]
    assert session.statistics().in_flight == 0


async def test_a_caller_that_is_cancelled_before_the_first_byte_is_not_billed(emulator: Emulator) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_connections=2, max_polls_in_flight=1, max_in_flight=10))
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW, seconds=0.2)])
    async with new_session(emulator, settings) as session:
        first = asyncio.create_task(session.submit("has the only connection"))
        await until(lambda: emulator.requests)
        second = asyncio.create_task(session.submit("waits for it"))
        await until(lambda: len(session._engine.scheduler._in_flight) == 2)
        second.cancel()
        await asyncio.wait([second], timeout=0.1)
        assert second.cancelled()
        await first
        await until(lambda: not session._engine.scheduler._in_flight)
        assert session.statistics().uncertain == 0
    assert emulator.ledger.accepted == 1


async def test_a_cancelled_waiter_affects_no_other(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    task = await session.submit("a fox")
    waits = [asyncio.create_task(task.wait()) for _ in range(3)]
    watch = asyncio.ensure_future(anext(aiter(session.attach(task.id).updates())))
    await until(lambda: session.statistics().polls > 1)
    waits[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits[1]
    assert not waits[0].done()
    assert not waits[2].done()
    assert (await watch).task_id == task.id
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)


async def test_leaving_the_iterator_cancels_the_requests_that_were_not_submitted(emulator: Emulator) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=4, polls_per_second=2000))
    emulator.faults.script("create", [None, *[FaultKind.TASK_HANGS] * 50])
    events: list[Event] = []
    async with new_session(emulator, settings) as session:
        session.subscribe(events.append)
        outcomes = session.generate_many(f"fox {n}" for n in range(1000))
        first = await anext(outcomes)
        assert first.ok
        await until(lambda: session.statistics().pending == 4)
        await outcomes.aclose()
        await until(lambda: session.statistics().abandoned == 4)
        assert session.statistics().queued == 0
        assert emulator.ledger.accepted == 5
        abandoned = {event.task_id for event in events_of(Abandoned, events)}
        assert abandoned == set(emulator.ledger.task_ids) - {first.task_id}
        with pytest.raises(TaskTimeout):
            await session.attach(abandoned.pop() or "").wait(0.05)


async def test_a_cancelled_consumer_abandons_its_accepted_tasks(
    session: KontextSession, emulator: Emulator, events: list[Event]
) -> None:
    emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
    task = asyncio.create_task(session.generate_all(f"fox {n}" for n in range(10)))
    await until(lambda: session.statistics().pending == 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: len(events_of(Abandoned, events)) == 10)
    assert {event.task_id for event in events_of(Abandoned, events)} == set(emulator.ledger.task_ids)


async def test_an_async_iterable_that_hangs_is_cancelled_when_its_consumer_leaves(session: KontextSession) -> None:
    ended = asyncio.Event()

    async def hangs() -> AsyncIterator[str]:
        yield "a fox"
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    outcomes = session.generate_many(hangs())
    assert (await anext(outcomes)).ok
    await outcomes.aclose()
    await asyncio.wait_for(ended.wait(), 5)


async def test_callers_that_are_cancelled_while_they_wait_for_a_slot_send_nothing(emulator: Emulator) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=1))
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    async with new_session(emulator, settings) as session:
        first = asyncio.create_task(session.generate("hangs"))
        await until(lambda: session.statistics().pending)
        waiting = [
            asyncio.create_task(session.generate("a fox", input_images=[JPEG] if n % 2 else [])) for n in range(20)
        ]
        await until(lambda: session.statistics().queued == 10 + 8)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)
        assert session.statistics().queued == 0
        assert session.statistics().in_flight == 1
        first.cancel()
        await asyncio.wait([first])
    assert emulator.ledger.accepted == 1
