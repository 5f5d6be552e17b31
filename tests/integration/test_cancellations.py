"""Cancelled at every await: nothing hangs, no slot leaks, and no id of what was paid for is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from kontext_async import KontextSession, Limits, SessionClosed, SubmissionUncertain, TaskTimeout, Timeouts
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.events import Abandoned, Accepted, Completed, Event, Failed
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

pytestmark = pytest.mark.anyio

A_JPEG = b"\xff\xd8\xff" + bytes(200_000)
STEPS = 400
"""Turns of the loop after which every operation here is over."""


async def operation(name: str, session: KontextSession, folder: Path) -> None:
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
    """Cancel after so many turns of the loop; says whether there was something left to cancel."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    cancelled = task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.done()
    return cancelled and task.cancelled()


async def cancel_by_scope(work: Coroutine[Any, Any, None], turns: int) -> bool:
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
async def test_at_every_turn_of_the_loop(
    name: str,
    cancel: Callable[[Coroutine[Any, Any, None], int], Awaitable[bool]],
    session: KontextSession,
    emulator: Emulator,
    events: list[Event],
    until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    turns, cancelled, finished_in_a_row = 0, 0, 0
    while finished_in_a_row < 3 and turns < STEPS:
        was_cancelled = await cancel(operation(name, session, tmp_path), turns)
        cancelled += was_cancelled
        finished_in_a_row = 0 if was_cancelled else finished_in_a_row + 1
        turns += 1 if turns < 40 else 7
    assert cancelled > 10
    await until(lambda: session.statistics().in_flight == 0)
    assert session.statistics().queued == session.statistics().pending == 0
    told = {event.task_id for event in events if isinstance(event, Accepted)}
    assert told == set(emulator.ledger.task_ids)
    assert session.statistics().uncertain == 0
    assert not list(tmp_path.glob(".*")), "a temporary file was left behind"
    assert (await session.generate("still works")).images


A_WHILE = pytest.mark.parametrize("emulator_options", [{"service_time": 0.5, "pixels": 4096}])


@A_WHILE
async def test_a_create_that_is_on_the_wire_is_waited_for(
    session: KontextSession, emulator: Emulator, events: list[Event], until: Callable[..., Any]
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    accepted, abandoned = (
        [event.task_id for event in events if isinstance(event, kind)] for kind in (Accepted, Abandoned)
    )
    assert accepted == abandoned == list(emulator.ledger.task_ids)
    assert abandoned[0] is not None
    assert (await session.attach(abandoned[0]).wait(5)).images


async def test_but_not_for_ever(emulator: Emulator, until: Callable[..., Any]) -> None:
    settings = attrs.evolve(FAST, timeouts=Timeouts(cancel=0.05, submit=0.4))
    emulator.faults.script("create", [FaultKind.STALL_AFTER_ACCEPT])
    events: list[Event] = []
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        session.subscribe(events.append)
        task = asyncio.create_task(session.generate("a fox"))
        await until(lambda: emulator.ledger.accepted)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [event.reason for event in events if isinstance(event, Abandoned)] == [
            "cancelled before it was answered"
        ]
        await until(lambda: session.statistics().uncertain)  # the request itself goes on to its deadline
        assert session.statistics().in_flight == 0


@A_WHILE
async def test_an_impatient_second_cancellation_goes_through_at_once(
    session: KontextSession, emulator: Emulator, events: list[Event], until: Callable[..., Any]
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
    assert not [event for event in events if isinstance(event, Accepted)]
    await until(lambda: [event for event in events if isinstance(event, Abandoned)])
    await until(lambda: [event for event in events if isinstance(event, Completed)])


async def test_a_refused_create_whose_caller_has_gone_is_not_sent_again(
    session: KontextSession, emulator: Emulator, events: list[Event], until: Callable[..., Any]
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.HTTP_STATUS_AFTER_ACCEPT, status=500)])
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    failed = [event.error for event in events if isinstance(event, Failed)]
    assert [type(error) for error in failed] == [SubmissionUncertain]
    assert session.statistics().in_flight == 0


@A_WHILE
async def test_a_timeout_while_the_create_is_out_keeps_the_id(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
    with pytest.raises(TaskTimeout) as caught:
        await session.generate("a fox", timeout=0.05)
    assert [caught.value.task_id] == list(emulator.ledger.task_ids)


async def test_a_timeout_while_nobody_knows(emulator: Emulator) -> None:
    settings = attrs.evolve(FAST, timeouts=Timeouts(cancel=0.05, submit=0.4))
    emulator.faults.script("create", [FaultKind.STALL_AFTER_ACCEPT])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        with pytest.raises(SubmissionUncertain) as caught:
            await session.generate("a fox", timeout=0.05)
        assert len(caught.value.fingerprint) == 64


async def test_a_caller_who_goes_before_the_first_byte_is_not_billed(
    emulator: Emulator, until: Callable[..., Any]
) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_connections=2, max_polls_in_flight=1, max_in_flight=10))
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW, seconds=0.2)])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
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


async def test_one_waiters_cancellation_touches_nobody_else(
    session: KontextSession, emulator: Emulator, until: Callable[..., Any]
) -> None:
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


async def test_leaving_the_iterator_cancels_what_was_not_submitted(
    emulator: Emulator, until: Callable[..., Any]
) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=4, polls_per_second=2000))
    emulator.faults.script("create", [None, *[FaultKind.TASK_HANGS] * 50])
    events: list[Event] = []
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        session.subscribe(events.append)
        outcomes = session.generate_many(f"fox {n}" for n in range(1000))
        first = await anext(outcomes)
        assert first.ok
        await until(lambda: session.statistics().pending == 4)
        await outcomes.aclose()
        await until(lambda: session.statistics().abandoned == 4)
        assert session.statistics().queued == 0
        assert emulator.ledger.accepted == 5
        abandoned = {event.task_id for event in events if isinstance(event, Abandoned)}
        assert abandoned == set(emulator.ledger.task_ids) - {first.task_id}
        with pytest.raises(TaskTimeout):
            await session.attach(abandoned.pop() or "").wait(0.05)


async def test_a_consumer_that_is_cancelled_in_the_iterator(
    session: KontextSession, emulator: Emulator, events: list[Event], until: Callable[..., Any]
) -> None:
    emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
    task = asyncio.create_task(session.generate_all(f"fox {n}" for n in range(10)))
    await until(lambda: session.statistics().pending == 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: sum(isinstance(event, Abandoned) for event in events) == 10)
    assert {event.task_id for event in events if isinstance(event, Abandoned)} == set(emulator.ledger.task_ids)


async def test_an_async_iterable_that_hangs_is_cancelled_with_its_consumer(session: KontextSession) -> None:
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


async def test_closing_waits_for_a_create_on_the_wire(emulator: Emulator, until: Callable[..., Any]) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
    events: list[Event] = []
    session = await KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST).start()
    session.subscribe(events.append)
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    await session.aclose()
    with pytest.raises(SessionClosed) as caught:
        await task
    assert [caught.value.task_id] == list(emulator.ledger.task_ids)
    assert caught.value.may_be_charged
    assert [event.task_id for event in events if isinstance(event, Accepted)] == [caught.value.task_id]


async def test_closing_does_not_wait_for_ever(emulator: Emulator, until: Callable[..., Any]) -> None:
    settings = attrs.evolve(FAST, timeouts=Timeouts(cancel=0.05))
    emulator.faults.script("create", [FaultKind.STALL_AFTER_ACCEPT])
    session = await KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings).start()
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    await session.aclose()
    with pytest.raises(SubmissionUncertain):
        await task


async def test_a_cancelled_close_closes_all_the_same(emulator: Emulator, until: Callable[..., Any]) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
    session = await KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST).start()
    generating = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    closing = asyncio.create_task(session.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(SessionClosed):
        await generating
    await session.aclose()
    assert "not running" in repr(session)


async def test_closing_wakes_who_waits_to_send_again(until: Callable[..., Any]) -> None:
    patient = attrs.evolve(FAST, retries=attrs.evolve(FAST.retries, backoff_initial=60.0, backoff_max=60.0))
    session = await KontextSession("key", base_url="http://127.0.0.1:9", settings=patient).start()
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: session._engine.scheduler._pauses)
    await session.aclose()
    with pytest.raises(SessionClosed):
        await task


async def test_the_owner_is_cancelled_as_asyncio_does_at_its_end(emulator: Emulator, until: Callable[..., Any]) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    session = await KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST).start()
    task = asyncio.create_task(session.generate("a fox"))
    await until(lambda: session.statistics().pending)
    assert session._engine._owner is not None
    session._engine._owner.cancel()
    with pytest.raises(SessionClosed):
        await task
    await session.aclose()


async def test_many_cancelled_while_they_wait_for_a_slot(emulator: Emulator, until: Callable[..., Any]) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=1))
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        first = asyncio.create_task(session.generate("hangs"))
        await until(lambda: session.statistics().pending)
        waiting = [
            asyncio.create_task(session.generate("a fox", input_images=[A_JPEG] if n % 2 else [])) for n in range(20)
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
