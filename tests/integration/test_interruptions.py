"""The table of `decisions.submission` over HTTP: a deadline, or the end of the session, in each phase of a submission.

Cancellations are in `test_cancellations`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import attrs
import pytest
from session_support import count_creates, encode_png, events_of, new_session, until

from kontext_async import (
    GatewayUnavailable,
    KontextSession,
    Limits,
    SessionClosed,
    SubmissionUncertain,
    TaskState,
    TaskTimeout,
    Timeouts,
)
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.events import Abandoned, Accepted, Event
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from kontext_async import Settings

pytestmark = pytest.mark.anyio

SLOW_TASKS = pytest.mark.parametrize("emulator_options", [{"service_time": 0.5, "pixels": 4096}])

ONE_SLOT = attrs.evolve(FAST, limits=Limits(max_in_flight=1, polls_per_second=2000.0))
ONE_UPLOAD = attrs.evolve(FAST, limits=Limits(max_uploads=1), timeouts=Timeouts(cancel=0.05, submit=5))
LONG_BACKOFF = attrs.evolve(FAST, retries=attrs.evolve(FAST.retries, backoff_initial=60.0, backoff_max=60.0))
IMPATIENT = attrs.evolve(FAST, timeouts=Timeouts(cancel=0.1, submit=5))
"""Settings that wait 0.1 s for the responses to create requests."""

UNREACHABLE = "http://127.0.0.1:9"


def now() -> float:
    return asyncio.get_running_loop().time()


class TestDeadlineWhileQueued:
    """`GatewayUnavailable`: nothing was sent, or nothing was accepted, so nothing is billed."""

    async def test_a_deadline_in_the_wait_for_a_slot_sends_nothing(self, emulator: Emulator) -> None:
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        async with new_session(emulator, ONE_SLOT) as session:
            await session.submit("has the only slot")
            with pytest.raises(GatewayUnavailable, match="not submitted within") as caught:
                await session.generate("waits for it", timeout=0.1)
            assert not caught.value.may_be_charged
            assert caught.value.task_id is None
            assert session.statistics().queued == 0
            assert session.statistics().in_flight == 1
        assert count_creates(emulator) == emulator.ledger.accepted == 1

    async def test_a_deadline_in_the_wait_for_an_upload_sends_nothing(self, emulator: Emulator) -> None:
        emulator.faults.script("create", [FaultKind.STALL])
        async with new_session(emulator, ONE_UPLOAD) as session:
            first = asyncio.create_task(session.generate("uploads", input_images=[encode_png()]))
            await until(lambda: emulator.requests)
            with pytest.raises(GatewayUnavailable, match="not submitted within") as caught:
                await session.generate("waits for it", input_images=[encode_png()], timeout=0.1)
            assert not caught.value.may_be_charged
            assert session.statistics().submitted == 1
            first.cancel()
            await asyncio.wait([first])
        assert count_creates(emulator) == 1
        assert emulator.ledger.accepted == 0

    async def test_a_deadline_in_a_backoff_bills_nothing(self) -> None:
        async with KontextSession("key", base_url=UNREACHABLE, settings=LONG_BACKOFF) as session:
            with pytest.raises(GatewayUnavailable, match="not submitted within") as caught:
                await session.generate("a fox", timeout=0.1)
            assert not caught.value.may_be_charged
            assert session.statistics().submitted == 1
            assert session.statistics().uncertain == 0
            assert session.statistics().in_flight == 0

    async def test_a_deadline_in_a_pause_bills_nothing(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.RATE_LIMITED, retry_after=60)])
        with pytest.raises(GatewayUnavailable, match="not submitted within") as caught:
            await session.generate("a fox", timeout=0.2)
        assert not caught.value.may_be_charged
        assert session.statistics().throttled == 1
        assert session.statistics().queued == session.statistics().in_flight == 0
        assert count_creates(emulator) == 1
        assert emulator.ledger.accepted == emulator.ledger.billed == 0


class TestDeadlineWhileSending:
    """`SubmissionUncertain`, unless the response comes within `Timeouts.cancel`."""

    @pytest.mark.parametrize(("fault", "accepted"), [(FaultKind.STALL, 0), (FaultKind.STALL_AFTER_ACCEPT, 1)], ids=str)
    async def test_a_deadline_without_a_response_is_uncertain(
        self, emulator: Emulator, fault: FaultKind, accepted: int
    ) -> None:
        emulator.faults.script("create", [fault])
        async with new_session(emulator, IMPATIENT) as session:
            began = now()
            with pytest.raises(SubmissionUncertain) as caught:
                await session.generate("a fox", timeout=0.1)
            assert 0.2 <= now() - began < 3, "the deadline, and then `Timeouts.cancel`"
            error = caught.value
            assert error.may_be_charged
            assert error.task_id is None
            assert error.request is not None
            assert error.request.prompt == "a fox"
            assert len(error.fingerprint) == 64
        assert count_creates(emulator) == 1
        assert emulator.ledger.accepted == accepted

    @SLOW_TASKS
    async def test_a_response_after_the_deadline_keeps_the_task_id(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
        with pytest.raises(TaskTimeout) as caught:
            await session.generate("a fox", timeout=0.05)
        assert [caught.value.task_id] == list(emulator.ledger.task_ids)
        assert caught.value.last_status is not None


class TestDeadlineWhileAccepted:
    """`TaskTimeout` with the task ID; the task keeps running."""

    @SLOW_TASKS
    async def test_a_task_past_the_deadline_keeps_running_and_can_be_resumed(
        self, session: KontextSession, emulator: Emulator, events: list[Event]
    ) -> None:
        with pytest.raises(TaskTimeout) as caught:
            await session.generate("a fox", timeout=0.1)
        error = caught.value
        assert [error.task_id] == list(emulator.ledger.task_ids)
        assert error.may_be_charged
        assert error.waited >= 0.1
        assert error.last_status is not None
        assert error.last_status.state is TaskState.IN_PROGRESS
        assert [event.task_id for event in events_of(Abandoned, events)] == [error.task_id]
        assert error.task_id is not None
        assert (await session.attach(error.task_id).wait(5)).images
        assert count_creates(emulator) == emulator.ledger.billed == 1


async def start_session(emulator: Emulator, settings: Settings = FAST) -> KontextSession:
    return await new_session(emulator, settings).start()


class TestCloseWhileQueued:
    """`SessionClosed` without a task ID."""

    async def test_closing_in_the_wait_for_a_slot_sends_nothing(self, emulator: Emulator) -> None:
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        session = await start_session(emulator, ONE_SLOT)
        await session.submit("has the only slot")
        waiting = asyncio.create_task(session.generate("waits for it"))
        await until(lambda: session.statistics().queued)
        await session.aclose()
        with pytest.raises(SessionClosed) as caught:
            await waiting
        assert caught.value.task_id is None
        assert not caught.value.may_be_charged
        assert count_creates(emulator) == 1

    async def test_closing_in_the_wait_for_an_upload_sends_nothing(self, emulator: Emulator) -> None:
        emulator.faults.script("create", [FaultKind.STALL])
        session = await start_session(emulator, ONE_UPLOAD)
        uploading = asyncio.create_task(session.generate("uploads", input_images=[encode_png()]))
        await until(lambda: emulator.requests)
        waiting = asyncio.create_task(session.generate("waits for it", input_images=[encode_png()]))
        await asyncio.sleep(0)
        await session.aclose()
        with pytest.raises(SubmissionUncertain):
            await uploading
        with pytest.raises(SessionClosed) as caught:
            await waiting
        assert caught.value.task_id is None
        assert not caught.value.may_be_charged
        assert count_creates(emulator) == 1

    async def test_closing_ends_a_backoff_at_once(self) -> None:
        session = await KontextSession("key", base_url=UNREACHABLE, settings=LONG_BACKOFF).start()
        task = asyncio.create_task(session.generate("a fox"))
        await until(lambda: session._engine.scheduler._pauses)
        await session.aclose()
        with pytest.raises(SessionClosed) as caught:
            await task
        assert caught.value.task_id is None
        assert not caught.value.may_be_charged

    async def test_closing_ends_a_pause_at_once(self, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.RATE_LIMITED, retry_after=60)])
        session = await start_session(emulator)
        task = asyncio.create_task(session.generate("a fox"))
        await until(lambda: session.statistics().throttled and session.statistics().queued)
        await session.aclose()
        with pytest.raises(SessionClosed) as caught:
            await task
        assert caught.value.task_id is None
        assert not caught.value.may_be_charged
        assert emulator.ledger.accepted == 0


class TestCloseWhileSending:
    """`SessionClosed` with the task ID if the response comes within `Timeouts.cancel`, else `SubmissionUncertain`."""

    async def test_closing_keeps_the_task_id_of_a_response_in_time(self, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
        events: list[Event] = []
        session = await start_session(emulator)
        session.subscribe(events.append)
        task = asyncio.create_task(session.generate("a fox"))
        await until(lambda: emulator.ledger.accepted)
        await session.aclose()
        with pytest.raises(SessionClosed) as caught:
            await task
        assert [caught.value.task_id] == list(emulator.ledger.task_ids)
        assert caught.value.may_be_charged
        assert [event.task_id for event in events_of(Accepted, events)] == [caught.value.task_id]

    @pytest.mark.parametrize("fault", [FaultKind.STALL, FaultKind.STALL_AFTER_ACCEPT])
    async def test_closing_without_a_response_in_time_is_uncertain(self, emulator: Emulator, fault: FaultKind) -> None:
        emulator.faults.script("create", [fault])
        session = await start_session(emulator, IMPATIENT)
        task = asyncio.create_task(session.generate("a fox"))
        await until(lambda: emulator.requests)
        began = now()
        await session.aclose()
        assert 0.1 <= now() - began < 3, "the session waits for `Timeouts.cancel`, and no longer"
        with pytest.raises(SubmissionUncertain) as caught:
            await task
        assert caught.value.may_be_charged
        assert caught.value.task_id is None
        assert isinstance(caught.value.__cause__, SessionClosed)

    async def test_a_cancelled_close_continues(self, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
        session = await start_session(emulator)
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


class TestCloseWhileAccepted:
    """`SessionClosed` with the task ID; the task keeps running."""

    @SLOW_TASKS
    async def test_another_session_resumes_the_task_of_a_closed_session(self, emulator: Emulator) -> None:
        session = await start_session(emulator)
        task = asyncio.create_task(session.generate("a fox"))
        await until(lambda: session.statistics().pending)
        await session.aclose()
        with pytest.raises(SessionClosed) as caught:
            await task
        assert [caught.value.task_id] == list(emulator.ledger.task_ids)
        assert caught.value.may_be_charged
        assert caught.value.task_id is not None
        async with new_session(emulator) as other:
            assert (await other.attach(caught.value.task_id).wait(5)).images
        assert emulator.ledger.billed == 1

    async def test_cancelling_the_owner_task_closes_the_session(self, emulator: Emulator) -> None:
        """The event loop does that when it shuts down."""
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        session = await start_session(emulator)
        task = asyncio.create_task(session.generate("a fox"))
        await until(lambda: session.statistics().pending)
        assert session._engine._owner is not None
        session._engine._owner.cancel()
        with pytest.raises(SessionClosed) as caught:
            await task
        assert [caught.value.task_id] == list(emulator.ledger.task_ids)
        await session.aclose()
