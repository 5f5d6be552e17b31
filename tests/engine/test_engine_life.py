"""The life of an engine: new, running, closing, closed or crashed. Nothing is sent here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest
from session_support import turn_loop, until

from kontext_async import ConfigurationError, SessionClosed, SessionCrashed, SessionError, Settings
from kontext_async.base_errors import unwrap_group
from kontext_async.engine.clock import LoopClock
from kontext_async.engine.engine import TRANSITIONS, Engine, Life, Signal
from kontext_async.gateways import make_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

LIVES = {
    Life.NEW: {Signal.START: Life.RUNNING, Signal.CLOSE: Life.CLOSED},
    Life.RUNNING: {Signal.CLOSE: Life.CLOSING, Signal.CRASH: Life.CRASHED, Signal.END: Life.CLOSED},
    Life.CLOSING: {Signal.CRASH: Life.CRASHED, Signal.END: Life.CLOSED},
    Life.CLOSED: {},
    Life.CRASHED: {},
}
"""The next state for each signal; a signal that is not listed changes nothing."""


def new_engine(http: aiohttp.ClientSession | None = None) -> Engine:
    gateway = make_gateway("vtrix", "key", "http://127.0.0.1:9")
    return Engine(gateway, "key", Settings(), http, LoopClock())


@pytest.fixture
async def engine(anyio_backend: str) -> AsyncIterator[Engine]:
    """A running engine."""
    running = new_engine()
    await running.start()
    yield running
    await running.aclose()


async def fail() -> None:
    raise ZeroDivisionError("a bug")


async def crash(engine: Engine) -> None:
    engine.start_soon(fail)
    await until(lambda: not engine.is_running)


class TestTransitions:
    def test_the_table_has_no_other_transition(self) -> None:
        expected = {(life, signal): after for life, row in LIVES.items() for signal, after in row.items()}
        assert expected == TRANSITIONS

    @pytest.mark.parametrize("life", Life)
    @pytest.mark.parametrize("signal", Signal)
    async def test_a_signal_moves_the_engine_as_the_table_says(self, life: Life, signal: Signal) -> None:
        engine = new_engine()
        engine._life = life
        engine._signal(signal)
        assert engine._life is LIVES[life].get(signal, life)
        assert engine._stop.is_set() is (engine._life not in (Life.NEW, Life.RUNNING))

    async def test_only_a_running_engine_is_running(self) -> None:
        engine = new_engine()
        for life in Life:
            engine._life = life
            assert engine.is_running is (life is Life.RUNNING)


class TestStart:
    async def test_an_engine_runs_from_start_to_aclose(self) -> None:
        engine = new_engine()
        assert not engine.is_running
        with pytest.raises(SessionClosed, match="not started"):
            engine.ensure_running()
        await engine.start()
        assert engine.is_running
        engine.ensure_running()
        await engine.aclose()
        assert not engine.is_running
        with pytest.raises(SessionClosed, match="is closed"):
            engine.ensure_running()

    async def test_a_second_start_raises_and_the_engine_keeps_running(self, engine: Engine) -> None:
        with pytest.raises(SessionClosed, match="started before"):
            await engine.start()
        engine.ensure_running()

    async def test_a_start_raises_if_its_owner_task_is_cancelled_before_its_first_step(self) -> None:
        engine = new_engine()
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0)
        assert engine._owner is not None
        with pytest.raises(SessionClosed, match="still starting"):
            engine.ensure_running()
        engine._owner.cancel()
        with pytest.raises(SessionClosed, match="is closed"):
            await asyncio.wait_for(starting, 5)
        assert not engine.is_running
        await engine.aclose()

    async def test_two_starts_at_once_start_one_engine(self) -> None:
        engine = new_engine()
        results = await asyncio.gather(engine.start(), engine.start(), return_exceptions=True)
        assert [type(result) for result in results] == [type(None), SessionClosed]
        engine.ensure_running()
        await engine.aclose()

    async def test_a_closed_engine_cannot_be_started(self, engine: Engine) -> None:
        await engine.aclose()
        with pytest.raises(SessionClosed, match="started before"):
            await engine.start()
        assert not engine.is_running

    async def test_a_crashed_engine_cannot_be_started(self, engine: Engine) -> None:
        await crash(engine)
        with pytest.raises(SessionClosed, match="started before"):
            await engine.start()
        assert engine._life is Life.CRASHED

    async def test_a_start_that_fails_leaves_the_engine_new(self) -> None:
        http = aiohttp.ClientSession()
        await http.close()
        engine = new_engine(http)
        with pytest.raises(ConfigurationError):
            await engine.start()
        assert engine._life is Life.NEW
        assert engine._owner is None
        await engine.aclose()

    @pytest.mark.parametrize("turns", range(4))
    async def test_a_cancelled_start_closes_the_engine(self, turns: int) -> None:
        engine = new_engine()
        starting = asyncio.create_task(engine.start())
        await turn_loop(turns)
        starting.cancel()
        await asyncio.wait([starting])
        if turns == 0:
            assert engine._life is Life.NEW, "the start had not begun"
        elif starting.cancelled():
            await until(lambda: engine._life is Life.CLOSED)
            assert engine._owner is not None
            await until(engine._owner.done)
            with pytest.raises(SessionClosed):
                engine.ensure_running()
        else:
            engine.ensure_running()
        await engine.aclose()
        assert engine._life is Life.CLOSED


class TestClose:
    async def test_an_engine_that_was_not_started_can_be_closed(self) -> None:
        engine = new_engine()
        await engine.aclose()
        assert engine._life is Life.CLOSED
        with pytest.raises(SessionClosed, match="is closed"):
            engine.ensure_running()
        with pytest.raises(SessionClosed, match="started before"):
            await engine.start()

    async def test_an_engine_may_be_closed_twice(self, engine: Engine) -> None:
        await engine.aclose()
        await engine.aclose()
        assert engine._life is Life.CLOSED

    async def test_two_closes_at_once_both_wait_for_the_end(self, engine: Engine) -> None:
        assert engine._owner is not None
        closing = [asyncio.create_task(engine.aclose()) for _ in range(2)]
        await asyncio.wait(closing)
        assert all(task.exception() is None for task in closing)
        assert engine._owner.done()

    async def test_a_closing_engine_is_not_running(self, engine: Engine) -> None:
        closing = asyncio.create_task(engine.aclose())
        await asyncio.sleep(0)
        assert engine._life is Life.CLOSING
        assert not engine.is_running
        with pytest.raises(SessionClosed, match="is closed"):
            engine.ensure_running()
        await closing

    async def test_closing_cancels_the_children_of_the_owner_task(self, engine: Engine) -> None:
        ended = asyncio.Event()

        async def wait_for_ever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        engine.start_soon(wait_for_ever)
        await turn_loop(2)
        await engine.aclose()
        assert ended.is_set()
        with pytest.raises(SessionClosed, match="is closed"):
            engine.start_soon(wait_for_ever)

    async def test_the_end_calls_back_with_an_error(self, engine: Engine) -> None:
        errors: list[SessionError] = []
        engine.on_end.add(errors.append)
        await engine.aclose()
        assert [type(error) for error in errors] == [SessionClosed]

    async def test_cancelling_the_owner_task_closes_the_engine(self, engine: Engine) -> None:
        """The event loop does that when it shuts down."""
        assert engine._owner is not None
        engine._owner.cancel()
        await until(engine._owner.done)
        assert engine._life is Life.CLOSED
        with pytest.raises(SessionClosed, match="is closed"):
            engine.ensure_running()


class TestCrash:
    async def test_a_failed_child_crashes_the_engine(self, engine: Engine) -> None:
        errors: list[SessionError] = []
        engine.on_end.add(errors.append)
        await crash(engine)
        await engine.aclose()
        assert engine._life is Life.CRASHED
        for use in (engine.ensure_running, lambda: engine.start_soon(fail)):
            with pytest.raises(SessionCrashed, match="ZeroDivisionError") as caught:
                use()
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert [type(error) for error in errors] == [SessionCrashed]
        assert isinstance(errors[0].__cause__, ZeroDivisionError)

    async def test_an_error_that_a_callback_reports_crashes_the_engine(self, engine: Engine) -> None:
        asyncio.get_running_loop().call_soon(engine._context.crash, ZeroDivisionError("a bug"))
        await until(lambda: not engine.is_running)
        with pytest.raises(SessionCrashed, match="a bug"):
            engine.ensure_running()

    async def test_a_crash_fails_the_requests_that_wait_for_a_slot(self, engine: Engine) -> None:
        slots = engine.slots.of("flux_kontext_pro")
        slots.set_ceiling(0)
        waiting = asyncio.create_task(slots.acquire())
        await turn_loop(2)
        await crash(engine)
        with pytest.raises(SessionCrashed) as caught:
            await waiting
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    async def test_a_child_that_fails_while_it_is_cancelled_crashes_a_closing_engine(self, engine: Engine) -> None:
        async def fail_at_the_end() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError("a bug")

        engine.start_soon(fail_at_the_end)
        await turn_loop(2)
        await engine.aclose()
        assert engine._life is Life.CRASHED
        with pytest.raises(SessionCrashed):
            engine.ensure_running()

    def test_the_cause_is_the_first_error_inside_the_groups(self) -> None:
        bug = ZeroDivisionError("a bug")
        nested = ExceptionGroup("outer", [ExceptionGroup("inner", [bug, LookupError()]), ValueError()])
        assert unwrap_group(nested) is bug
        assert unwrap_group(bug) is bug


class TestOtherLoops:
    async def test_an_engine_cannot_be_used_on_another_loop(self, engine: Engine) -> None:
        async def use() -> None:
            engine.ensure_running()

        for work in (use, engine.aclose):
            with pytest.raises(SessionClosed, match="another event loop"):
                await asyncio.to_thread(asyncio.run, work())
        engine.ensure_running()

    async def test_an_engine_cannot_be_used_without_a_loop(self, engine: Engine) -> None:
        with pytest.raises(SessionClosed, match="another event loop"):
            await asyncio.to_thread(engine.ensure_running)
