"""Interruptions while the connection for a create request is still being made: nothing was sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import attrs
import pytest
from session_support import events_of, raw_server, until

from kontext_async import GatewayUnavailable, KontextSession, SessionClosed, SubmissionUncertain, Timeouts
from kontext_async.events import Abandoned, Event, Failed, Submitting
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

PATIENT = attrs.evolve(FAST, timeouts=Timeouts(connect=30.0, cancel=5.0))


async def never_respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept the TCP connection, and never take part in the TLS handshake."""
    try:
        await asyncio.sleep(60)
    finally:
        writer.transport.abort()


@pytest.fixture
async def address(anyio_backend: str) -> AsyncIterator[str]:
    """The address of a server with which a TLS handshake never ends."""
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        await never_respond(reader, writer)

    async with raw_server(handle) as plain:
        yield plain.replace("http://", "https://")
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@pytest.fixture
async def session(address: str) -> AsyncIterator[KontextSession]:
    async with KontextSession("key", base_url=address, settings=PATIENT) as running:
        yield running


async def test_a_deadline_says_that_nothing_was_sent(session: KontextSession, events: list[Event]) -> None:
    with pytest.raises(GatewayUnavailable) as caught:
        await session.generate("a fox", timeout=0.2)
    assert not isinstance(caught.value, SubmissionUncertain)
    assert not caught.value.may_be_charged
    assert session.statistics().uncertain == 0
    assert session.statistics().in_flight == 0
    assert not events_of(Abandoned, events)


async def test_a_cancelled_caller_leaves_nothing_uncertain(session: KontextSession, events: list[Event]) -> None:
    request = asyncio.create_task(session.generate("a fox"))
    await until(lambda: events_of(Submitting, events))
    await asyncio.sleep(0.05)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(request, 2)
    assert session.statistics().uncertain == 0
    assert session.statistics().in_flight == 0
    assert not events_of(Abandoned, events)
    (failed,) = events_of(Failed, events)
    assert "before the request was sent" in str(failed.error)


async def test_closing_the_session_calls_the_attempt_off(address: str) -> None:
    events: list[Event] = []
    session = KontextSession("key", base_url=address, settings=PATIENT)
    session.subscribe(events.append)
    async with session:
        request = asyncio.create_task(session.generate("a fox"))
        await until(lambda: events_of(Submitting, events))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(session.aclose(), 2)
    with pytest.raises(SessionClosed):
        await request
    assert session.statistics().uncertain == 0
