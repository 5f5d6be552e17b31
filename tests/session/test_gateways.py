"""A session on each gateway, against the emulator: one suite, and what only some gateways have."""

from __future__ import annotations

import asyncio
import json
import pickle
from contextlib import asynccontextmanager
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from gateway_sessions import base_url_of, connect, new_emulator
from gateways_support import DIALECTS, ID, refer
from http_support import Request, http_response, scripted_server
from session_support import count_creates, decode_format, events_of, raw_server, until

from kontext_async import (
    AuthenticationFailed,
    ConfigurationError,
    DownloadFailed,
    GatewayUnavailable,
    InvalidRequest,
    InvalidResponse,
    KontextError,
    KontextSession,
    Limits,
    PermissionDenied,
    RequestRejected,
    SessionClosed,
    SubmissionUncertain,
    TaskFailed,
    TaskModerated,
    TaskTimeout,
    Timeouts,
)
from kontext_async.emulator import Emulator, Fault, FaultKind, Faults
from kontext_async.events import Abandoned, Accepted, Completed, Downloaded, Event, Failed, Retrying, StatusReceived
from kontext_async.gateways import GATEWAYS, Reference
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

NAMES = tuple(GATEWAYS)


@asynccontextmanager
async def running(
    name: str, options: dict[str, Any] | None = None, **session_options: Any
) -> AsyncIterator[tuple[KontextSession, Emulator]]:
    async with new_emulator(**(options or {})) as emulator, connect(name, emulator, **session_options) as session:
        yield session, emulator


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    gateway: str = request.param
    return gateway


@pytest.fixture
async def emulator(anyio_backend: str) -> AsyncIterator[Emulator]:
    async with new_emulator() as emulator:
        yield emulator


@pytest.fixture
async def session(name: str, emulator: Emulator) -> AsyncIterator[KontextSession]:
    async with connect(name, emulator) as session:
        yield session


@pytest.fixture
def events(session: KontextSession) -> list[Event]:
    events: list[Event] = []
    session.subscribe(events.append)
    return events


class TestEveryGateway:
    async def test_a_request_becomes_an_image(
        self, session: KontextSession, emulator: Emulator, events: list[Event]
    ) -> None:
        fox = await session.generate("a red fox", seed=7, aspect_ratio="16:9", output_format="png")
        assert decode_format(await session.read(fox.image)) == "PNG"
        assert fox.metadata["seed"] == 7
        assert fox.request is not None
        assert fox.task_id == events_of(Accepted, events)[0].task_id == events_of(Completed, events)[0].task_id
        assert emulator.ledger.billed == 1
        assert session.statistics().in_flight == 0

    async def test_many_requests_become_as_many_images(self, session: KontextSession, emulator: Emulator) -> None:
        outcomes = [outcome async for outcome in session.generate_many(f"fox {index}" for index in range(30))]
        assert [outcome.error for outcome in outcomes] == [None] * 30
        assert {outcome.index for outcome in outcomes} == set(range(30))
        assert emulator.ledger.billed == 30

    async def test_a_task_is_resumed_by_its_reference_in_another_session(
        self, name: str, session: KontextSession, emulator: Emulator
    ) -> None:
        task = await session.submit("a red fox")
        text = str(task.reference)
        assert text.split() == [text]
        assert pickle.loads(pickle.dumps(task.reference)) == task.reference  # noqa: S301 # our own
        await session.aclose()
        async with connect(name, emulator) as other:
            for given in (text, task.reference):
                attached = other.attach(given)
                assert attached.id == task.id
                assert (await attached.wait()).task_id == task.id
        assert emulator.ledger.billed == 1

    async def test_a_reference_of_another_gateway_is_refused_before_anything_is_sent(
        self, name: str, session: KontextSession, emulator: Emulator
    ) -> None:
        other = next(each for each in NAMES if each != name)
        with pytest.raises(InvalidRequest, match=f"of the gateway {name},"):
            session.attach(Reference("task-1", other))
        assert not emulator.requests

    async def test_a_status_is_read_at_once(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", ["task-hangs"])
        task = await session.submit("a red fox")
        first = task.last_status
        assert first is not None
        assert not first.state.is_terminal
        assert (await task.status()).task_id == task.id
        with pytest.raises(TaskTimeout) as caught:
            await task.wait(timeout=0.05)
        assert caught.value.task_id == task.id

    async def test_a_failed_task_has_its_reason(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind="task-fails", message="out of memory")])
        with pytest.raises(TaskFailed, match="out of memory"):
            await session.generate("a red fox")

    async def test_a_wrong_key_is_refused(self, name: str, emulator: Emulator) -> None:
        async with KontextSession(
            "wrong", base_url=base_url_of(name, emulator), gateway=name, settings=FAST
        ) as session:
            with pytest.raises(AuthenticationFailed) as caught:
                await session.generate("a red fox")
        assert caught.value.status == HTTPStatus.UNAUTHORIZED
        assert not emulator.ledger.billed

    async def test_the_key_is_in_no_text(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.ECHOED_KEY, variant="header")])
        with pytest.raises(RequestRejected) as caught:
            await session.generate("a red fox")
        for text in (repr(session), str(caught.value), repr(caught.value), str(caught.value.body)):
            assert str(emulator.api_key) not in text


class TestReferences:
    """Errors and events that name a task have its reference as text."""

    async def test_every_event_with_a_task_has_its_reference(
        self, session: KontextSession, emulator: Emulator, events: list[Event]
    ) -> None:
        emulator.faults.script("status", ["bad-gateway"])
        emulator.faults.script("download", ["truncated-file"])
        task = await session.submit("a red fox")
        await session.read((await task.wait()).image)
        kinds = {type(event) for event in events if event.task_id}
        assert kinds >= {Accepted, StatusReceived, Retrying, Completed, Downloaded}
        assert {event.reference for event in events if event.task_id} == {str(task.reference)}
        assert {event.reference for event in events if not event.task_id} == {None}
        errors = [event.error for event in events_of(Retrying, events)]
        assert {error.reference for error in errors if error.task_id} == {str(task.reference)}

    async def test_a_failed_task_has_its_reference(
        self, session: KontextSession, emulator: Emulator, events: list[Event]
    ) -> None:
        emulator.faults.script("create", ["task-fails"])
        task = await session.submit("a red fox")
        with pytest.raises(TaskFailed) as caught:
            await task.wait()
        assert caught.value.reference == events_of(Failed, events)[0].reference == str(task.reference)

    async def test_a_timeout_shows_the_reference_that_resumes_the_task(
        self, name: str, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.script("create", ["task-late"])
        with pytest.raises(TaskTimeout) as caught:
            await session.generate("a red fox", timeout=0.2)
        error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 # our own
        assert error.reference is not None
        assert f"attach({error.reference!r})" in str(error)
        async with connect(name, emulator) as other:
            assert other.attach(error.reference).id == error.task_id

    async def test_a_closed_session_leaves_the_reference_to_its_waiters(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.script("create", ["task-hangs"])
        task = await session.submit("a red fox")
        waiter = asyncio.ensure_future(task.wait())
        await asyncio.sleep(0)
        await session.aclose()
        for call in (waiter, task.wait(), task.status()):
            with pytest.raises(SessionClosed) as caught:
                await call
            assert caught.value.reference == str(task.reference)

    async def test_an_unknown_task_has_the_reference_that_was_given(self, name: str, session: KontextSession) -> None:
        reference = refer(
            name, **({"addresses": (str(session._engine.gateway.base / "v1/get_result"),)} if name == "bfl" else {})
        )
        with pytest.raises(KontextError) as caught:
            await session.attach(reference).status()
        assert caught.value.task_id == ID
        assert caught.value.reference == str(reference)

    async def test_a_failed_download_has_the_reference(self, session: KontextSession, emulator: Emulator) -> None:
        task = await session.submit("a red fox")
        fox = await task.wait()
        emulator.faults.set_rate(FaultKind.URL_EXPIRED, 1)
        with pytest.raises(DownloadFailed) as caught:
            await session.read(fox.image)
        assert caught.value.reference == str(task.reference)


class TestBalance:
    async def test_the_balance_is_money(self, name: str) -> None:
        async with running(name, {"balance": Decimal("1.00")}) as (session, emulator):
            if name == "fireworks":
                with pytest.raises(ConfigurationError, match="does not state the balance"):
                    await session.balance()
                assert not emulator.requests
                return
            before = await session.balance()
            await session.generate("a red fox")
            assert before == Decimal("1.00")
            assert await session.balance() == before - emulator.ledger.spent

    async def test_a_request_for_the_balance_is_repeated(self) -> None:
        responses = iter([http_response(b"", status="502 Bad Gateway"), http_response(b'{"credits": 1234.5}')])
        async with (
            scripted_server(lambda _: next(responses)) as server,
            KontextSession("key", base_url=server.url, gateway="bfl", settings=FAST) as session,
        ):
            assert await session.balance() == Decimal("12.345")

    @pytest.mark.parametrize("body", [b"{}", b"[]", b'{"credits": "many"}', b'{"credits": NaN}'])
    async def test_a_response_without_a_balance_is_an_error(self, body: bytes) -> None:
        async with (
            scripted_server(lambda _: http_response(body)) as server,
            KontextSession("key", base_url=server.url, gateway="bfl", settings=FAST) as session,
        ):
            with pytest.raises(InvalidResponse):
                await session.balance()

    async def test_a_session_that_is_closed_has_no_balance(self) -> None:
        async with running("bfl") as (session, emulator):
            await session.aclose()
            with pytest.raises(SessionClosed):
                await session.balance()
            assert not emulator.requests


class TestPayingOnce:
    """The rows of the table "Paying once" of ARCHITECTURE.md, on every gateway."""

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(kind=FaultKind.RATE_LIMITED, retry_after=0),
            Fault(kind=FaultKind.UNAVAILABLE, retry_after=0),
        ],
        ids=["429", "503 with Retry-After"],
    )
    async def test_a_throttled_request_is_sent_again(
        self, session: KontextSession, emulator: Emulator, fault: Fault
    ) -> None:
        emulator.faults.script("create", [fault])
        await session.generate("a red fox")
        assert emulator.ledger.billed == 1

    async def test_a_request_that_finds_no_server_is_sent_once_there_is_one(self, name: str) -> None:
        patient = evolve(FAST, retries=evolve(FAST.retries, attempts=200))
        late = new_emulator()
        async with late:  # it keeps its ports
            pass
        async with connect(name, late, settings=patient) as session:
            waiting = asyncio.create_task(session.generate("a red fox"))
            await until(lambda: session.statistics().submitted)
            async with late:
                assert (await waiting).images
                assert late.ledger.billed == 1
            assert session.statistics().uncertain == 0

    async def test_half_a_body_is_no_request_and_is_sent_again(self, name: str) -> None:
        attempts = 0

        async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal attempts
            attempts += 1
            await reader.readexactly(100_000)
            writer.transport.abort()

        image = b"\xff\xd8\xff" + bytes(20_000_000)
        async with (
            raw_server(closes) as url,
            KontextSession("key", base_url=url, gateway=name, settings=FAST) as session,
        ):
            with pytest.raises(GatewayUnavailable) as caught:
                await session.generate("a red fox", input_images=[image])
            assert not caught.value.may_be_charged
        assert attempts == FAST.retries.attempts

    @pytest.mark.parametrize("status", [402, 403])
    async def test_a_refusal_for_want_of_money_or_rights_is_raised(
        self, session: KontextSession, emulator: Emulator, status: int
    ) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.HTTP_STATUS, status=status)])
        with pytest.raises(PermissionDenied) as caught:
            await session.generate("a red fox")
        assert not caught.value.may_be_charged
        assert count_creates(emulator) == 1
        assert emulator.ledger.billed == 0

    @pytest.mark.parametrize("status", [400, 404, 413, 422])
    async def test_a_refused_request_is_not_sent_again(
        self, session: KontextSession, emulator: Emulator, status: int
    ) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.HTTP_STATUS, status=status)])
        with pytest.raises(RequestRejected) as caught:
            await session.generate("a red fox")
        assert caught.value.status == status
        assert not caught.value.may_be_charged
        assert count_creates(emulator) == 1

    @pytest.mark.parametrize(
        "fault",
        [
            *(
                "cut-before-body",
                "cut",
                "cut-after-accept",
                "bad-gateway",
                "gateway-timeout",
                "html-page",
                "empty-body",
            ),
            Fault(kind=FaultKind.HTTP_STATUS, status=500),
            Fault(kind=FaultKind.HTTP_STATUS_AFTER_ACCEPT, status=500),
            Fault(kind=FaultKind.UNAVAILABLE, retry_after=""),
            Fault(kind=FaultKind.WRONG_TYPES, variant="no-id"),
        ],
        ids=str,
    )
    async def test_a_request_that_may_have_been_accepted_is_uncertain_and_not_sent_again(
        self, session: KontextSession, emulator: Emulator, fault: str | Fault
    ) -> None:
        emulator.faults.script("create", [fault])
        with pytest.raises(SubmissionUncertain) as caught:
            await session.generate("a red fox")
        assert caught.value.may_be_charged
        assert count_creates(emulator) == 1
        assert emulator.ledger.billed <= 1
        assert session.statistics().in_flight == 0

    @pytest.mark.parametrize("fault", [FaultKind.STALL, FaultKind.STALL_AFTER_ACCEPT])
    async def test_a_missing_response_is_uncertain(self, name: str, fault: FaultKind) -> None:
        impatient = evolve(FAST, timeouts=Timeouts(submit=0.2, status=0.2, cancel=0.2))
        async with running(name, settings=impatient) as (session, emulator):
            emulator.faults.script("create", [fault])
            with pytest.raises(SubmissionUncertain):
                await session.generate("a red fox")
            assert count_creates(emulator) == 1

    async def test_an_uncertain_request_is_sent_again_if_that_is_wanted(self, name: str) -> None:
        resend = evolve(FAST, retries=evolve(FAST.retries, resend_uncertain=True))
        async with running(name, settings=resend) as (session, emulator):
            emulator.faults.script("create", ["cut-after-accept", "cut"])
            assert (await session.generate("a red fox")).images
            assert emulator.ledger.billed == 2

    async def test_a_caller_that_is_cancelled_while_the_request_is_in_flight_loses_no_id(self, name: str) -> None:
        events: list[Event] = []
        async with running(name, {"service_time": 0.5}) as (session, emulator):
            session.subscribe(events.append)
            emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.1)])
            call = asyncio.create_task(session.generate("a red fox"))
            await until(lambda: count_creates(emulator))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            [abandoned] = events_of(Abandoned, events)
            assert abandoned.task_id == emulator.ledger.task_ids[0]
            assert abandoned.reference
            async with connect(name, emulator) as other:
                assert (await other.attach(abandoned.reference).wait()).images
            assert emulator.ledger.billed == 1

    async def test_a_timeout_after_the_acceptance_bills_one_task_which_is_resumed(self, name: str) -> None:
        async with running(name, {"service_time": 0.5}) as (session, emulator):
            with pytest.raises(TaskTimeout) as caught:
                await session.generate("a red fox", timeout=0.2)
            assert caught.value.may_be_charged
            assert (await session.attach(caught.value.reference or "").wait()).task_id == caught.value.task_id
            assert len(emulator.ledger.entries) == emulator.ledger.billed == 1

    @pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "504 Gateway Timeout"])
    async def test_a_task_in_an_error_response_is_accepted(self, name: str, status: str) -> None:
        created = {key: value for key, value in DIALECTS[name].created.items() if key != "polling_url"}
        body = json.dumps({"status": "Pending", **created}).encode()
        requests: list[Request] = []

        def respond(request: Request) -> bytes:
            requests.append(request)
            return http_response(body, status=status, headers="Retry-After: 0\r\n")

        async with (
            scripted_server(respond) as server,
            KontextSession("key", base_url=server.url, gateway=name, settings=FAST) as session,
        ):
            assert (await session.submit("a red fox")).id == ID
        assert len([request for request in requests if b"a red fox" in request.body]) == 1

    async def test_faults_of_all_kinds_bill_no_request_twice(self, name: str) -> None:
        rates: dict[str | Fault, float] = dict.fromkeys(
            ["cut-before-body", "cut-after-accept", "bad-gateway", "truncated-json", "short-body", "task-fails"], 0.07
        )
        rates[Fault(kind=FaultKind.RATE_LIMITED, retry_after=0)] = 0.1
        async with running(name, {"faults": Faults(rates=rates), "seed": 14}) as (session, emulator):
            outcomes = [outcome async for outcome in session.generate_many(f"fox {index}" for index in range(60))]
            prompts = [entry.prompt or "" for entry in emulator.ledger.entries if entry.task_id]
            assert len(prompts) == len(set(prompts))
            lost = {outcome.index for outcome in outcomes if isinstance(outcome.error, SubmissionUncertain)}
            known = {outcome.index for outcome in outcomes if outcome.task_id}
            billed = {int(prompt.rpartition(" ")[2]) for prompt in prompts}
            assert known <= billed <= known | lost


class TestBfl:
    async def test_an_address_that_is_not_trusted_is_an_error_with_the_id_and_frees_the_slot(self) -> None:
        one = evolve(FAST, limits=evolve(FAST.limits, max_in_flight=1))
        async with running("bfl", {"service_time": 100}, settings=one, trusted_hosts=()) as (session, emulator):
            events: list[Event] = []
            session.subscribe(events.append)
            for count in (1, 2):
                with pytest.raises(InvalidResponse, match="trusted_hosts") as caught:
                    await session.generate("a red fox")
                assert caught.value.task_id == emulator.ledger.entries[-1].task_id
                assert caught.value.may_be_charged
                assert caught.value.reference
                assert f"attach {caught.value.reference}" in str(caught.value)
                assert emulator.ledger.billed == count
                assert session.statistics().in_flight == 0
            assert len(events_of(Accepted, events)) == len(events_of(Failed, events)) == 2
            assert {record.path for record in emulator.requests} == {"/v1/flux-kontext-pro"}

    async def test_a_task_at_an_address_that_is_not_trusted_is_never_polled(self) -> None:
        async with running("bfl", trusted_hosts=()) as (session, emulator):
            task = await session.submit("a red fox")
            for call in (task.wait, task.wait, task.status):
                with pytest.raises(KontextError) as caught:
                    await call()
                assert caught.value.task_id == task.id
            with pytest.raises(InvalidResponse):
                [status async for status in task.updates()]
            with pytest.raises(InvalidRequest, match="trusted_hosts"):
                session.attach(task.reference)
            assert [record.path for record in emulator.requests] == ["/v1/flux-kontext-pro"]

    async def test_a_task_is_resumed_where_its_host_is_trusted(self) -> None:
        async with running("bfl", trusted_hosts=()) as (session, emulator):
            task = await session.submit("a red fox")
            async with connect("bfl", emulator) as other:
                assert (await other.attach(str(task.reference)).wait()).task_id == task.id

    async def test_an_id_is_enough_in_a_single_cluster(self) -> None:
        async with running("bfl", single_cluster=True) as (session, emulator):
            task = await session.submit("a red fox")
            async with connect("bfl", emulator, single_cluster=True, trusted_hosts=()) as other:
                assert (await other.attach(task.id).wait()).task_id == task.id

    async def test_a_plain_id_is_refused_without_a_single_cluster(self) -> None:
        async with running("bfl") as (session, emulator):
            with pytest.raises(InvalidRequest, match="single_cluster=True"):
                session.attach("b9b172a8-e39c-47b2-8f1a-cb8925f3532e")
            assert not emulator.requests

    @pytest.mark.parametrize("stage", ["request", "content"])
    async def test_a_moderated_task_is_an_error_of_its_own_and_costs_nothing(self, stage: str) -> None:
        async with running("bfl") as (session, emulator):
            fault = Fault(kind=FaultKind.TASK_MODERATED, variant=stage, message="Violence")
            emulator.faults.script("create", [fault])
            with pytest.raises(TaskModerated, match="Violence") as caught:
                await session.generate("a red fox")
            assert not caught.value.retryable
            assert not caught.value.may_be_charged
            assert emulator.ledger.spent == 0

    async def test_errors_within_a_success_are_a_refusal(self) -> None:
        async with running("bfl") as (session, emulator):
            emulator.faults.script("create", [FaultKind.ERRORS_IN_SUCCESS])
            with pytest.raises(RequestRejected) as caught:
                await session.generate("a red fox")
            assert not caught.value.may_be_charged
            assert count_creates(emulator) == 1
            assert not emulator.ledger.billed

    @pytest.mark.parametrize("cost_at", ["create", "result"])
    async def test_credits_are_money(self, cost_at: str) -> None:
        async with running("bfl", {"cost_at": cost_at, "price": Decimal("0.08")}) as (session, _):
            assert (await session.generate("a red fox")).usage.cost == Decimal("0.08")
            assert session.statistics().spent == Decimal("0.08")

    async def test_webp_is_taken_there_alone(self) -> None:
        async with running("bfl") as (session, _):
            fox = await session.generate("a red fox", output_format="webp")
            assert decode_format(await session.read(fox.image)) == "WEBP"
        async with running("vtrix") as (session, emulator):
            with pytest.raises(InvalidRequest, match="vtrix takes 'jpeg' or 'png'"):
                await session.generate("a red fox", output_format="webp")
            assert not emulator.requests


class TestConfiguration:
    @pytest.mark.parametrize("gateway", ["", "flux", "BFL", 7])
    def test_an_unknown_gateway_is_refused_with_the_names_of_all(self, gateway: Any) -> None:
        with pytest.raises(ConfigurationError, match="the gateways are vtrix, vtrix-queue, bfl"):
            KontextSession("key", gateway=gateway)

    @pytest.mark.parametrize("hosts", ["poll.example", b"poll.example", 7, [7], ["*.example"], ["https://a.example"]])
    def test_trusted_hosts_of_another_form_are_refused(self, hosts: Any) -> None:
        with pytest.raises(ConfigurationError, match="trusted_hosts"):
            KontextSession("key", gateway="bfl", trusted_hosts=hosts)

    @pytest.mark.parametrize("given", ["yes", 1, None])
    def test_a_single_cluster_is_true_or_false(self, given: Any) -> None:
        with pytest.raises(ConfigurationError, match="single_cluster"):
            KontextSession("key", gateway="bfl", single_cluster=given)

    def test_each_gateway_has_a_base_url_of_its_own(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KONTEXT_BASE_URL", raising=False)
        assert GATEWAYS[name].default_base_url in repr(KontextSession("key", gateway=name))

    def test_a_base_url_of_bfl_is_https_or_on_loopback(self) -> None:
        with pytest.raises(ConfigurationError, match="must be https"):
            KontextSession("key", gateway="bfl", base_url="http://images.example", limits=Limits())

    async def test_the_key_of_bfl_is_never_used_for_another_gateway(
        self, name: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BFL_API_KEY", "key-of-bfl")
        monkeypatch.setenv("FIREWORKS_API_KEY", "key-of-fireworks")
        monkeypatch.setenv("KONTEXT_API_KEY", str(emulator.api_key))
        async with KontextSession(base_url=base_url_of(name, emulator), gateway=name, settings=FAST) as session:
            if name in ("vtrix", "vtrix-queue"):
                await session.generate("a red fox")
            else:
                with pytest.raises(AuthenticationFailed):
                    await session.generate("a red fox")

    async def test_the_environment_names_the_gateway_and_its_key(
        self, name: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KONTEXT_GATEWAY", name)
        monkeypatch.setenv("KONTEXT_BASE_URL", base_url_of(name, emulator))
        monkeypatch.setenv("KONTEXT_API_KEY", str(emulator.api_key))
        hosts = emulator.region_hosts if name == "bfl" else ()
        async with KontextSession(settings=FAST, trusted_hosts=hosts) as session:
            assert (await session.submit("a red fox")).reference.gateway == name
        given = KontextSession(gateway="vtrix", base_url="https://images.example", settings=FAST)
        assert given._engine.gateway.name == "vtrix"

    @pytest.mark.parametrize(("named", "owner"), [(None, "vtrix"), ("bfl", "bfl"), ("fireworks", "fireworks")])
    def test_the_base_url_of_the_environment_is_refused_for_another_gateway(
        self, name: str, named: str | None, owner: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KONTEXT_BASE_URL", "https://images.example")
        monkeypatch.delenv("KONTEXT_GATEWAY", raising=False)
        if named:
            monkeypatch.setenv("KONTEXT_GATEWAY", named)
        if name == owner:
            assert "https://images.example" in repr(KontextSession("key", gateway=name))
            return
        with pytest.raises(ConfigurationError, match=f"pass base_url=.*or set KONTEXT_GATEWAY={name}"):
            KontextSession("key", gateway=name)

    def test_an_unknown_gateway_of_the_environment_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KONTEXT_GATEWAY", "flux")
        with pytest.raises(ConfigurationError, match="there is no gateway 'flux'"):
            KontextSession("key")
