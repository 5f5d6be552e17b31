"""Every request is paid for once: the table of `decisions.resend`, row by row, against the emulator's ledger."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import pytest
from session_support import count_creates, events_of, new_session, raw_server, until

from kontext_async import (
    AuthenticationFailed,
    GatewayUnavailable,
    InvalidResponse,
    KontextSession,
    PermissionDenied,
    RequestRejected,
    Retries,
    SubmissionUncertain,
    Timeouts,
)
from kontext_async.emulator import Emulator, ErrorShape, Fault, FaultKind
from kontext_async.events import Failed
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from kontext_async import KontextError
    from kontext_async.events import Event

pytestmark = pytest.mark.anyio

RESEND = attrs.evolve(FAST, retries=attrs.evolve(FAST.retries, resend_uncertain=True))
IMPATIENT = attrs.evolve(FAST, timeouts=Timeouts(submit=0.2, status=0.2, cancel=0.2))


def find_free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


class TestNotAccepted:
    async def test_a_refused_connection_is_probed_and_then_raised(self) -> None:
        """One attempt is enough to stop submitting; the request waits for the end of the outage."""
        async with KontextSession("key", base_url=f"http://127.0.0.1:{find_free_port()}", settings=FAST) as session:
            with pytest.raises(GatewayUnavailable) as caught:
                await session.generate("a fox")
            assert not caught.value.may_be_charged
            assert caught.value.retryable
            assert session.statistics().submitted == 1
            assert session.statistics().uncertain == 0

    async def test_a_host_without_an_address_is_unavailable(self) -> None:
        async with KontextSession("key", base_url="http://host.invalid", settings=FAST) as session:
            with pytest.raises(GatewayUnavailable):
                await session.generate("a fox")

    async def test_a_server_that_starts_meanwhile_gets_the_request_once(self) -> None:
        port = find_free_port()
        patient = attrs.evolve(FAST, retries=Retries(attempts=200, backoff_initial=0.01, backoff_max=0.02))
        async with KontextSession("key", base_url=f"http://127.0.0.1:{port}", settings=patient) as session:
            waiting = asyncio.create_task(session.generate("a fox"))
            await until(lambda: session.statistics().submitted)
            async with Emulator(port=port, api_key="key", service_time=0.0) as late:
                assert (await waiting).images
                assert late.ledger.billed == 1

    async def test_a_body_that_is_cut_in_its_middle_is_sent_again(self) -> None:
        """Half a JSON body is no request, so nothing was accepted."""
        attempts = 0

        async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal attempts
            attempts += 1
            await reader.readexactly(100_000)
            writer.transport.abort()

        large = b"\xff\xd8\xff" + bytes(20_000_000)
        async with raw_server(closes) as address, KontextSession("key", base_url=address, settings=FAST) as session:
            with pytest.raises(GatewayUnavailable) as caught:
                await session.generate("edit", input_images=[large])
            assert not caught.value.may_be_charged
            assert attempts == FAST.retries.attempts


class TestThrottled:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault(kind=FaultKind.RATE_LIMITED, retry_after=0),
            Fault(kind=FaultKind.RATE_LIMITED, retry_after=""),
            Fault(kind=FaultKind.RATE_LIMITED, retry_after="soon"),
            Fault(kind=FaultKind.RATE_LIMITED, retry_after=0, retry_after_date=True),
            Fault(kind=FaultKind.UNAVAILABLE, retry_after=0),
        ],
        ids=["429 in seconds", "429 without a wait", "429 with nonsense", "429 with a date", "503 with a wait"],
    )
    async def test_a_throttled_request_is_sent_again_and_billed_once(
        self, session: KontextSession, emulator: Emulator, fault: Fault
    ) -> None:
        emulator.faults.script("create", [fault, fault])
        assert (await session.generate("a fox")).images
        assert count_creates(emulator) == 3
        assert emulator.ledger.billed == 1
        assert session.statistics().throttled == 2

    async def test_a_429_is_no_failed_attempt_and_is_bounded_by_the_deadline_alone(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.set_rate(Fault(kind=FaultKind.RATE_LIMITED, on=["create"], retry_after=0), 1)
        waiting = asyncio.create_task(session.generate("a fox", timeout=30))
        await until(lambda: session.statistics().throttled > 2 * FAST.retries.attempts)
        emulator.faults.clear()
        assert (await waiting).images
        assert emulator.ledger.billed == 1

    async def test_a_429_until_the_deadline_means_that_nothing_was_accepted(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.set_rate(Fault(kind=FaultKind.RATE_LIMITED, on=["create"], retry_after=0), 1)
        with pytest.raises(GatewayUnavailable, match="not submitted within") as caught:
            await session.generate("a fox", timeout=0.3)
        assert not caught.value.may_be_charged
        assert session.statistics().in_flight == emulator.ledger.billed == 0

    async def test_a_429_leaves_the_attempts_for_failures(self, emulator: Emulator) -> None:
        settings = attrs.evolve(FAST, retries=Retries(attempts=2, backoff_initial=0.01, backoff_max=0.05))
        throttled = Fault(kind=FaultKind.RATE_LIMITED, retry_after=0)
        failed = Fault(kind=FaultKind.HTTP_STATUS, status=403, shape=ErrorShape.HTML)  # a page of a proxy
        emulator.faults.script("create", [throttled, throttled, failed, throttled])
        async with new_session(emulator, settings) as session:
            assert (await session.generate("a fox")).images
        assert count_creates(emulator) == 5

    async def test_a_503_with_a_wait_is_a_failed_attempt(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.set_rate(Fault(kind=FaultKind.UNAVAILABLE, on=["create"], retry_after=0), 1)
        with pytest.raises(GatewayUnavailable):
            await session.generate("a fox")
        assert count_creates(emulator) == FAST.retries.attempts

    async def test_an_absurd_wait_is_capped(self, emulator: Emulator) -> None:
        settings = attrs.evolve(FAST, retries=Retries(backoff_initial=0.01, backoff_max=0.1, max_retry_after=0.1))
        endless = Fault(kind=FaultKind.RATE_LIMITED, retry_after="99999999999")
        emulator.faults.script("create", [endless, Fault(kind=FaultKind.RATE_LIMITED, retry_after="inf")])
        async with new_session(emulator, settings) as session:
            assert (await session.generate("a fox", timeout=5)).images

    async def test_throttled_polls_slow_the_poll_loop_and_fail_nothing(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.script("status", [Fault(kind=FaultKind.RATE_LIMITED, retry_after=0)] * 3)
        outcomes = await session.generate_all(f"fox {n}" for n in range(5))
        assert all(outcome.ok for outcome in outcomes)
        assert session.statistics().throttled == 3


class TestRejected:
    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (400, RequestRejected),
            (401, AuthenticationFailed),
            (402, PermissionDenied),
            (403, PermissionDenied),
            (404, RequestRejected),
            (413, RequestRejected),
            (418, RequestRejected),
            (422, RequestRejected),
        ],
    )
    @pytest.mark.parametrize("shape", list(ErrorShape))
    async def test_a_rejected_request_raises_the_error_of_its_status(
        self,
        session: KontextSession,
        emulator: Emulator,
        status: int,
        expected: type[KontextError],
        shape: ErrorShape,
    ) -> None:
        emulator.faults.set_rate(Fault(kind=FaultKind.HTTP_STATUS, on=["create"], status=status, shape=shape), 1)
        emulator.faults.set_rate(Fault(kind=FaultKind.UNAUTHORIZED, on=["precharge"]), 1)
        with pytest.raises(expected) as caught:
            await session.generate("a fox")
        assert type(caught.value) is expected
        assert f"{status}" in str(caught.value)
        assert not caught.value.may_be_charged
        is_a_proxys = status in (401, 403) and shape in (ErrorShape.HTML, ErrorShape.EMPTY)
        assert count_creates(emulator) == (FAST.retries.attempts if is_a_proxys else 1)
        assert emulator.ledger.billed == 0
        assert session.statistics().in_flight == 0


UNKNOWN_OUTCOMES = [
    Fault(kind=FaultKind.CUT, on=["create"]),
    Fault(kind=FaultKind.CUT_AFTER_ACCEPT, variant="close"),
    Fault(kind=FaultKind.CUT_AFTER_ACCEPT, variant="reset"),
    Fault(kind=FaultKind.HTTP_STATUS, status=500),
    Fault(kind=FaultKind.HTTP_STATUS_AFTER_ACCEPT, status=500),
    Fault(kind=FaultKind.BAD_GATEWAY),
    Fault(kind=FaultKind.UNAVAILABLE, retry_after=""),
    Fault(kind=FaultKind.GATEWAY_TIMEOUT),
    Fault(kind=FaultKind.HTML_PAGE),
    Fault(kind=FaultKind.TRUNCATED_JSON),
    Fault(kind=FaultKind.SHORT_BODY),
    Fault(kind=FaultKind.MALFORMED_JSON, variant="quotes"),
    Fault(kind=FaultKind.WRONG_TYPES, variant="no-id"),
    Fault(kind=FaultKind.WRONG_TYPES, variant="list"),
    Fault(kind=FaultKind.EMPTY_BODY),
]


class TestUncertain:
    @pytest.mark.parametrize(
        "fault", UNKNOWN_OUTCOMES, ids=lambda fault: f"{fault.kind}-{fault.variant or fault.status}"
    )
    async def test_an_uncertain_request_is_not_sent_again(
        self, session: KontextSession, emulator: Emulator, events: list[Event], fault: Fault
    ) -> None:
        emulator.faults.script("create", [fault])
        with pytest.raises(SubmissionUncertain) as caught:
            await session.generate("a fox", seed=3)
        error = caught.value
        assert error.may_be_charged
        assert not error.retryable
        assert error.request is not None
        assert error.request.prompt == "a fox"
        assert len(error.fingerprint) == 64
        assert error.seen
        assert isinstance(error.__cause__, GatewayUnavailable | InvalidResponse)
        assert count_creates(emulator) == 1
        assert emulator.ledger.billed <= 1
        assert session.statistics().in_flight == 0
        failed = events_of(Failed, events)
        assert [event.fingerprint for event in failed] == [error.fingerprint]

    @pytest.mark.parametrize("fault", [FaultKind.STALL, FaultKind.STALL_AFTER_ACCEPT])
    async def test_a_missing_response_is_uncertain(self, emulator: Emulator, fault: FaultKind) -> None:
        emulator.faults.script("create", [fault])
        async with new_session(emulator, IMPATIENT) as session:
            with pytest.raises(SubmissionUncertain, match=r"within 0\.2 s"):
                await session.generate("a fox")
        assert count_creates(emulator) == 1

    async def test_resend_uncertain_sends_it_again_and_may_be_billed_twice(self, emulator: Emulator) -> None:
        emulator.faults.script("create", [FaultKind.CUT_AFTER_ACCEPT, FaultKind.CUT])
        async with new_session(emulator, RESEND) as session:
            assert (await session.generate("a fox")).images
        assert emulator.ledger.billed == 2

    async def test_a_request_that_is_uncertain_at_every_attempt_stays_uncertain(self, emulator: Emulator) -> None:
        emulator.faults.set_rate(Fault(kind=FaultKind.CUT, on=["create"]), 1)
        async with new_session(emulator, RESEND) as session:
            with pytest.raises(SubmissionUncertain):
                await session.generate("a fox")
        assert count_creates(emulator) == RESEND.retries.attempts

    async def test_an_accepted_task_in_an_error_response_is_resumed(self) -> None:
        """PROTOCOL.md: a 504 with an ID means that the wait ended, and the task did not."""

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError):  # the poll that follows may be cut off: the session closes
                await reader.readuntil(b"\r\n\r\n")
                body = b'{"id": "abc", "status": "in_progress", "error": {"code": "SYNC_TIMEOUT"}}'
                writer.write(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
            writer.close()

        async with raw_server(late) as address, KontextSession("key", base_url=address, settings=FAST) as session:
            assert (await session.submit("a fox")).id == "abc"


async def test_a_mix_of_faults_bills_no_request_twice(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.rates = {
        Fault(kind=FaultKind.CUT, on=["create"]): 0.05,
        Fault(kind=FaultKind.CUT_AFTER_ACCEPT): 0.05,
        Fault(kind=FaultKind.CUT_BEFORE_BODY): 0.05,
        Fault(kind=FaultKind.HTTP_STATUS, on=["create"], status=500): 0.05,
        Fault(kind=FaultKind.HTTP_STATUS_AFTER_ACCEPT, status=502): 0.05,
        Fault(kind=FaultKind.RATE_LIMITED, on=["create"], retry_after=0): 0.1,
        Fault(kind=FaultKind.TRUNCATED_JSON, on=["create"]): 0.05,
        Fault(kind=FaultKind.TASK_FAILS): 0.05,
        Fault(kind=FaultKind.CUT, on=["status"]): 0.1,
    }
    outcomes = await session.generate_all(f"fox {n}" for n in range(300))
    uncertain = {
        outcome.request.prompt
        for outcome in outcomes
        if isinstance(outcome.error, SubmissionUncertain) and outcome.request
    }
    known = {outcome.task_id for outcome in outcomes if outcome.task_id}
    accepted = {entry.task_id: entry.prompt for entry in emulator.ledger.entries if entry.task_id}
    assert len(accepted) == len(set(accepted.values()))
    assert known <= set(accepted)
    unreported = {prompt for task_id, prompt in accepted.items() if task_id not in known}
    assert unreported <= uncertain
    assert len(known) + len(uncertain) + sum(
        not outcome.task_id and not isinstance(outcome.error, SubmissionUncertain) for outcome in outcomes
    ) == len(outcomes)
    assert not emulator.ledger.billed_twice
