"""A run in an outage: it waits or stops, no request fails for what is not its fault, and none is billed twice."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import anyio
import attrs
import pytest
from bulk_support import ONE_AT_A_TIME, Folder, RunRequests
from http_support import http_response, scripted_server, tls_server

from benchmarks.servers.proxy_front import Front, Mode, start_front
from benchmarks.soak.bulk_outage import run_checks, run_through_outage
from kontext_async import (
    ConfigurationError,
    GatewayOutage,
    KontextSession,
    Limits,
    Outages,
    PermissionDenied,
    Retries,
)
from kontext_async.bulk import BulkRun
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kontext_async.bulk import BulkReport

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(12)]
MANY_AT_ONCE = attrs.evolve(FAST, limits=Limits(max_in_flight=60, polls_per_second=2000))


@pytest.mark.parametrize("kind", ["refused", "502", "502-creates"])
async def test_an_outage_in_the_middle_fails_no_request_and_bills_none_twice(tmp_path: Path, kind: str) -> None:
    result = await run_through_outage(
        kind, tmp_path, prompts=60, gap=0.01, seconds=1.0, settings=MANY_AT_ONCE, service_time=0.05
    )
    checks = run_checks(result)
    assert checks == dict.fromkeys(checks, True), result


@asynccontextmanager
async def broken_front(emulator: Emulator, mode: Mode) -> AsyncIterator[Front]:
    async with start_front(emulator.base_url) as front:
        await front.set_mode(mode)
        yield front


async def run_at(
    url: str,
    folder: Folder,
    *,
    key: str | None = "key",
    on_outage: Literal["wait", "stop"] = "wait",
    outage_timeout: float | None = None,
) -> BulkReport:
    patient = attrs.evolve(FAST, outages=Outages(wait=60.0, probe_initial=0.01, probe_max=0.05))
    async with KontextSession(key, base_url=url, settings=patient) as session:
        with anyio.fail_after(10):
            return await BulkRun(session, folder.path, on_outage=on_outage, outage_timeout=outage_timeout).execute(
                FOXES
            )


async def test_a_run_that_stops_on_an_outage_leaves_the_requests_to_the_next_run(
    emulator: Emulator, folder: Folder
) -> None:
    async with broken_front(emulator, Mode.REFUSE) as front:
        report = await run_at(front.base_url, folder, key=emulator.api_key, on_outage="stop")
        assert isinstance(report.stopped, GatewayOutage)
        assert "submitting has stopped because of an outage" in str(report.stopped)
        assert (report.failed, report.uncertain, report.completed) == ({}, (), 0)
        assert report.remaining == report.total
        assert set(folder.states()) <= {"planned"}
        await front.set_mode(Mode.FORWARD)
        report = await run_at(front.base_url, folder, key=emulator.api_key, on_outage="stop")
    assert report.complete
    assert emulator.ledger.accepted == len(FOXES)


async def test_a_run_that_waits_ends_when_the_outage_is_too_long(emulator: Emulator, folder: Folder) -> None:
    async with broken_front(emulator, Mode.REFUSE) as front:
        report = await run_at(front.base_url, folder, outage_timeout=0.3)
    assert isinstance(report.stopped, GatewayOutage)
    assert "the outage did not end within 0.3 s" in str(report.stopped)
    assert report.stopped.__cause__ is not None
    assert (report.failed, report.remaining) == ({}, len(FOXES))


async def test_a_run_waits_longer_than_its_session_lets_one_request_wait(emulator: Emulator, folder: Folder) -> None:
    settings = attrs.evolve(FAST, outages=Outages(wait=0.0, probe_initial=0.01, probe_max=0.05))
    async with (
        broken_front(emulator, Mode.REFUSE) as front,
        KontextSession(emulator.api_key, base_url=front.base_url, settings=settings) as session,
        anyio.create_task_group() as group,
    ):

        async def mend() -> None:
            await anyio.sleep(0.4)
            await front.set_mode(Mode.FORWARD)

        group.start_soon(mend)
        report = await BulkRun(session, folder.path).execute(FOXES)
        assert report.complete
    assert emulator.ledger.accepted == len(FOXES)


async def test_an_outage_after_the_last_submission_stops_nothing(folder: Folder) -> None:
    async with (
        Emulator(service_time=0.5, pixels=256) as slow,
        start_front(slow.base_url) as front,
        KontextSession(slow.api_key, base_url=front.base_url, settings=FAST) as session,
        anyio.create_task_group() as group,
    ):

        async def break_down() -> None:
            while slow.ledger.accepted < len(FOXES):  # the ledger has no event
                await anyio.sleep(0.005)
            await front.set_mode(Mode.REFUSE)
            await anyio.sleep(0.8)
            await front.set_mode(Mode.FORWARD)

        group.start_soon(break_down)
        report = await BulkRun(session, folder.path, on_outage="stop").execute(FOXES)
        assert report.complete, report


async def test_an_empty_balance_stops_the_run_and_fails_no_request(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.HTTP_STATUS, status=402)] * 3)
    report = await run(FOXES, settings=ONE_AT_A_TIME)
    assert isinstance(report.stopped, PermissionDenied)
    assert (report.failed, report.remaining) == ({}, len(FOXES))
    assert set(folder.states()) == {"planned"}
    emulator.faults.clear()
    assert (await run(FOXES)).complete


async def test_a_page_of_a_firewall_is_not_the_fault_of_a_request(folder: Folder) -> None:
    settings = attrs.evolve(FAST, retries=Retries(attempts=2, backoff_initial=0.01, backoff_max=0.01))
    page = http_response(b"<html>Forbidden</html>", "403 Forbidden", "Content-Type: text/html\r\n")
    async with (
        scripted_server(lambda _: page) as server,
        KontextSession("key", base_url=server.url, settings=settings) as session,
    ):
        report = await BulkRun(session, folder.path).execute(FOXES[:3])
    assert (report.failed, report.remaining) == ({}, 3)
    assert "403" in str(report.stopped)
    assert set(folder.states()) == {"planned"}


async def test_a_refused_certificate_stops_the_run(folder: Folder) -> None:
    async with tls_server(lambda _: http_response()) as server:
        report = await run_at(server.url, folder)
    assert isinstance(report.stopped, GatewayOutage)
    assert "certificate" in str(report.stopped).lower()
    assert (report.failed, report.remaining) == ({}, report.total)


@pytest.mark.parametrize("options", [{"on_outage": "retry"}, {"outage_timeout": 0}, {"outage_timeout": float("nan")}])
async def test_an_invalid_choice_for_an_outage_is_rejected(folder: Folder, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="outage"):
        BulkRun(KontextSession("key"), folder.path, **options)  # type: ignore[arg-type]
