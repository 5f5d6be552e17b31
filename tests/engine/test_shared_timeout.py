"""SharedTimeout that share one timer: overdue waits end, others do not, and cancellation stays what it is."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from kontext_async.engine.shared_timeout import SharedTimeout

pytestmark = pytest.mark.anyio


async def stay(deadlines: SharedTimeout, event: asyncio.Event) -> str:
    try:
        with deadlines:
            await event.wait()
    except TimeoutError:
        return "overdue"
    return "done"


async def test_what_is_overdue_ends_and_the_rest_goes_on() -> None:
    deadlines = SharedTimeout(0.05)
    never, soon = asyncio.Event(), asyncio.Event()
    early = [asyncio.create_task(stay(deadlines, never)) for _ in range(3)]
    quick = asyncio.create_task(stay(deadlines, soon))
    await asyncio.sleep(0)
    soon.set()
    assert await quick == "done"
    assert await asyncio.gather(*early) == ["overdue"] * 3
    again = asyncio.create_task(stay(deadlines, never))
    assert await again == "overdue"
    assert not deadlines._waits


async def test_a_cancellation_from_elsewhere_is_no_timeout() -> None:
    deadlines = SharedTimeout(30)
    task = asyncio.create_task(stay(deadlines, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with anyio.move_on_after(0.01) as scope:
        await stay(deadlines, asyncio.Event())
    assert scope.cancelled_caught


async def test_both_at_once_is_a_cancellation() -> None:
    deadlines = SharedTimeout(30)
    task = asyncio.create_task(stay(deadlines, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    deadlines._waits[task] = (0.0, 0)
    deadlines._expire()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_inside_goes_through() -> None:
    deadlines = SharedTimeout(30)
    with pytest.raises(ZeroDivisionError), deadlines:
        raise ZeroDivisionError
    assert not deadlines._waits


async def test_one_timer_serves_many() -> None:
    deadlines = SharedTimeout(30)
    timers = set()
    for _ in range(100):
        with deadlines:
            timers.add(deadlines._timer)
    assert timers == {deadlines._timer}


def test_outside_a_task_there_is_nothing_to_interrupt() -> None:
    with pytest.raises(RuntimeError), SharedTimeout(1):
        raise AssertionError("it is not entered")
