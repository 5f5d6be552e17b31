"""Webhooks of a session: what is sent, what is refused before anything is sent, and what a delivery does."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from gateway_sessions import base_url_of, connect, new_emulator
from gateways_support import ID
from http_support import Request, http_response, scripted_server
from session_support import events_of, run_with_clock, turn_loop, until
from webhook_support import SECRET, connect_with_webhook, count_polls

from kontext_async import ConfigurationError, KontextSession, RequestRejected, SessionClosed, Webhook
from kontext_async.bulk import BulkRun
from kontext_async.events import Accepted, Event, Failed, StatusReceived
from kontext_async.gateways import GATEWAYS
from kontext_async.models import TaskState
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kontext_async.emulator import Emulator
    from kontext_async.testing import ManualClock

pytestmark = pytest.mark.anyio

HOOK = Webhook(url="https://me.example/webhooks/bfl?tenant=1", secret=SECRET)
OTHER = Webhook(url="https://other.example/")
HEADERS = {"x-webhook-secret": SECRET}


def body_about(task_id: str) -> bytes:
    return json.dumps({"id": task_id, "status": "Ready"}).encode()


@pytest.fixture
async def emulator(anyio_backend: str) -> AsyncIterator[Emulator]:
    async with new_emulator() as emulator:
        yield emulator


class TestSent:
    """Where a webhook comes from, seen in the create requests."""

    @pytest.fixture
    async def requests(self) -> list[Request]:
        return []

    @pytest.fixture
    async def base_url(self, requests: list[Request]) -> AsyncIterator[str]:
        def respond(request: Request) -> bytes:
            if request.method == "GET":
                failed = {"id": request.target.rpartition("=")[2], "status": "Error", "details": "no"}
                return http_response(json.dumps(failed).encode())
            requests.append(request)
            return http_response(json.dumps({"id": f"{ID}-{len(requests)}", "status": "Pending"}).encode())

        async with scripted_server(respond) as server:
            yield server.url

    @staticmethod
    def connect(base_url: str, webhook: Webhook | None = HOOK, **options: Any) -> KontextSession:
        given = {"settings": FAST, "single_cluster": True, "webhook": webhook, **options}
        return KontextSession("key", base_url=base_url, gateway="bfl", **given)

    @staticmethod
    def hooks(requests: list[Request]) -> list[tuple[str | None, str | None]]:
        bodies = [json.loads(request.body) for request in requests]
        return [(body.get("webhook_url"), body.get("webhook_secret")) for body in bodies]

    async def test_the_webhook_of_the_session_is_in_every_create_request(
        self, base_url: str, requests: list[Request], tmp_path: Path
    ) -> None:
        async with self.connect(base_url) as session:
            await session.submit("a fox")
            await session.submit({"prompt": "a wolf", "seed": 7})
            async for _ in session.generate_many(["a hare"]):
                pass
            await BulkRun(session, tmp_path).execute(["a bear"])
        assert self.hooks(requests) == [(HOOK.url, SECRET)] * 4

    async def test_a_call_replaces_it_or_leaves_it_out(self, base_url: str, requests: list[Request]) -> None:
        async with self.connect(base_url) as session:
            await session.submit("a fox", webhook=OTHER)
            await session.submit("a fox", webhook=None)
        async with self.connect(base_url, None) as session:
            await session.submit("a fox", webhook=HOOK, seed=7)
            await session.submit("a fox")
        assert self.hooks(requests) == [(OTHER.url, None), (None, None), (HOOK.url, SECRET), (None, None)]

    async def test_a_store_sends_it_and_never_has_it(
        self, base_url: str, requests: list[Request], tmp_path: Path
    ) -> None:
        store = f"sqlite:///{tmp_path}/paid.db"
        async with self.connect(base_url, store=store) as session:
            await session.submit("a fox", key="job-1")
            await session.submit("a wolf", key="job-2", webhook=OTHER)
            await session.submit("a hare")
            async for _ in session.generate_many(["a bear"]):
                pass
        assert self.hooks(requests) == [(HOOK.url, SECRET), (OTHER.url, None), (HOOK.url, SECRET), (HOOK.url, SECRET)]
        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"job-1" in stored
        assert SECRET.encode() not in stored
        assert b"me.example" not in stored

    async def test_the_secret_is_in_no_text(self) -> None:
        def refuse(request: Request) -> bytes:
            detail = [{"loc": ["body", "prompt"], "msg": f"not {SECRET}", "input": json.loads(request.body)}]
            return http_response(json.dumps({"detail": detail}).encode(), status="422 Unprocessable Entity")

        events: list[Event] = []
        async with scripted_server(refuse) as server, self.connect(server.url) as session:
            session.subscribe(events.append)
            with pytest.raises(RequestRejected, match="not ") as caught:
                await session.submit("a fox")
        [failed] = events_of(Failed, events)
        for text in (str(caught.value), repr(caught.value), str(caught.value.body), repr(failed), repr(HOOK)):
            assert SECRET not in text


class TestRefusedBeforeAnythingIsSent:
    def test_a_session_without_a_single_cluster(self) -> None:
        with pytest.raises(ConfigurationError, match="single_cluster=True"):
            KontextSession("key", gateway="bfl", webhook=HOOK)

    @pytest.mark.parametrize("name", [name for name in GATEWAYS if name != "bfl"])
    def test_a_gateway_without_webhooks(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match=f"{name} has no webhooks"):
            KontextSession("key", gateway=name, webhook=HOOK)

    @pytest.mark.parametrize("given", ["https://me.example/", {"url": "https://me.example/"}, 7])
    def test_another_value(self, given: Any) -> None:
        with pytest.raises(ConfigurationError, match="it must be a Webhook"):
            KontextSession("key", gateway="bfl", single_cluster=True, webhook=given)

    @pytest.mark.parametrize("url", ["", "http://me.example/", "me.example", "https://user:pass@me.example/"])
    def test_an_address_that_is_not_https(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="must be https") as caught:
            KontextSession("key", gateway="bfl", single_cluster=True, webhook=Webhook(url=url))
        assert "pass" not in str(caught.value)

    @pytest.mark.parametrize("secret", ["", "a b", "schlüssel", "a\r\nb", 7, b"secret"])
    def test_a_secret_that_no_header_can_have(self, secret: Any) -> None:
        with pytest.raises(ConfigurationError, match="visible ASCII"):
            Webhook(url="https://me.example/", secret=secret)

    async def test_a_call(self, emulator: Emulator) -> None:
        for name in GATEWAYS:
            async with connect(name, emulator) as session:
                with pytest.raises(ConfigurationError, match="webhook"):
                    await session.generate("a fox", webhook=HOOK)
        assert base_url_of("bfl", emulator) == emulator.base_url
        assert not emulator.requests


class TestDeliveries:
    async def test_a_delivery_polls_its_task_alone(self, emulator: Emulator, clock: ManualClock) -> None:
        async with connect_with_webhook(emulator, HOOK, clock=clock) as session:
            fox, wolf = await session.submit("a fox"), await session.submit("a wolf")
            await asyncio.sleep(0.05)
            assert session.receive_webhook(HEADERS, body_about(fox.id))
            assert (await fox.wait()).task_id == fox.id
            assert count_polls(emulator) == 1
            assert wolf.last_status
            assert not wolf.last_status.state.is_terminal

    async def test_a_poll_in_flight_is_repeated_because_it_may_be_older_than_the_delivery(
        self, clock: ManualClock
    ) -> None:
        """The first poll says that the task is not finished, and its response arrives after the delivery."""
        polls = 0
        session: KontextSession
        delivered: list[bool] = []

        def respond(request: Request) -> bytes:
            nonlocal polls
            if request.method == "POST":
                return http_response(json.dumps({"id": ID, "status": "Pending"}).encode())
            polls += 1
            if polls == 1:
                delivered.extend(session.receive_webhook(HEADERS, body_about(ID)) for _ in range(2))
                return http_response(json.dumps({"id": ID, "status": "Pending"}).encode())
            done = {"id": ID, "status": "Ready", "result": {"sample": "https://x.example/"}}
            return http_response(json.dumps(done).encode())

        async with (
            scripted_server(respond) as server,
            KontextSession(
                "key", base_url=server.url, gateway="bfl", single_cluster=True, webhook=HOOK, settings=FAST, clock=clock
            ) as session,
        ):
            task = await session.submit("a fox")
            events: list[Event] = []
            session.subscribe(events.append)
            clock.advance(1)
            assert (await run_with_clock(task.wait(), clock, session)).task_id == ID
        assert clock.time() - 1 < FAST.polling.min_interval, "it did not wait for its turn"
        assert delivered == [True, True]
        assert polls == 2
        states = [event.status.state for event in events_of(StatusReceived, events)]
        assert states == [TaskState.IN_PROGRESS, TaskState.COMPLETED]

    async def test_a_delivery_about_a_task_that_is_gone_sends_nothing(
        self, emulator: Emulator, clock: ManualClock
    ) -> None:
        async with connect_with_webhook(emulator, HOOK, clock=clock) as session:
            task = await session.submit("a fox")
            await asyncio.sleep(0.05)
            await task.status()
            polls = count_polls(emulator)
            assert session.receive_webhook(HEADERS, body_about(task.id))
            assert session.receive_webhook(HEADERS, b"<html>")
            await turn_loop(20)
            assert count_polls(emulator) == polls

    async def test_a_secret_of_a_call_is_given_with_its_delivery(self, emulator: Emulator, clock: ManualClock) -> None:
        events: list[Event] = []
        async with connect_with_webhook(emulator, None, clock=clock) as session:
            session.subscribe(events.append)
            body = body_about("task-1")
            assert session.receive_webhook({"X-Webhook-Secret": "other"}, body, secret="other")
            assert not session.receive_webhook(HEADERS, body, secret="other")
            with pytest.raises(ConfigurationError, match="no secret"):
                session.receive_webhook(HEADERS, body)
        assert not events_of(Accepted, events)

    async def test_a_session_that_is_closed_does_not_take_it(self, emulator: Emulator) -> None:
        async with connect_with_webhook(emulator, HOOK) as session:
            pass
        with pytest.raises(SessionClosed):
            session.receive_webhook(HEADERS, body_about(ID))
        assert not session.receive_webhook({}, body_about(ID))

    @pytest.mark.parametrize("name", [name for name in GATEWAYS if name != "bfl"])
    async def test_a_gateway_without_webhooks_has_no_deliveries(self, name: str, emulator: Emulator) -> None:
        async with connect(name, emulator) as session:
            with pytest.raises(ConfigurationError, match="no webhooks"):
                session.receive_webhook(HEADERS, body_about(ID), secret=SECRET)

    async def test_many_deliveries_cost_one_poll_and_one_after_it(self, emulator: Emulator, clock: ManualClock) -> None:
        async with connect_with_webhook(emulator, HOOK, clock=clock) as session:
            emulator.faults.script("create", ["task-hangs"])
            task = await session.submit("a fox")
            for _ in range(100):
                session.receive_webhook(HEADERS, body_about(task.id))
            await until(lambda: count_polls(emulator) == 2 and not session.statistics().polls_in_flight)
            await turn_loop(20)
            assert count_polls(emulator) == 2
