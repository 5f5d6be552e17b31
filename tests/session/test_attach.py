"""Tasks to await later: `submit`, `attach`, and `GenerationTask`."""

from __future__ import annotations

import asyncio
import pickle
from decimal import Decimal

import attrs
import pytest
from session_support import new_session, until

from kontext_async import (
    AuthenticationFailed,
    GatewayUnavailable,
    InvalidRequest,
    KontextRequest,
    KontextSession,
    Limits,
    SessionClosed,
    TaskNotFound,
    TaskState,
)
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST

pytestmark = pytest.mark.anyio


class TestSubmitAndAttach:
    async def test_another_session_resumes_a_submitted_task(self, session: KontextSession, emulator: Emulator) -> None:
        task = await session.submit("a blue fox", seed=1)
        assert task.id in emulator.ledger.task_ids
        assert task.request == KontextRequest("a blue fox", seed=1)
        assert task.id in repr(task)
        async with new_session(emulator) as other:
            attached = other.attach(task.id)
            assert attached.request is None
            fox = await attached.wait(timeout=5)
            assert fox.request is None
            assert await attached.wait() is fox
        assert (await task.wait()).images[0].url.partition("?")[0] == fox.images[0].url.partition("?")[0]

    async def test_an_invalid_task_id_is_refused_before_a_byte_is_sent(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        with pytest.raises(InvalidRequest):
            session.attach("")
        assert not emulator.requests

    async def test_another_session_resumes_a_task_by_its_reference(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        task = await session.submit("a blue fox")
        reference = task.reference
        assert str(reference) == f"vtrix:{task.id}"
        assert pickle.loads(pickle.dumps(reference)) == reference  # noqa: S301 # pickled on this line
        async with new_session(emulator) as other:
            for given in (reference, str(reference), f" {reference}\n", task.id):
                attached = other.attach(given)
                assert attached.reference == reference
                assert (await attached.wait(timeout=5)).task_id == task.id

    @pytest.mark.parametrize(
        "text", ["bfl:b9b1@https://api.us1.bfl.ai/v1/get_result?id=b9b1", "vtrix-queue:d8ej@m", "vtrix:"]
    )
    async def test_a_reference_of_another_gateway_is_refused_before_a_byte_is_sent(
        self, session: KontextSession, emulator: Emulator, text: str
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            session.attach(text)
        assert caught.value.field == "reference"
        assert not emulator.requests

    async def test_waiters_of_one_task_share_its_polls(self, session: KontextSession, emulator: Emulator) -> None:
        task = await session.submit("shared")
        fox, *others = await asyncio.gather(task.wait(), *(session.attach(task.id).wait() for _ in range(20)))
        assert all(other == fox for other in others)
        polls = sum(record.path.endswith(task.id) for record in emulator.requests)
        assert polls == session.statistics().polls < 20

    async def test_the_cost_of_a_task_that_is_attached_again_is_counted_once(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        fox = await session.generate("a fox")
        for _ in range(2):
            await session.attach(fox.task_id).status()
            await session.attach(fox.task_id).wait()
        await session.read(fox.images[0])
        assert session.statistics().spent == emulator.ledger.spent == Decimal("0.04")


class TestWait:
    async def test_a_second_wait_gets_a_new_failure_budget(self, emulator: Emulator) -> None:
        settings = attrs.evolve(FAST, retries=attrs.evolve(FAST.retries, failure_budget=0.1))
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        async with new_session(emulator, settings) as session:
            task = await session.submit("a fox")
            emulator.faults.set_rate(Fault(kind=FaultKind.HTTP_STATUS, on=["status"], status=500), 1)
            for _ in range(2):
                began = asyncio.get_running_loop().time()
                with pytest.raises(GatewayUnavailable):
                    await task.wait(5)
                assert asyncio.get_running_loop().time() - began >= 0.1

    async def test_a_wait_in_a_closed_session_names_the_task(self, emulator: Emulator) -> None:
        async with new_session(emulator) as session:
            task = await session.submit("a fox")
        with pytest.raises(SessionClosed, match="is closed") as caught:
            await task.wait()
        assert caught.value.task_id == task.id
        assert caught.value.may_be_charged


class TestStatus:
    async def test_status_polls_once_and_now(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        task = await session.submit("hangs")
        status = await task.status()
        assert status.state is TaskState.IN_PROGRESS
        assert status.task_id == task.id

    async def test_status_of_an_unknown_task_raises(self, session: KontextSession) -> None:
        with pytest.raises(TaskNotFound):
            await session.attach("unknown-id").status()

    @pytest.mark.parametrize("emulator_options", [{"service_time": 0.02, "pixels": 4096}])
    async def test_status_of_a_finished_task_does_not_stop_the_poll_loop(self, emulator: Emulator) -> None:
        """With one poll at a time, a task that `status` sees finished must leave the loop's turn to the other."""
        settings = attrs.evolve(FAST, limits=Limits(max_polls_in_flight=1, polls_per_second=2000))
        async with new_session(emulator, settings) as session:
            one, other = await session.submit("one"), await session.submit("other")
            emulator.faults.script("status", [Fault(kind=FaultKind.SLOW, seconds=0.2), None])
            waiting = asyncio.create_task(other.wait(5))
            await until(lambda: session.statistics().polls_in_flight)
            for _ in range(20):
                await one.status()
            assert (await waiting).images


class TestUpdates:
    async def test_updates_end_with_the_terminal_status(self, emulator: Emulator, session: KontextSession) -> None:
        done = [status async for status in (await session.submit("a fox")).updates()]
        assert done[-1].state is TaskState.COMPLETED
        assert all(not status.state.is_terminal for status in done[:-1])
        emulator.faults.script("create", [Fault(kind=FaultKind.TASK_FAILS, code="7", message="too dark")])
        failed = [status async for status in (await session.submit("a fox")).updates()]
        assert failed[-1].state is TaskState.FAILED
        assert failed[-1].error is not None
        assert failed[-1].error.message == "too dark"
        again = [status async for status in session.attach(done[-1].task_id).updates()]
        assert again[-1].state is TaskState.COMPLETED

    async def test_updates_of_an_unknown_task_raise(self, session: KontextSession) -> None:
        with pytest.raises(TaskNotFound):
            async for _ in session.attach("unknown-id").updates():
                pass

    async def test_updates_poll_again_after_a_failure_that_came_between_two_of_them(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        """The failure reached no waiter, because the consumer was busy; the next update must not wait for ever."""
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        updates = (await session.submit("a fox")).updates()
        await anext(updates)
        emulator.faults.set_rate(Fault(kind=FaultKind.UNAUTHORIZED, on=["status"]), 1)
        await until(lambda: session.statistics().failed)
        with pytest.raises(AuthenticationFailed):
            await anext(updates)


class TestLastStatus:
    async def test_the_last_status_is_known_from_acceptance_on(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        task = await session.submit("a fox")
        assert task.last_status is not None
        assert task.last_status.task_id == task.id
        assert "in_progress" in repr(task)
        polled = await task.status()
        assert task.last_status == polled
        assert session.attach(task.id).last_status == polled

    async def test_an_attached_task_has_no_status_before_its_first_poll(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        task = session.attach("some-task")
        assert task.last_status is None
        assert "not polled yet" in repr(task)
        assert not emulator.requests
