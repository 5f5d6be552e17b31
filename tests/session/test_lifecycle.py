"""The life of a session: start, close, crash, event loops, and what it leaves behind."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from session_support import new_session, turn_loop, until

from kontext_async import ConfigurationError, KontextSession, Limits, SessionClosed, SessionCrashed, Settings
from kontext_async.emulator import Emulator, FaultKind
from kontext_async.testing import FAST

pytestmark = pytest.mark.anyio


def fail(*_: object) -> None:
    raise ZeroDivisionError("a bug")


class TestStartAndClose:
    async def test_a_session_can_be_used_only_between_start_and_aclose(self, emulator: Emulator) -> None:
        session = new_session(emulator)
        with pytest.raises(SessionClosed, match="not started"):
            await session.generate("a fox")
        with pytest.raises(SessionClosed, match="not started"):
            session.attach("id")
        assert "not running" in repr(session)
        await session.start()
        assert "not running" not in repr(session)
        with pytest.raises(SessionClosed, match="started before"):
            await session.start()
        await session.aclose()
        await session.aclose()
        for use in (session.generate("a fox"), session.submit("a fox"), session.generate_all(["a fox"])):
            with pytest.raises(SessionClosed, match="is closed"):
                await use
        with pytest.raises(SessionClosed, match="started before"):
            await session.start()

    async def test_a_session_that_was_never_started_can_be_closed(self) -> None:
        await KontextSession("key").aclose()

    async def test_a_session_is_closed_unless_it_is_running(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = new_session(emulator)
        assert session.is_closed
        await session.start()
        assert not session.is_closed
        await session.aclose()
        assert session.is_closed
        crashing = await new_session(emulator).start()
        monkeypatch.setattr(crashing._engine.poll_loop._queue, "pop_due", fail)
        with pytest.raises(SessionCrashed):
            await crashing.generate("a fox")
        assert crashing.is_closed
        await crashing.aclose()
        assert crashing.is_closed

    async def test_a_session_may_be_started_and_closed_in_different_tasks(self, emulator: Emulator) -> None:
        session = new_session(emulator)
        await asyncio.create_task(session.start())
        assert (await asyncio.create_task(session.generate("a fox"))).images
        await asyncio.create_task(session.aclose())
        other = new_session(emulator)
        async with anyio.create_task_group() as group:
            group.start_soon(other.start)
        assert (await other.generate("a fox")).images
        await other.aclose()

    async def test_a_session_belongs_to_one_event_loop(self, session: KontextSession) -> None:
        def use_elsewhere() -> None:
            async def use() -> None:
                await session.generate("a fox")

            with pytest.raises(SessionClosed, match="another event loop"):
                anyio.run(use)
            with pytest.raises(SessionClosed, match="another event loop"):
                anyio.run(session.aclose)

        await anyio.to_thread.run_sync(use_elsewhere)
        assert (await session.generate("still works")).images

    async def test_closing_fails_every_waiter_and_keeps_the_task_ids(self, emulator: Emulator) -> None:
        emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
        settings = Settings(limits=Limits(max_in_flight=2), polling=FAST.polling)
        session = await new_session(emulator, settings).start()
        waits = [asyncio.create_task(session.generate(f"fox {n}")) for n in range(3)]
        many = asyncio.create_task(session.generate_all(["x", "y"]))
        await until(lambda: session.statistics().pending == 2)
        await session.aclose()
        errors = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(error, SessionClosed) for error in errors)
        ids = {error.task_id for error in errors if isinstance(error, SessionClosed)}
        assert ids == {*emulator.ledger.task_ids, None}
        assert all(isinstance(outcome.error, SessionClosed) for outcome in await many)


class TestCrash:
    @pytest.mark.parametrize("broken_method", ["pop_due", "wake_at"])
    async def test_a_crash_fails_every_waiter_with_its_cause(
        self, session: KontextSession, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, broken_method: str
    ) -> None:
        emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
        waits = [asyncio.create_task(session.generate(f"fox {n}")) for n in range(3)]
        many = asyncio.create_task(session.generate_all(["x", "y"]))
        await until(lambda: session.statistics().pending == 5)
        monkeypatch.setattr(session._engine.poll_loop._queue, broken_method, fail)
        errors = await asyncio.gather(*waits, return_exceptions=True)
        for error in errors:
            assert isinstance(error, SessionCrashed)
            assert isinstance(error.__cause__, ZeroDivisionError)
            assert error.task_id
            assert error.may_be_charged
        assert all(isinstance(outcome.error, SessionCrashed) and outcome.task_id for outcome in await many)
        with pytest.raises(SessionCrashed, match="background work failed") as caught:
            await session.generate("after the crash")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    async def test_a_crash_between_two_waits_names_the_task(
        self, session: KontextSession, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        task = await session.submit("hangs")
        monkeypatch.setattr(session._engine.poll_loop._queue, "pop_due", fail)
        await until(lambda: session.is_closed)
        with pytest.raises(SessionCrashed) as caught:
            await task.wait()
        assert caught.value.task_id == task.id
        assert caught.value.may_be_charged
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


class TestLeftovers:
    async def test_an_idle_session_has_no_timer(self, session: KontextSession) -> None:
        await session.generate("a fox")
        await until(lambda: session._engine.poll_loop._workers._timer is None)
        assert session.statistics().pending == 0

    async def test_the_first_task_starts_the_poll_workers(self, session: KontextSession) -> None:
        def count_workers() -> int:
            return sum("PollWorkers._work" in repr(task) for task in asyncio.all_tasks())

        assert count_workers() == 0
        await asyncio.gather(session.generate("a fox"), session.generate("another"))
        assert 1 <= count_workers() <= 2, "there are as many as there were polls in flight at once"

    async def test_a_running_session_that_is_dropped_warns(self, emulator: Emulator) -> None:
        session = await new_session(emulator).start()
        engine = session._engine
        with pytest.warns(ResourceWarning, match="never closed"):
            del session
        await engine.aclose()

    async def test_a_closed_session_leaves_no_asyncio_task(self, emulator: Emulator) -> None:
        before = asyncio.all_tasks()
        async with new_session(emulator) as session:
            await session.generate_all(f"fox {n}" for n in range(20))
            outcomes = session.generate_many(f"fox {n}" for n in range(20))
            await anext(outcomes)
            await outcomes.aclose()
        ours = {task for task in asyncio.all_tasks() - before if "RequestHandler" not in repr(task)}
        assert not ours

    async def test_a_cancelled_start_leaves_no_asyncio_task(self, emulator: Emulator) -> None:
        before = asyncio.all_tasks()
        session = new_session(emulator)
        starting = asyncio.create_task(session.start())
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        await turn_loop(20)
        assert not [task for task in asyncio.all_tasks() - before if "session" in task.get_name()]
        assert session.is_closed


def test_a_session_without_a_running_asyncio_loop_says_what_it_needs() -> None:
    """That is how it is under trio."""
    starting = KontextSession("key").start()
    with pytest.raises(ConfigurationError, match="asyncio"):
        starting.send(None)
