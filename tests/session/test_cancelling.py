"""Tasks that are cancelled at the gateway: in time, too late, with an unknown outcome, and by a deadline."""

from __future__ import annotations

import asyncio
import json
import pickle
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from gateway_sessions import connect, new_emulator
from http_support import Request, http_response, scripted_server
from session_support import events_of, until

from kontext_async import (
    Cancellation,
    CancelOutcome,
    ConfigurationError,
    Generation,
    KontextError,
    KontextSession,
    RequestRejected,
    SessionClosed,
    TaskCancelled,
    TaskNotFound,
    TaskTimeout,
    Timeouts,
)
from kontext_async.emulator import Emulator, Fault
from kontext_async.events import CancelRequested, Completed, Event, Failed
from kontext_async.gateways import GATEWAYS
from kontext_async.store.memory import MemoryStore
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

QUEUE = "vtrix-queue"
ENDLESS = 600.0
SHORT_WAIT = evolve(FAST, timeouts=evolve(FAST.timeouts, cancel=0.2))
ON_TIMEOUT = evolve(FAST, timeouts=evolve(FAST.timeouts, cancel=5.0, cancel_on_timeout=True))


@asynccontextmanager
async def running(
    name: str = QUEUE, service_time: float = ENDLESS, **options: Any
) -> AsyncIterator[tuple[KontextSession, Emulator]]:
    async with new_emulator(service_time=service_time) as emulator, connect(name, emulator, **options) as session:
        yield session, emulator


def count_cancels(emulator: Emulator) -> int:
    return sum(each.method == "PUT" for each in emulator.requests)


class TestInTime:
    async def test_the_task_ends_its_slot_is_free_and_its_waiters_know(self) -> None:
        async with running() as (session, emulator):
            events: list[Event] = []
            session.subscribe(events.append)
            task = await session.submit("a fox")
            waiters = [asyncio.create_task(task.wait()) for _ in range(2)]
            await until(lambda: session.statistics().polls)
            outcome = await task.cancel()
            assert outcome.cancellation is Cancellation.IN_TIME
            assert (outcome.task_id, outcome.reference) == (task.id, str(task.reference))
            assert (outcome.cost, outcome.may_be_charged) == (None, True), "the gateway does not say"
            assert session.statistics().in_flight == 0
            for error in await asyncio.gather(*waiters, return_exceptions=True):
                assert isinstance(error, TaskCancelled)
                assert (error.task_id, error.reference) == (task.id, outcome.reference)
                assert error.may_be_charged
            (failed,), (asked,) = events_of(Failed, events), events_of(CancelRequested, events)
            assert isinstance(failed.error, TaskCancelled)
            assert events.index(failed) < events.index(asked)
            assert (asked.outcome, asked.task_id) == (outcome, task.id)
            assert (emulator.ledger.billed, count_cancels(emulator)) == (1, 1)

    async def test_an_attached_task_is_cancelled_by_its_reference(self) -> None:
        async with running() as (session, emulator), connect(QUEUE, emulator) as other:
            reference = str((await session.submit("a fox")).reference)
            outcome = await other.attach(reference).cancel()
            assert (outcome.cancellation, outcome.reference) == (Cancellation.IN_TIME, reference)
            with pytest.raises(TaskCancelled):
                await session.attach(reference).wait()

    async def test_a_second_cancel_sends_nothing(self) -> None:
        async with running() as (session, emulator):
            task = await session.submit("a fox")
            first = await task.cancel()
            sent = len(emulator.requests)
            assert await task.cancel() == first
            assert len(emulator.requests) == sent

    async def test_callers_who_cancel_at_the_same_time_share_one_request(self) -> None:
        async with running() as (session, emulator):
            task = await session.submit("a fox")
            outcomes = await asyncio.gather(*(task.cancel() for _ in range(5)))
            assert {each.cancellation for each in outcomes} == {Cancellation.IN_TIME}
            assert count_cancels(emulator) == 1

    async def test_a_cancellation_that_takes_its_time_is_awaited(self) -> None:
        async with running() as (session, emulator):
            task = await session.submit("a fox")
            emulator.faults.script("cancel", [Fault(kind="cancel-late", seconds=0.1)])
            assert (await task.cancel()).cancellation is Cancellation.IN_TIME
            assert count_cancels(emulator) == 1

    @pytest.mark.parametrize("kind", ["cut", "http-status", "unavailable", "cut-after-cancel"])
    async def test_a_request_without_a_response_is_repeated(self, kind: str) -> None:
        async with running() as (session, emulator):
            task = await session.submit("a fox")
            emulator.faults.script("cancel", [kind])
            assert (await task.cancel()).cancellation is Cancellation.IN_TIME

    async def test_the_cost_is_what_the_gateway_states(self) -> None:
        created = {"request_id": "t-1", "status": "queued"}
        status = {"request_id": "t-1", "status": "cancelled", "error": "cancelled", "usage": {"cost": "0"}}

        def respond(request: Request) -> bytes:
            return http_response(json.dumps(created if request.method == "POST" else status).encode())

        async with (
            scripted_server(respond) as server,
            KontextSession("key", base_url=server.url, gateway=QUEUE, settings=FAST) as session,
        ):
            task = await session.submit("a fox")
            outcome = await task.cancel()
            assert (outcome.cost, outcome.may_be_charged) == (Decimal(0), False)
            with pytest.raises(TaskCancelled) as caught:
                await task.wait()
            assert (caught.value.cost, caught.value.may_be_charged) == (Decimal(0), False)


class TestTooLate:
    async def test_a_task_that_has_completed_keeps_its_image(self) -> None:
        async with running(service_time=0.05) as (session, emulator):
            task = await session.submit("a fox")
            generation = await task.wait()
            outcome = await task.cancel()
            assert (outcome.cancellation, outcome.may_be_charged) == (Cancellation.TOO_LATE, True)
            assert count_cancels(emulator) == 0, "its end is known"
            assert await task.wait() == generation

    async def test_a_task_that_completes_unseen_is_found_out(self) -> None:
        async with running(service_time=0.0) as (session, emulator):
            events: list[Completed] = []
            session.subscribe(events.append, Completed)
            task = session.attach((await session.submit("a fox")).reference)
            outcome = await task.cancel()
            assert outcome.cancellation is Cancellation.TOO_LATE
            assert isinstance(await task.wait(), Generation)
            assert len(events) == 1
            assert emulator.ledger.billed == 1

    async def test_a_request_that_was_taken_and_ignored_is_too_late_once_the_task_ends(self) -> None:
        async with running(service_time=0.2) as (session, emulator):
            task = await session.submit("a fox")
            emulator.faults.script("cancel", ["cancel-ignored"])
            assert (await task.cancel()).cancellation is Cancellation.TOO_LATE
            assert isinstance(await task.wait(), Generation)

    async def test_a_failed_task_is_reported_as_it_failed(self) -> None:
        async with running(service_time=0.0) as (session, emulator):
            emulator.faults.script("create", ["task-fails"])
            task = await session.submit("a fox")
            assert (await task.cancel()).cancellation is Cancellation.TOO_LATE


class TestUnknown:
    async def test_a_refused_cancellation_leaves_the_task_running(self) -> None:
        async with running() as (session, emulator):
            task = await session.submit("a fox")
            await task.status()
            emulator.faults.script("cancel", ["cancel-refused"])
            outcome = await task.cancel()
            assert (outcome.cancellation, outcome.may_be_charged) == (Cancellation.UNKNOWN, True)
            assert count_cancels(emulator) == 1
            assert (session.statistics().in_flight, session.statistics().pending) == (1, 1)

    async def test_a_taken_request_without_an_effect_ends_after_the_time_allowed(self) -> None:
        async with running(settings=SHORT_WAIT) as (session, emulator):
            task = await session.submit("a fox")
            emulator.faults.script("cancel", ["cancel-ignored"])
            outcome = await task.cancel()
            assert outcome.cancellation is Cancellation.UNKNOWN
            assert outcome.status is not None
            assert not outcome.status.state.is_terminal
            assert session.statistics().in_flight == 1

    async def test_a_gateway_that_does_not_respond_to_it_ends_it_after_the_time_allowed(self) -> None:
        async with running(settings=SHORT_WAIT) as (session, emulator):
            task = await session.submit("a fox")
            emulator.faults.set_rate(Fault(kind="stall", on="cancel"), 1.0)
            assert (await task.cancel()).cancellation is Cancellation.UNKNOWN
            emulator.faults.clear()
            assert (await task.cancel()).cancellation is Cancellation.IN_TIME


class TestErrors:
    @pytest.mark.parametrize("name", [name for name in GATEWAYS if not GATEWAYS[name].features.cancel])
    async def test_a_gateway_that_cannot_cancel_is_a_configuration_error(self, name: str) -> None:
        async with running(name) as (session, emulator):
            task = await session.submit("a fox")
            sent = len(emulator.requests)
            with pytest.raises(ConfigurationError, match=f"the gateway {name} cannot cancel"):
                await task.cancel()
            assert not any(each.method == "PUT" for each in list(emulator.requests)[sent:])
            assert session.statistics().in_flight == 1

    async def test_an_unknown_task_is_not_found(self) -> None:
        async with running() as (session, _):
            with pytest.raises(TaskNotFound) as caught:
                await session.attach("vtrix-queue:unknown@flux_kontext_pro").cancel()
            assert caught.value.task_id == "unknown"

    async def test_a_task_that_is_not_known_yet_is_cancelled_once_it_is(self) -> None:
        settings = evolve(FAST, retries=evolve(FAST.retries, not_found_grace=5.0))
        async with running(settings=settings) as (session, emulator):
            emulator.faults.script("create", [Fault(kind="task-late", seconds=0.1)])
            task = await session.submit("a fox")
            assert (await task.cancel()).cancellation is Cancellation.IN_TIME

    @pytest.mark.parametrize("status", [400, 404, 409, 422])
    async def test_a_refusal_counts_for_nothing_before_a_status_has_shown_the_task(self, status: int) -> None:
        async with running() as (session, emulator):
            task = await session.submit("a fox")
            emulator.faults.script("cancel", [Fault(kind="http-status", status=status)])
            assert (await task.cancel()).cancellation is Cancellation.IN_TIME
            assert count_cancels(emulator) == 2

    async def test_a_refusal_for_another_reason_is_raised_with_the_id(self) -> None:
        async with running() as (session, emulator):
            task = await session.submit("a fox")
            emulator.faults.script("cancel", [Fault(kind="http-status", status=405)])
            with pytest.raises(RequestRejected) as caught:
                await task.cancel()
            assert (caught.value.task_id, caught.value.may_be_charged) == (task.id, True)

    async def test_a_session_that_closes_meanwhile_says_so(self) -> None:
        async with running() as (session, emulator):
            task = await session.submit("a fox")
            emulator.faults.set_rate(Fault(kind="stall", on="cancel"), 1.0)
            cancelling = asyncio.create_task(task.cancel())
            await until(lambda: count_cancels(emulator))
            await session.aclose()
            with pytest.raises(SessionClosed) as caught:
                await cancelling
            assert (caught.value.task_id, caught.value.may_be_charged) == (task.id, True)


async def test_the_caller_of_cancel_may_be_cancelled_at_every_turn_of_the_loop() -> None:
    async with running() as (session, emulator):
        for turns in range(40):
            task = await session.submit("a fox")
            waiter = asyncio.create_task(task.wait())
            cancelling = asyncio.create_task(task.cancel())
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelling.cancel()
            await asyncio.wait([cancelling])
            if not turns:
                await task.cancel()  # it had not begun
            with pytest.raises(TaskCancelled):
                await asyncio.wait_for(waiter, 10)
        assert session.statistics().in_flight == 0
        assert count_cancels(emulator) == emulator.ledger.billed == 40


class TestDeadlines:
    async def test_a_wait_that_ends_by_its_deadline_cancels_the_task(self) -> None:
        async with running(settings=ON_TIMEOUT) as (session, emulator):
            task = await session.submit("a fox")
            with pytest.raises(TaskTimeout, match="the task was cancelled, and may be billed") as caught:
                await task.wait(0.1)
            cancelled = caught.value.cancelled
            assert isinstance(cancelled, CancelOutcome)
            assert (cancelled.cancellation, cancelled.task_id) == (Cancellation.IN_TIME, task.id)
            assert pickle.loads(pickle.dumps(caught.value)).cancelled == cancelled  # noqa: S301 # our own
            assert (session.statistics().in_flight, count_cancels(emulator)) == (0, 1)

    async def test_generate_cancels_its_task(self) -> None:
        async with running(settings=ON_TIMEOUT) as (session, emulator):
            with pytest.raises(TaskTimeout) as caught:
                await session.generate("a fox", timeout=0.2)
            assert caught.value.cancelled
            assert (session.statistics().in_flight, count_cancels(emulator)) == (0, 1)

    async def test_a_task_that_is_accepted_after_the_deadline_is_cancelled_too(self) -> None:
        async with running(settings=ON_TIMEOUT) as (session, emulator):
            emulator.faults.script("create", [Fault(kind="slow-after-accept", seconds=0.3)])
            with pytest.raises(TaskTimeout) as caught:
                await session.generate("a fox", timeout=0.1)
            assert caught.value.cancelled
            assert (session.statistics().in_flight, emulator.ledger.billed) == (0, 1)

    async def test_a_task_that_completed_meanwhile_is_returned(self) -> None:
        async with running(service_time=0.3, settings=ON_TIMEOUT) as (session, emulator):
            emulator.faults.script("cancel", ["cancel-ignored"])
            task = await session.submit("a fox")
            assert isinstance(await task.wait(0.05), Generation)

    async def test_a_task_that_others_wait_for_is_not_cancelled(self) -> None:
        async with running(settings=ON_TIMEOUT) as (session, emulator):
            task = await session.submit("a fox")
            other = asyncio.create_task(task.wait())
            await until(lambda: session.statistics().polls)
            with pytest.raises(TaskTimeout, match="keeps running") as caught:
                await task.wait(0.05)
            assert caught.value.cancelled is None
            assert count_cancels(emulator) == 0
            other.cancel()

    async def test_tasks_of_generate_many_are_cancelled_after_the_longest_wait(self) -> None:
        settings = evolve(ON_TIMEOUT, timeouts=evolve(ON_TIMEOUT.timeouts, wait=0.3))
        async with running(settings=settings) as (session, emulator):
            outcomes = await session.generate_all(["a fox", "a wolf"])
            assert [type(each.error) for each in outcomes] == [TaskCancelled, TaskCancelled]
            assert (session.statistics().in_flight, count_cancels(emulator)) == (0, 2)

    async def test_a_task_that_cannot_be_cancelled_in_time_ends_as_without_the_setting(self) -> None:
        settings = evolve(ON_TIMEOUT, timeouts=evolve(ON_TIMEOUT.timeouts, wait=0.3, cancel=0.1))
        async with running(settings=settings) as (session, emulator):
            emulator.faults.set_rate("cancel-refused", 1.0)
            (outcome,) = await session.generate_all(["a fox"])
            assert isinstance(outcome.error, TaskTimeout)
            assert session.statistics().in_flight == 0
            assert count_cancels(emulator) == 1

    async def test_a_gateway_that_cannot_cancel_lets_the_task_run(self) -> None:
        async with running("vtrix", settings=ON_TIMEOUT) as (session, _):
            with pytest.raises(TaskTimeout, match="keeps running") as caught:
                await session.generate("a fox", timeout=0.2)
            assert caught.value.cancelled is None
            assert session.statistics().in_flight == 1

    async def test_a_refused_cancel_request_leaves_the_timeout_as_it_is(self) -> None:
        async with running(settings=ON_TIMEOUT) as (session, emulator):
            emulator.faults.script("cancel", [Fault(kind="http-status", status=405)])
            with pytest.raises(TaskTimeout, match="keeps running"):
                await session.generate("a fox", timeout=0.2)


class TestStores:
    async def test_the_row_fails_with_the_error_and_may_be_sent_again(self) -> None:
        store = MemoryStore()
        async with running(store=store) as (session, emulator):
            task = await session.submit("a fox", key="job")
            assert (await task.cancel()).cancellation is Cancellation.IN_TIME
            with pytest.raises(TaskCancelled) as caught:
                await session.generate("a fox", key="job")
            assert (caught.value.task_id, caught.value.may_be_charged) == (task.id, True)
            assert emulator.ledger.billed == 1
            again = await session.submit("a fox", key="job", retry_failed=True)
            assert again.id != task.id
            assert emulator.ledger.billed == 2

    async def test_callers_of_one_key_share_the_end(self) -> None:
        async with running(store=MemoryStore()) as (session, emulator):
            calls = [asyncio.create_task(session.generate("a fox", key="job")) for _ in range(3)]
            await until(lambda: session.statistics().polls)
            await session.attach(f"vtrix-queue:{emulator.ledger.task_ids[0]}@flux_kontext_pro").cancel()
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, TaskCancelled)

    async def test_a_task_whose_image_is_in_the_store_is_too_late(self) -> None:
        async with running(service_time=0.05, store=MemoryStore()) as (session, emulator):
            await session.generate("a fox", key="job")
            sent = len(emulator.requests)
            outcome = await (await session.submit("a fox", key="job")).cancel()
            assert (outcome.cancellation, len(emulator.requests)) == (Cancellation.TOO_LATE, sent)

    async def test_a_deadline_ends_the_row(self) -> None:
        store = MemoryStore()
        async with running(store=store, settings=ON_TIMEOUT) as (session, _):
            with pytest.raises(TaskTimeout) as caught:
                await session.generate("a fox", key="job", timeout=0.2)
            assert caught.value.cancelled
            with pytest.raises(TaskCancelled):
                await session.generate("a fox", key="job")
            assert [each async for each in session.recover()] == []


@pytest.mark.parametrize("value", [0, 1, None, "yes"])
def test_cancel_on_timeout_is_true_or_false(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="cancel_on_timeout"):
        Timeouts(cancel_on_timeout=value)


def test_a_timeout_that_cancelled_says_what_it_cost() -> None:
    outcome = CancelOutcome(task_id="t", reference="r", cancellation=Cancellation.IN_TIME, may_be_charged=False)
    error: KontextError = TaskTimeout(task_id="t", waited=1.0, last_status=None, cancelled=outcome)
    assert "was cancelled, and is not billed" in str(error)
    assert not error.may_be_charged
