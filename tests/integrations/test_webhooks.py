"""The handlers of webhooks under real servers, with the deliveries of the emulator.

The session's clock stands still, so that no poll but one after a delivery comes by itself.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import pytest
from gateway_sessions import new_emulator
from session_support import turn_loop, until
from webhook_support import SECRET, SERVERS, connect_with_webhook, count_polls, serve_webhooks

from kontext_async.emulator import Fault, FaultKind
from kontext_async.integrations.webhooks import MAX_DELIVERY_BYTES
from kontext_async.models import TaskState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from webhook_support import WebhookServer

    from kontext_async import KontextSession
    from kontext_async.emulator import Emulator
    from kontext_async.testing import ManualClock

pytestmark = pytest.mark.anyio

LONG = 3600.0


def sign(body: bytes) -> str:
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


async def deliver(receiver: WebhookServer, body: bytes, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as client,
        client.post(receiver.url, data=io.BytesIO(body), headers=named) as response,
    ):
        return response.status


@pytest.fixture(params=SERVERS)
async def receiver(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[WebhookServer]:
    async with serve_webhooks(request.param) as receiver:
        yield receiver


@pytest.fixture
async def emulator(anyio_backend: str) -> AsyncIterator[Emulator]:
    async with new_emulator(service_time=0.05) as emulator:
        yield emulator


@pytest.fixture
async def session(emulator: Emulator, receiver: WebhookServer, clock: ManualClock) -> AsyncIterator[KontextSession]:
    async with connect_with_webhook(emulator, receiver.webhook, clock=clock) as session:
        receiver.session = session
        yield session


class TestTheGatewaysDeliveries:
    async def test_every_form_and_shape_has_its_task_polled(
        self, session: KontextSession, emulator: Emulator, receiver: WebhookServer
    ) -> None:
        """The emulator sends both forms of the secret and both shapes of the body in turn."""
        for number in range(1, 5):
            fox = await session.generate("a fox")
            assert fox.task_id == emulator.ledger.task_ids[-1]
            assert count_polls(emulator) == number
        assert receiver.statuses == [204] * 4
        assert emulator.ledger.billed == 4

    async def test_a_failure_is_polled_too(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.TASK_FAILS, message="out of memory")])
        [outcome] = await session.generate_all(["a fox"])
        assert "out of memory" in str(outcome.error)

    async def test_one_that_comes_twice_polls_once(
        self, session: KontextSession, emulator: Emulator, receiver: WebhookServer
    ) -> None:
        emulator.faults.script("webhook", [FaultKind.WEBHOOK_TWICE])
        await session.generate("a fox")
        await until(lambda: len(receiver.statuses) == 2)
        await turn_loop(20)
        assert receiver.statuses == [204, 204]
        assert count_polls(emulator) == emulator.ledger.billed == 1

    async def test_one_that_is_lost_costs_a_later_poll(
        self, session: KontextSession, emulator: Emulator, receiver: WebhookServer, clock: ManualClock
    ) -> None:
        emulator.faults.script("webhook", [FaultKind.WEBHOOK_LOST])
        task = await session.submit("a fox")
        await until(lambda: not emulator.faults.waiting("webhook"))
        assert count_polls(emulator) == 0
        clock.advance(1)
        assert (await task.wait()).images
        assert receiver.statuses == []

    async def test_one_that_is_late_changes_nothing(
        self, session: KontextSession, emulator: Emulator, receiver: WebhookServer, clock: ManualClock
    ) -> None:
        emulator.faults.script("webhook", [Fault(kind=FaultKind.WEBHOOK_LATE, seconds=0.2)])
        task = await session.submit("a fox")
        await until(lambda: not emulator.faults.waiting("webhook"))
        clock.advance(1)
        assert (await task.wait()).images
        polls = count_polls(emulator)
        await until(lambda: receiver.statuses)
        await turn_loop(20)
        assert receiver.statuses == [204]
        assert count_polls(emulator) == polls

    @pytest.mark.parametrize("variant", ["secret", "signature", "neither"])
    async def test_one_that_is_forged_is_refused_and_polls_nothing(
        self,
        session: KontextSession,
        emulator: Emulator,
        receiver: WebhookServer,
        clock: ManualClock,
        variant: str,
    ) -> None:
        emulator.faults.script("webhook", [Fault(kind=FaultKind.WEBHOOK_FORGED, variant=variant)])
        task = await session.submit("a fox")
        await until(lambda: receiver.statuses)
        await turn_loop(20)
        assert receiver.statuses == [401]
        assert count_polls(emulator) == 0
        clock.advance(1)
        assert (await task.wait()).images


class TestOtherDeliveries:
    async def test_one_that_lies_is_not_believed(
        self, session: KontextSession, emulator: Emulator, receiver: WebhookServer
    ) -> None:
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        task = await session.submit("a fox")
        body = json.dumps({"id": task.id, "status": "Ready", "result": {"sample": "https://evil.example/"}}).encode()
        for number in (1, 2):
            assert await deliver(receiver, body, X_Webhook_Secret=SECRET) == 204
            await until(partial(_is_polled, session, emulator, number))
        assert task.last_status
        assert task.last_status.state is not TaskState.COMPLETED
        assert session.statistics().pending == 1

    @pytest.mark.parametrize("task_id", ["b9b172a8-e39c-47b2-8f1a-cb8925f3532e", "../credits", 7, None])
    async def test_one_about_no_task_of_the_session_is_taken_and_sends_nothing(
        self, session: KontextSession, emulator: Emulator, receiver: WebhookServer, task_id: object
    ) -> None:
        body = json.dumps({"id": task_id, "status": "Ready"}).encode()
        assert await deliver(receiver, body, X_BFL_Signature=sign(body)) == 204
        await turn_loop(20)
        assert not emulator.requests
        assert session.statistics().pending == 0

    async def test_one_with_neither_form_of_the_secret_is_refused(
        self, session: KontextSession, receiver: WebhookServer
    ) -> None:
        body = b'{"id": "task-1"}'
        for headers in ({}, {"X_Webhook_Secret": "guess"}, {"X_BFL_Signature": sign(b"{}")}, {"Authorization": SECRET}):
            assert await deliver(receiver, body, **headers) == 401
        assert not session.is_closed

    async def test_one_that_is_too_large_is_refused_unread(
        self, session: KontextSession, receiver: WebhookServer
    ) -> None:
        assert await deliver(receiver, bytes(MAX_DELIVERY_BYTES + 1), X_Webhook_Secret=SECRET) == 413
        assert not session.is_closed


def _is_polled(session: KontextSession, emulator: Emulator, times: int) -> bool:
    return count_polls(emulator) == times and not session.statistics().polls_in_flight
