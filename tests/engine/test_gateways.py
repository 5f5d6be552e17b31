"""The engine on every gateway, against the emulator: polls, results, redirects, downloads, prices and cancellations."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from attrs import define, evolve
from http_support import Request, http_response, scripted_server
from session_support import decode_format, events_of

from kontext_async.cancellation import Cancellation
from kontext_async.emulator import Emulator, Fault
from kontext_async.engine.clock import LoopClock
from kontext_async.engine.engine import Engine
from kontext_async.engine.task_record import TaskRecord
from kontext_async.errors import (
    DownloadFailed,
    InvalidRequest,
    KontextError,
    RequestRejected,
    TaskFailed,
    TaskModerated,
    TaskNotFound,
)
from kontext_async.events import Retrying, StatusReceived
from kontext_async.gateways import GATEWAYS, Acceptance, GatewayOptions, Reference, find_reference, make_gateway
from kontext_async.models import Generation, KontextRequest, Usage
from kontext_async.session.task import GenerationTask
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.events import Event
    from kontext_async.gateways import GatewayRequest
    from kontext_async.protocol.http import Response
    from kontext_async.settings import Retries

pytestmark = pytest.mark.anyio

FOX = KontextRequest("a red fox", seed=7)


@define
class Client:
    """An engine on one gateway of an emulator."""

    emulator: Emulator
    engine: Engine
    events: list[Event]

    async def create(self, request: KontextRequest = FOX) -> Acceptance:
        """Send a create request, and read the response."""
        gateway, transport = self.engine.gateway, self.engine.transport
        sent = gateway.create(request, ())
        response = await transport.create(sent, self.engine._uploads.upload(sent.body))
        if not response.ok:
            raise transport.read_refusal(response)
        return gateway.read_created(response, model=request.model)

    async def exchange(self, request: GatewayRequest) -> Response:
        return await self.engine.transport.exchange(request, self.engine._uploads.upload(request.body))

    def track(self, reference: Reference, price: Usage | None = None) -> TaskRecord:
        """Poll a task until it ends."""
        now = self.engine.clock.time()
        record = TaskRecord(reference.task_id, now, reference=reference, price=price)
        record.retain_status()
        return self.engine.poll_loop.track(record)

    async def generate(self) -> Generation | KontextError:
        accepted = await self.create()
        return await self.track(accepted.reference, accepted.status.usage).wait()

    async def complete(self) -> Generation:
        generation = await self.generate()
        assert isinstance(generation, Generation), generation
        return generation


@asynccontextmanager
async def connect(
    name: str, *, retries: Retries = FAST.retries, trusted: bool = True, **options: Any
) -> AsyncIterator[Client]:
    """Run an emulator, and an engine that speaks the dialect of a gateway with it."""
    async with Emulator(**{"service_time": 0.02, "pixels": 64 * 64, **options}) as emulator:
        assert emulator.api_key is not None
        base = emulator.fireworks_url if name == "fireworks" else emulator.base_url
        hosts = [urlsplit(url).netloc for url in emulator.region_urls]
        own = GatewayOptions(trusted_hosts=tuple(hosts)) if name == "bfl" and trusted else GatewayOptions()
        gateway = make_gateway(name, emulator.api_key, base, own)
        engine = Engine(gateway, emulator.api_key, evolve(FAST, retries=retries), None, LoopClock())
        await engine.start()
        events: list[Event] = []
        engine.hub.subscribe(events.append)
        try:
            yield Client(emulator, engine, events)
        finally:
            await engine.aclose()


@pytest.fixture(params=list(GATEWAYS))
async def client(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Client]:
    async with connect(request.param) as client:
        yield client


class TestEveryGateway:
    async def test_a_task_runs_from_create_request_to_image(self, client: Client) -> None:
        generation = await client.complete()
        assert decode_format(await client.engine.downloader.read(generation.image)) == "JPEG"
        assert client.emulator.ledger.billed == 1
        if client.engine.gateway.name != "fireworks":
            assert client.emulator.ledger.spent == (generation.usage.cost or Decimal("0.04"))

    async def test_the_seed_that_was_used_is_in_the_metadata(self, client: Client) -> None:
        assert (await client.complete()).metadata["seed"] == 7

    async def test_a_failed_task_has_its_reason(self, client: Client) -> None:
        client.emulator.faults.script("create", [Fault(kind="task-fails", message="out of memory")])
        error = await client.generate()
        assert type(error) is TaskFailed
        assert "out of memory" in error.message

    async def test_the_key_goes_to_the_gateway_alone(self, client: Client) -> None:
        generation = await client.complete()
        await client.engine.downloader.read(generation.image)
        key = client.emulator.api_key
        with_key = {
            each.origin
            for each in client.emulator.requests
            if any(str(key) in value for value in each.headers.values())
        }
        assert with_key == {"api"}
        assert {each.origin for each in client.emulator.requests} == {"api", "files"}

    async def test_the_last_status_is_retained(self, client: Client) -> None:
        client.emulator.faults.script("create", ["task-hangs"])
        accepted = await client.create()
        record = client.track(accepted.reference)
        task = GenerationTask(client.engine, record)
        async for status in task.updates():
            assert status == task.last_status
            assert status.task_id == accepted.reference.task_id
            break
        assert (await task.status()).task_id == accepted.reference.task_id
        assert task.reference == accepted.reference
        assert events_of(StatusReceived, client.events)

    async def test_a_task_is_found_by_the_text_of_its_reference(self, client: Client) -> None:
        accepted = await client.create()
        reference = find_reference(client.engine.gateway, str(accepted.reference))
        result = await client.track(reference).wait()
        assert isinstance(result, Generation)
        assert result.task_id == accepted.reference.task_id

    async def test_a_poll_that_fails_for_a_while_is_repeated(self, client: Client) -> None:
        client.emulator.faults.script("status", ["bad-gateway", "html-page", "empty-body", "truncated-json"])
        await client.complete()
        assert len(events_of(Retrying, client.events)) >= 4

    async def test_a_task_that_is_not_known_yet_has_some_grace(self, client: Client) -> None:
        client.emulator.faults.script("create", [Fault(kind="task-late", seconds=0.1)])
        await client.complete()

    async def test_a_task_that_is_gone_is_not_found(self, client: Client) -> None:
        client.emulator.faults.script("create", [Fault(kind="task-vanishes", seconds=0)])
        assert isinstance(await client.generate(), TaskNotFound)

    async def test_an_image_whose_url_expired_gets_a_fresh_one(self, client: Client) -> None:
        generation = await client.complete()
        client.emulator.faults.script("download", ["url-expired"])
        assert await client.engine.downloader.read(generation.image)

    async def test_a_price_is_known_or_has_a_reason(self, client: Client) -> None:
        estimate = await client.engine.estimator.estimate(FOX)
        expected = None if client.engine.gateway.name == "fireworks" else Decimal("0.04")
        assert estimate.cost == expected
        assert (estimate.reason is None) is (expected is not None)
        assert not client.emulator.ledger.entries

    async def test_the_probe_passes_and_finds_a_wrong_key(self, client: Client) -> None:
        assert await client.engine.gate._probe() is None
        client.emulator.api_key = "another"
        client.emulator._state.api_key = "another"
        assert await client.engine.gate._probe() is not None

    async def test_polls_are_logged_without_their_queries(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG, "kontext_async"):
            await client.complete()
        assert [each for each in caplog.messages if each.startswith("status request")]
        assert "?" not in caplog.text.replace("?)", "")
        assert str(client.emulator.api_key) not in caplog.text


@pytest.mark.parametrize("name", ["vtrix", "vtrix-queue", "bfl"])
async def test_the_balance_is_in_dollars(name: str) -> None:
    async with connect(name, balance="1.25") as client:
        gateway = client.engine.gateway
        response = await client.exchange(gateway.balance())
        assert gateway.read_balance(response) == Decimal("1.25")


@pytest.mark.parametrize("name", ["vtrix-queue", "bfl"])
async def test_a_create_response_that_breaks_off_after_the_id_is_accepted(name: str) -> None:
    async with connect(name) as client:
        for fault in ("cut-address", "short-body"):
            client.emulator.faults.script("create", [fault])
            assert isinstance(await client.generate(), Generation)
        assert client.emulator.ledger.billed == 2


class TestQueue:
    @pytest.mark.parametrize("variant", ["status", "error"])
    async def test_a_result_may_say_that_the_task_failed(self, variant: str) -> None:
        async with connect("vtrix-queue", service_time=0) as client:
            client.emulator.faults.script("status", [None, Fault(kind="failed-result", variant=variant)])
            error = await client.generate()
            assert isinstance(error, TaskFailed)
            assert error.message == "the worker died"

    async def test_a_result_in_the_status_needs_no_further_request(self) -> None:
        async with connect("vtrix-queue", service_time=0) as client:
            client.emulator.faults.script("status", ["result-in-status"])
            await client.complete()
            assert [each.path.rpartition("/")[2] for each in client.emulator.requests if each.method == "GET"] == [
                "status"
            ]

    @pytest.mark.parametrize("variant", ["missing", "relative", "elsewhere", "user", "script"])
    async def test_odd_addresses_lead_to_the_base_url(self, variant: str) -> None:
        async with connect("vtrix-queue") as client:
            client.emulator.faults.script("create", [Fault(kind="odd-address", variant=variant)])
            await client.complete()

    async def test_a_cancelled_task_ends_in_time(self) -> None:
        async with connect("vtrix-queue", service_time=100) as client:
            accepted = await client.create()
            record = client.track(accepted.reference)
            assert await self.cancel(client, accepted.reference) is Cancellation.IN_TIME
            error = record.copy_result() or await record.wait()
            assert isinstance(error, TaskFailed)
            assert error.code == "CANCELLED"

    async def test_a_task_that_has_ended_is_cancelled_too_late(self) -> None:
        async with connect("vtrix-queue", service_time=0) as client:
            accepted = await client.create()
            assert await self.cancel(client, accepted.reference) is Cancellation.TOO_LATE

    async def cancel(self, client: Client, reference: Reference) -> Cancellation:
        gateway = client.engine.gateway
        gateway.read_cancelled(await client.exchange(gateway.cancel(reference)))
        return gateway.judge_cancellation(await client.engine.poll_loop.fetch_status(reference))


class TestBfl:
    async def test_tasks_are_polled_in_the_region_that_has_them(self) -> None:
        async with connect("bfl", regions=3) as client:
            for _ in range(4):
                await client.complete()
            polls = [each.headers["Host"] for each in client.emulator.requests if each.path == "/v1/get_result"]
            assert set(polls) == {urlsplit(url).netloc for url in client.emulator.region_urls}
            assert not events_of(Retrying, client.events)

    @pytest.mark.parametrize("stage", ["request", "content"])
    async def test_a_moderated_task_costs_nothing(self, stage: str) -> None:
        async with connect("bfl") as client:
            fault = Fault(kind="task-moderated", variant=stage, message="Violence")
            client.emulator.faults.script("create", [fault])
            error = await client.generate()
            assert type(error) is TaskModerated
            assert "Violence" in error.message
            assert error.code == f"{stage.capitalize()} Moderated"
            assert not error.may_be_charged
            assert not error.retryable
            assert client.emulator.ledger.spent == 0

    @pytest.mark.parametrize(
        ("cost_at", "cost"),
        [("create", Decimal("0.04")), ("result", Decimal("0.04")), ("both", Decimal("0.04")), ("never", None)],
    )
    async def test_the_cost_is_that_of_the_result_or_else_of_the_create_request(
        self, cost_at: str, cost: Decimal | None
    ) -> None:
        async with connect("bfl", cost_at=cost_at) as client:
            assert (await client.complete()).usage.cost == cost

    async def test_a_poll_may_say_not_found_within_a_success_for_a_while(self) -> None:
        async with connect("bfl") as client:
            client.emulator.faults.script("status", ["not-found-in-success"] * 3)
            await client.complete()

    async def test_not_found_within_a_success_is_not_found_after_the_grace(self) -> None:
        async with connect("bfl", retries=evolve(FAST.retries, not_found_grace=0.05)) as client:
            client.emulator.faults.rates = {"not-found-in-success": 1.0}
            error = await client.generate()
            assert isinstance(error, TaskNotFound)
            assert error.task_id

    async def test_the_json_of_a_task_counts_in_an_error(self) -> None:
        async with connect("bfl", service_time=0) as client:
            client.emulator.faults.script("status", ["status-in-error"])
            await client.complete()
            assert not events_of(Retrying, client.events)

    @pytest.mark.parametrize("variant", ["elsewhere", "user", "http", "port", "suffix", "no-host", "script", "long"])
    async def test_an_address_that_is_not_trusted_is_never_polled(self, variant: str) -> None:
        async with connect("bfl") as client:
            client.emulator.faults.script("create", [Fault(kind="odd-address", variant=variant)])
            accepted = await client.create()
            assert accepted.problem is not None
            assert accepted.problem.task_id == accepted.reference.task_id
            with pytest.raises(InvalidRequest):
                find_reference(client.engine.gateway, accepted.reference)
            error = await client.track(accepted.reference).wait() if accepted.reference.addresses else None
            assert error is None or isinstance(error, InvalidRequest)
            assert [each.path for each in client.emulator.requests] == ["/v1/flux-kontext-pro"]

    @pytest.mark.parametrize("variant", ["missing", "null"])
    async def test_a_missing_address_follows_from_the_id(self, variant: str) -> None:
        async with connect("bfl") as client:
            client.emulator.faults.script("create", [Fault(kind="odd-address", variant=variant)])
            await client.complete()

    async def test_another_host_name_must_be_named(self) -> None:
        async with connect("bfl", trusted=False) as client:
            accepted = await client.create()
            assert accepted.problem is not None
            assert "localhost" in str(accepted.problem)

    async def test_a_url_that_is_not_renewed_is_reported_with_its_expiry(self) -> None:
        async with connect("bfl", renews_urls=False) as client:
            generation = await client.complete()
            client.emulator.faults.rates = {"url-expired": 1.0}
            with pytest.raises(DownloadFailed, match=r"valid until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC") as caught:
                await client.engine.downloader.read(generation.image)
            assert "sig=" not in str(caught.value)


class TestRedirects:
    async def test_a_redirect_of_a_poll_to_a_trusted_host_is_followed_with_the_key(self) -> None:
        async with connect("bfl", service_time=0, regions=2) as client:
            accepted = await client.create()
            address = accepted.reference.addresses[0]
            client.emulator.faults.script("status", [Fault(kind="redirect", location=address)])
            result = await client.track(accepted.reference).wait()
            assert isinstance(result, Generation)
            polls = [each for each in client.emulator.requests if each.path == "/v1/get_result"]
            assert len(polls) == 2
            assert all(each.headers["x-key"] == client.emulator.api_key for each in polls)

    async def test_a_redirect_elsewhere_gets_nothing(self) -> None:
        requests: list[Request] = []

        def respond(request: Request) -> bytes:
            requests.append(request)
            return http_response()

        async with scripted_server(respond) as evil, connect("bfl") as client:
            accepted = await client.create()
            location = f"{evil.url}/v1/get_result"
            client.emulator.faults.script("status", [Fault(kind="redirect", location=location)])
            with pytest.raises(RequestRejected, match="not followed") as caught:
                await client.engine.poll_loop.fetch_status(accepted.reference)
            assert caught.value.task_id == accepted.reference.task_id
            assert requests == []

    async def test_a_loop_of_redirects_is_an_error_with_the_id(self) -> None:
        async with connect("bfl") as client:
            accepted = await client.create()
            address = accepted.reference.addresses[0]
            client.emulator.faults.rates = {Fault(kind="redirect", on="status", location=address): 1.0}
            with pytest.raises(KontextError, match="more than 5 further requests") as caught:
                await client.engine.poll_loop.fetch_status(accepted.reference)
            assert caught.value.task_id == accepted.reference.task_id
