"""Outages over real HTTP: the session stops submitting, probes, and continues; nothing is billed twice."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from outage_support import Forwarder
from session_support import count_creates, events_of, new_session, until
from unreliable_store import UnreliableStore

from kontext_async import (
    AuthenticationFailed,
    ConfigurationError,
    GatewayOutage,
    KontextSession,
    Outages,
    PermissionDenied,
    SessionClosed,
    SubmissionUncertain,
)
from kontext_async.emulator import Fault, FaultKind
from kontext_async.events import CircuitClosed, CircuitOpened, Event
from kontext_async.store.steps import State
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async import Generation, Settings
    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

PAGE = Fault(kind=FaultKind.HTTP_STATUS, status=403, shape="html")


@pytest.fixture
async def forwarder(emulator: Emulator) -> AsyncIterator[Forwarder]:
    async with Forwarder(emulator.base_url) as running:
        yield running


@pytest.fixture
async def session(emulator: Emulator, forwarder: Forwarder) -> AsyncIterator[KontextSession]:
    """A session behind a forwarder that the test can stop."""
    async with KontextSession(emulator.api_key, base_url=forwarder.url, settings=FAST) as running:
        yield running


def with_outages(**options: Any) -> Settings:
    return attrs.evolve(FAST, outages=attrs.evolve(FAST.outages, **options))


async def test_requests_wait_while_connections_are_refused(
    session: KontextSession, forwarder: Forwarder, emulator: Emulator, events: list[Event]
) -> None:
    await forwarder.stop()
    requests = [asyncio.create_task(session.generate(f"fox {number}")) for number in range(10)]
    await until(lambda: session.statistics().circuit == "open")
    assert session.outage is not None
    assert "refused" in str(session.outage).lower() or "connect" in str(session.outage).lower()
    await forwarder.start()
    assert all(await asyncio.gather(*requests))
    assert emulator.ledger.billed == 10
    assert session.statistics().uncertain == 0
    assert session.statistics().circuit == "closed"
    assert session.outage is None
    assert len(events_of(CircuitOpened, events)) == len(events_of(CircuitClosed, events)) == 1


async def test_a_request_fails_with_an_outage_after_its_wait(forwarder: Forwarder, emulator: Emulator) -> None:
    await forwarder.stop()
    settings = with_outages(wait=0.05)
    async with KontextSession(emulator.api_key, base_url=forwarder.url, settings=settings) as session:
        outcomes = await session.generate_all(["a fox"] * 5)
        errors = [outcome.error for outcome in outcomes]
        assert all(isinstance(error, GatewayOutage) for error in errors)
        for error in errors:
            assert error is not None
            assert (error.retryable, error.may_be_charged, error.task_id) == (True, False, None)
            assert error.__cause__ is not None
    assert count_creates(emulator) == 0


async def test_uncertain_requests_in_a_row_stop_submitting(emulator: Emulator) -> None:
    """Five are lost after they were accepted; the gateway works again, and the rest is accepted."""
    emulator.faults.script("create", [FaultKind.CUT_AFTER_ACCEPT] * 5)
    settings = attrs.evolve(FAST, limits=attrs.evolve(FAST.limits, max_in_flight=1))
    async with new_session(emulator, settings) as session:
        events: list[Event] = []
        session.subscribe(events.append, CircuitOpened, CircuitClosed)
        outcomes = await session.generate_all([f"fox {number}" for number in range(20)])
    uncertain = [outcome for outcome in outcomes if isinstance(outcome.error, SubmissionUncertain)]
    assert len(uncertain) == 5
    assert sum(outcome.ok for outcome in outcomes) == 15
    assert [type(event) for event in events] == [CircuitOpened, CircuitClosed]
    assert emulator.ledger.accepted == 20
    assert not emulator.ledger.billed_twice


async def test_a_lasting_fault_costs_one_uncertain_request_for_each_probe(emulator: Emulator) -> None:
    """The free probe gets through, and every create request is lost."""
    emulator.faults.set_rate(FaultKind.CUT_AFTER_ACCEPT, 1.0)
    settings = with_outages(wait=0.3, probe_initial=0.05, probe_max=10.0, uncertain_limit=3)
    settings = attrs.evolve(settings, limits=attrs.evolve(FAST.limits, max_in_flight=1))
    opened: list[CircuitOpened] = []
    async with new_session(emulator, settings) as session:
        session.subscribe(opened.append, CircuitOpened)
        outcomes = await session.generate_all([f"fox {number}" for number in range(20)])
    uncertain = [outcome for outcome in outcomes if isinstance(outcome.error, SubmissionUncertain)]
    trials = len(opened) - 1
    assert len(uncertain) == 3 + trials
    assert 1 <= trials < 10, "the pause doubles"
    assert emulator.ledger.accepted == len(uncertain)
    assert all(isinstance(outcome.error, SubmissionUncertain | GatewayOutage) for outcome in outcomes)


async def open_circuit_while_a_request_is_recorded(
    session: KontextSession, store: UnreliableStore, emulator: Emulator
) -> asyncio.Task[Generation]:
    """Let a request wait in the store until the response to another one is lost, and let it go on."""
    fox = asyncio.create_task(session.generate("a fox"))
    await until(lambda: emulator.ledger.accepted)
    gate = store.gates["plan"] = asyncio.Event()
    bear = asyncio.create_task(session.generate("a bear", key="bear"))
    planned = store.calls["plan"]
    await until(lambda: store.calls["plan"] > planned)
    with pytest.raises(SubmissionUncertain):
        await fox
    assert session.statistics().circuit == "open"
    gate.set()
    return bear


def lose_first_response(emulator: Emulator, **outages: Any) -> Settings:
    """Return settings of a session whose first request opens the circuit after a moment."""
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=2.0)])
    settings = with_outages(uncertain_limit=1, **outages)
    settings = attrs.evolve(settings, retries=attrs.evolve(settings.retries, attempts=1))
    return attrs.evolve(settings, timeouts=attrs.evolve(settings.timeouts, submit=0.3))


async def test_a_request_that_the_store_records_while_the_circuit_opens_is_stopped(emulator: Emulator) -> None:
    store = UnreliableStore()
    settings = lose_first_response(emulator, wait=0.2, probe_initial=60.0, probe_max=60.0)
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, store=store) as session:
        recorded = await open_circuit_while_a_request_is_recorded(session, store, emulator)
        with pytest.raises(GatewayOutage) as caught:
            await recorded
        assert caught.value.may_be_charged is False
    assert count_creates(emulator) == 1
    assert [row.state for row in store.database.rows.values()] == [State.UNCERTAIN, State.PLANNED]


async def test_a_request_that_was_stopped_is_sent_once_the_circuit_closes(emulator: Emulator) -> None:
    store = UnreliableStore()
    settings = lose_first_response(emulator, probe_initial=0.05)
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, store=store) as session:
        recorded = await open_circuit_while_a_request_is_recorded(session, store, emulator)
        assert (await recorded).images
    assert emulator.ledger.accepted == 2
    assert not emulator.ledger.billed_twice


async def test_an_outage_soon_after_another_one_gets_its_whole_pause(emulator: Emulator) -> None:
    """A late response ends the first outage; the pause of the first must not end the second one early."""
    pause = 0.3
    settings = with_outages(uncertain_limit=1, probe_initial=pause, probe_max=10.0)
    emulator.faults.script(
        "create",
        [
            Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.1),
            FaultKind.CUT_AFTER_ACCEPT,
            FaultKind.CUT_AFTER_ACCEPT,
        ],
    )
    async with new_session(emulator, settings) as session:
        late = asyncio.create_task(session.submit("a fox"))
        await until(lambda: count_creates(emulator) == 1)
        with pytest.raises(SubmissionUncertain):
            await session.submit("a hare")
        assert session.statistics().circuit == "open"
        await late
        assert session.statistics().circuit == "closed"
        with pytest.raises(SubmissionUncertain):
            await session.submit("an owl")
        opened = asyncio.get_running_loop().time()
        assert await session.wait_for_recovery(10)
        assert asyncio.get_running_loop().time() - opened >= 0.9 * pause


async def test_a_failed_free_probe_sends_no_create_request(emulator: Emulator) -> None:
    emulator.faults.set_rate(FaultKind.BAD_GATEWAY, 1.0)
    settings = with_outages(wait=0.3, uncertain_limit=2)
    settings = attrs.evolve(settings, limits=attrs.evolve(FAST.limits, max_in_flight=1))
    async with new_session(emulator, settings) as session:
        outcomes = await session.generate_all(["a fox"] * 10)
    assert sum(isinstance(outcome.error, SubmissionUncertain) for outcome in outcomes) == 2
    assert sum(isinstance(outcome.error, GatewayOutage) for outcome in outcomes) == 8


async def test_polling_and_downloads_continue_while_the_balance_is_too_low(emulator: Emulator) -> None:
    emulator.balance = None
    async with new_session(emulator) as session:
        task = await session.submit("a fox")
        emulator.faults.script("create", [FaultKind.BALANCE_TOO_LOW])
        with pytest.raises(PermissionDenied):
            await session.generate("a hare")
        creates = count_creates(emulator)
        with pytest.raises(PermissionDenied, match="not sent"):
            await session.generate("an owl")
        assert count_creates(emulator) == creates
        fox = await task.wait()
        assert await session.read(fox.image)
        await until(lambda: session.statistics().circuit == "half_open")
        assert (await session.generate("an owl")).usage.cost == Decimal("0.04")
        assert session.statistics().circuit == "closed"


async def test_another_refusal_does_not_stop_submitting(emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.FORBIDDEN] * 3)
    async with new_session(emulator) as session:
        for _ in range(3):
            with pytest.raises(PermissionDenied):
                await session.generate("a fox")
        assert (await session.generate("a fox")).images


async def test_a_refused_key_is_confirmed_and_stops_the_session(emulator: Emulator) -> None:
    async with KontextSession("wrong-key", base_url=emulator.base_url, settings=FAST) as session:
        with pytest.raises(AuthenticationFailed):
            await session.generate("a fox")
        sent = len(emulator.requests)
        with pytest.raises(AuthenticationFailed, match="not sent"):
            await session.generate("a fox")
        with pytest.raises(AuthenticationFailed):
            await session.wait_for_recovery(1)
        assert len(emulator.requests) == sent
        assert session.statistics().circuit == "stopped"


async def test_one_odd_401_on_a_create_request_is_sent_again(emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.UNAUTHORIZED])
    async with new_session(emulator) as session:
        assert (await session.generate("a fox")).images
    assert emulator.ledger.billed == 1


async def test_one_odd_401_on_a_poll_fails_nobody(emulator: Emulator) -> None:
    emulator.faults.script("status", [FaultKind.UNAUTHORIZED] * 3)
    async with new_session(emulator) as session:
        outcomes = await session.generate_all(["a fox"] * 5)
    assert all(outcome.ok for outcome in outcomes)


async def test_a_key_that_is_refused_while_polling_fails_every_waiter(emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS] * 5)
    async with new_session(emulator) as session:
        tasks = [await session.submit("a fox") for _ in range(5)]
        emulator.faults.set_rate(FaultKind.UNAUTHORIZED, 1.0)
        results = await asyncio.gather(*(task.wait() for task in tasks), return_exceptions=True)
        assert [type(result) for result in results] == [AuthenticationFailed] * 5
        assert {getattr(result, "task_id", None) for result in results} == {task.id for task in tasks}


@pytest.mark.parametrize("operation", ["create", "status"])
async def test_a_proxys_403_page_is_transient(emulator: Emulator, operation: str) -> None:
    emulator.faults.script(operation, [PAGE, PAGE])
    async with new_session(emulator) as session:
        assert (await session.generate("a fox")).images
    assert emulator.ledger.billed == 1


async def test_closing_the_session_ends_the_wait_for_the_end_of_an_outage(
    forwarder: Forwarder, emulator: Emulator
) -> None:
    await forwarder.stop()
    session = KontextSession(emulator.api_key, base_url=forwarder.url, settings=with_outages(wait=60.0))
    async with session:
        waiting = asyncio.create_task(session.generate("a fox"))
        await until(lambda: session.statistics().circuit == "open")
        recovery = asyncio.create_task(session.wait_for_recovery())
        assert not await session.wait_for_recovery(0.01)
    for each in (waiting, recovery):
        with pytest.raises(SessionClosed):
            await each


async def test_equal_ids_end_together(emulator: Emulator) -> None:
    """A gateway may return one task for equal prompts: every waiter gets its end, and every slot is released."""
    emulator.faults.set_rate(FaultKind.REPEATED_ID, 1.0)
    async with new_session(emulator) as session:
        outcomes = await asyncio.wait_for(session.generate_all(["a fox"] * 3), 10)
        assert all(outcome.ok for outcome in outcomes)
        assert session.statistics().in_flight == session.statistics().pending == 0
        assert session.statistics().spent == Decimal("0.04")


def test_the_settings_of_outages_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="probe_initial"):
        Outages(probe_initial=100.0)
