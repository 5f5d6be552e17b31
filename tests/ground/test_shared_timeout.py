"""`SharedTimeout`: expired waits end, others continue, and a cancellation stays a cancellation."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from kontext_async.shared_timeout import SharedTimeout

pytestmark = pytest.mark.anyio


async def wait_for(timeout: SharedTimeout, event: asyncio.Event) -> str:
    try:
        with timeout:
            await event.wait()
    except TimeoutError:
        return "expired"
    return "done"


async def test_expired_waits_end_and_others_continue() -> None:
    timeout = SharedTimeout(0.05)
    never, soon = asyncio.Event(), asyncio.Event()
    slow = [asyncio.create_task(wait_for(timeout, never)) for _ in range(3)]
    quick = asyncio.create_task(wait_for(timeout, soon))
    await asyncio.sleep(0)
    soon.set()
    assert await quick == "done"
    assert await asyncio.gather(*slow) == ["expired"] * 3
    again = asyncio.create_task(wait_for(timeout, never))
    assert await again == "expired"
    assert not timeout._waits


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    timeout = SharedTimeout(30)
    task = asyncio.create_task(wait_for(timeout, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with anyio.move_on_after(0.01) as scope:
        await wait_for(timeout, asyncio.Event())
    assert scope.cancelled_caught


async def test_a_cancellation_at_the_moment_of_the_timeout_is_a_cancellation() -> None:
    timeout = SharedTimeout(30)
    task = asyncio.create_task(wait_for(timeout, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    timeout._waits[task] = (0.0, 0)
    timeout._expire()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_inside_passes_through() -> None:
    timeout = SharedTimeout(30)
    with pytest.raises(ZeroDivisionError), timeout:
        raise ZeroDivisionError
    assert not timeout._waits


async def test_many_waits_share_one_timer() -> None:
    timeout = SharedTimeout(30)
    timers = set()
    for _ in range(100):
        with timeout:
            timers.add(timeout._timer)
    assert timers == {timeout._timer}


def test_entering_without_a_current_task_raises() -> None:
    with pytest.raises(RuntimeError), SharedTimeout(1):
        raise AssertionError("it is not entered")
