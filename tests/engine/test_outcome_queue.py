"""The queue between the requests of a batch and its iterator: a bounded window, and outcomes that are not lost."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from session_support import turn_loop

from kontext_async.engine.outcome_queue import OutcomeQueue

pytestmark = pytest.mark.anyio


@pytest.fixture
def queue() -> OutcomeQueue[str]:
    return OutcomeQueue(2)


async def finishes_soon(task: asyncio.Task[None]) -> bool:
    """Let the loop turn, and return True if the task is done then."""
    await turn_loop(5)
    return task.done()


class TestReserve:
    async def test_reserve_waits_while_the_window_is_full(self, queue: OutcomeQueue[str]) -> None:
        await queue.reserve()
        await queue.reserve()
        third = asyncio.create_task(queue.reserve())
        assert not await finishes_soon(third)
        queue.put("a")
        assert not await finishes_soon(third), "an outcome that nobody has taken still counts"
        assert await queue.get() == "a"
        assert await finishes_soon(third)

    async def test_each_outcome_that_is_taken_makes_room_for_one_request(self, queue: OutcomeQueue[str]) -> None:
        reserved = 0

        async def produce() -> None:
            nonlocal reserved
            while True:
                await queue.reserve()
                reserved += 1
                queue.put(str(reserved))

        producer = asyncio.create_task(produce())
        await turn_loop(5)
        assert reserved == 2
        for taken in range(1, 20):
            assert await queue.get() == str(taken)
            await turn_loop(5)
            assert reserved == 2 + taken
        producer.cancel()
        await asyncio.wait([producer])


class TestGet:
    async def test_get_returns_outcomes_in_order_of_completion(self, queue: OutcomeQueue[str]) -> None:
        for outcome in ("second", "first"):
            queue.put(outcome)
        assert [await queue.get(), await queue.get()] == ["second", "first"]

    async def test_get_waits_for_an_outcome(self, queue: OutcomeQueue[str]) -> None:
        getting = asyncio.create_task(queue.get())
        await turn_loop(5)
        assert not getting.done()
        queue.put("a")
        assert await getting == "a"

    async def test_a_cancelled_get_loses_nothing(self, queue: OutcomeQueue[str]) -> None:
        getting = asyncio.create_task(queue.get())
        await turn_loop(5)
        queue.put("a")
        getting.cancel()  # in the same turn of the loop in which the outcome came
        with pytest.raises(asyncio.CancelledError):
            await getting
        assert await queue.get() == "a"
        with anyio.move_on_after(0) as scope:
            await queue.get()
        assert scope.cancelled_caught
        queue.put("b")
        assert await queue.get() == "b"

    async def test_a_cancelled_get_makes_no_room(self, queue: OutcomeQueue[str]) -> None:
        await queue.reserve()
        await queue.reserve()
        getting = asyncio.create_task(queue.get())
        await turn_loop(5)
        queue.put("a")
        getting.cancel()
        await asyncio.wait([getting])
        third = asyncio.create_task(queue.reserve())
        assert not await finishes_soon(third)
        third.cancel()
        await asyncio.wait([third])


class TestEnd:
    async def test_get_returns_none_after_the_last_outcome(self, queue: OutcomeQueue[str]) -> None:
        queue.put("a")
        queue.end()
        assert await queue.get() == "a"
        assert await queue.get() is None
        assert await queue.get() is None

    async def test_get_raises_the_error_after_the_last_outcome(self, queue: OutcomeQueue[str]) -> None:
        queue.put("a")
        queue.end(LookupError("the input is gone"))
        assert await queue.get() == "a"
        for _ in range(2):
            with pytest.raises(LookupError, match="the input is gone"):
                await queue.get()

    @pytest.mark.parametrize("error", [None, LookupError("gone")], ids=repr)
    async def test_the_end_wakes_a_get_that_waits(self, queue: OutcomeQueue[str], error: Exception | None) -> None:
        getting = asyncio.create_task(queue.get())
        await turn_loop(5)
        queue.end(error)
        if error is None:
            assert await getting is None
        else:
            with pytest.raises(LookupError):
                await getting

    async def test_an_error_after_the_end_changes_nothing(self, queue: OutcomeQueue[str]) -> None:
        queue.end()
        queue.end(LookupError("too late"))
        assert await queue.get() is None

    async def test_the_first_error_wins(self, queue: OutcomeQueue[str]) -> None:
        queue.end(LookupError("first"))
        queue.end(ZeroDivisionError("second"))
        queue.end()
        with pytest.raises(LookupError, match="first"):
            await queue.get()

    async def test_an_outcome_after_the_end_is_still_returned_first(self, queue: OutcomeQueue[str]) -> None:
        """A crash ends the queue while tasks in flight still report."""
        queue.end(LookupError("crashed"))
        queue.put("reported late")
        assert await queue.get() == "reported late"
        with pytest.raises(LookupError):
            await queue.get()
