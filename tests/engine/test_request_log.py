"""What the logger ``kontext_async`` receives, and that listening to it at WARNING parses no poll in full."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from session_support import new_session, raw_server, run_with_clock

from kontext_async import (
    GatewayError,
    GeneratedImage,
    Generation,
    KontextSession,
    Limits,
    SessionCrashed,
    SubmissionUncertain,
    TaskFailed,
    TaskState,
    TaskStatus,
    Usage,
)
from kontext_async.emulator import Emulator, ErrorShape, Fault, FaultKind
from kontext_async.engine import request_times
from kontext_async.engine.event_hub import EventHub
from kontext_async.engine.request_log import SessionLog
from kontext_async.engine.request_times import RequestTimer
from kontext_async.events import Accepted, Completed, Downloaded
from kontext_async.gateways.vtrix_tasks import read_status
from kontext_async.testing import FAST, ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "kontext_async"
ONE_SLOT = Limits(max_in_flight=1)
STATUS = TaskStatus(task_id="t", state=TaskState.IN_PROGRESS, raw_status="pending")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, NAME):
        yield caplog


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return the messages of one level, without durations."""
    records = [record for record in caplog.records if record.name == NAME and record.levelno == level]
    return [re.sub(r"\d+\.\d+ ms", "… ms", record.getMessage()) for record in records]


def requests(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Return kind, attempt and status of each request."""
    return [
        (record.getMessage().split()[0], vars(record)["attempt"], vars(record)["status"])
        for record in caplog.records
        if record.levelno == logging.DEBUG and record.name == NAME
    ]


@pytest.mark.anyio
async def test_the_life_of_a_session_and_of_its_tasks_is_info(
    emulator: Emulator, log: pytest.LogCaptureFixture
) -> None:
    async with new_session(emulator) as session:
        generation = await session.generate("a fox")
        await session.read(generation.images[0])
    task_id = generation.task_id
    first, *_, last = lines(log, logging.INFO)
    assert first == f"session with {emulator.base_url} started"
    assert last == f"session with {emulator.base_url} closed"
    for words in ("accepted as in_progress", "completed after", "downloaded"):
        assert any(line.startswith(f"task {task_id}: {words}") for line in lines(log, logging.INFO)), words
    assert lines(log, logging.WARNING) == []


@pytest.mark.anyio
async def test_each_request_is_debug_with_its_task_attempt_status_and_milliseconds(
    emulator: Emulator, log: pytest.LogCaptureFixture
) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.FORBIDDEN, shape=ErrorShape.HTML)])
    emulator.faults.script("status", ["bad-gateway"])
    emulator.faults.script("download", [Fault(kind=FaultKind.HTTP_STATUS, status=500)])
    async with new_session(emulator) as session:
        await session.estimate("a fox")
        generation = await session.generate("a fox")
        await session.read(generation.images[0])
    seen = requests(log)
    for expected in (
        ("price", 1, 200),
        ("create", 1, 403),
        ("create", 2, 200),
        ("status", 1, 502),
        ("status", 2, 200),
        ("download", 1, 500),
        ("download", 2, 200),
    ):
        assert expected in seen
    debug = [record for record in log.records if record.levelno == logging.DEBUG and record.name == NAME]
    assert all(vars(record)["milliseconds"] >= 0 for record in debug)
    named = {vars(record)["task_id"] for record in debug if record.getMessage().startswith(("status", "download"))}
    assert named == {generation.task_id}
    assert f"create request, attempt 2: 200 after … ms, task {generation.task_id}" in lines(log, logging.DEBUG)


@pytest.mark.anyio
async def test_retries_and_throttling_are_warnings(emulator: Emulator, log: pytest.LogCaptureFixture) -> None:
    emulator.faults.script(
        "create",
        [Fault(kind=FaultKind.FORBIDDEN, shape=ErrorShape.HTML), Fault(kind=FaultKind.RATE_LIMITED, retry_after=0.01)],
    )
    emulator.faults.script("status", ["bad-gateway"])
    emulator.faults.script("download", ["cut-halfway"])
    async with new_session(emulator) as session:
        generation = await session.generate("a fox")
        await session.read(generation.images[0])
    warnings = lines(log, logging.WARNING)
    for words in (
        "create request failed and is retried, attempt 1: the gateway returned HTTP 403",
        "the gateway asked to slow down: no create requests for",
        "status request failed and is retried, attempt 1: ",
        "download request failed and is retried, attempt 1: could not download",
    ):
        assert sum(words in line for line in warnings) == 1, words
    assert len(warnings) == 4


@pytest.mark.anyio
async def test_refused_failed_and_uncertain_requests_are_warnings(
    emulator: Emulator, log: pytest.LogCaptureFixture
) -> None:
    emulator.faults.script(
        "create", [Fault(kind=FaultKind.HTTP_STATUS, status=422), "cut-after-accept", "failed-at-once"]
    )
    async with new_session(emulator) as session:
        for expected in (GatewayError, SubmissionUncertain, TaskFailed):
            with pytest.raises(expected):
                await session.generate("a fox")
    refused, uncertain, failed = lines(log, logging.WARNING)
    assert re.match(r"request [0-9a-f]{12}: failed: RequestRejected: ", refused)
    assert re.match(r"request [0-9a-f]{12}: failed: SubmissionUncertain: the gateway may have accepted", uncertain)
    assert failed.startswith(f"task {emulator.ledger.task_ids[-1]}: failed: TaskFailed: the task failed")


@pytest.mark.anyio
async def test_an_abandoned_task_is_a_warning_that_names_it(log: pytest.LogCaptureFixture) -> None:
    async with Emulator(service_time=60) as emulator, new_session(emulator) as session:
        with pytest.raises(TimeoutError):
            await session.generate("a fox", timeout=0.3)
    assert any(
        line.startswith(f"task {emulator.ledger.task_ids[0]}: abandoned, it keeps running and is billed")
        for line in lines(log, logging.WARNING)
    )


@pytest.mark.anyio
async def test_an_outage_is_a_warning(log: pytest.LogCaptureFixture) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with raw_server(hang_up) as address:
        pass  # from now on the connection is refused
    async with KontextSession("some-key", base_url=address, settings=FAST) as session:
        with pytest.raises(GatewayError):
            await session.generate("a fox")
    assert any(line.startswith("submitting has stopped, next probe in 0 s: ") for line in lines(log, logging.WARNING))


@pytest.mark.anyio
async def test_a_crash_is_an_error(
    emulator: Emulator, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    async with new_session(emulator) as session:
        monkeypatch.setattr(session._engine.poll_loop, "_handle_status", fail)
        with pytest.raises(SessionCrashed):
            await session.generate("a fox")
    (line,) = lines(log, logging.ERROR)
    assert line.startswith(f"session with {emulator.base_url} crashed: the session's background work failed")


@pytest.mark.anyio
async def test_listening_at_warning_parses_no_poll_in_full(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []

    def read_and_count(*given: Any) -> TaskStatus:
        read.append(given)
        return read_status(*given)

    monkeypatch.setattr("kontext_async.gateways.vtrix.read_status", read_and_count)
    async with Emulator(service_time=0.3, pixels=4096) as emulator:
        with caplog.at_level(logging.WARNING, NAME):
            async with new_session(emulator) as session:
                await session.generate("a fox")
                assert session.statistics().polls > 2
    assert read == []
    assert caplog.records == []


@pytest.mark.anyio
async def test_a_level_that_is_set_later_counts(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, NAME):
        async with new_session(emulator) as session:
            await session.generate("a fox")
            assert caplog.records == []
            with caplog.at_level(logging.DEBUG, NAME):
                await session.generate("a fox")
    assert {"create", "status"} <= {kind for kind, _, _ in requests(caplog)}


@pytest.mark.anyio
async def test_only_the_origin_of_the_base_url_is_logged(emulator: Emulator, log: pytest.LogCaptureFixture) -> None:
    async with KontextSession(emulator.api_key, base_url=f"{emulator.base_url}/a/secret/path", settings=FAST):
        pass
    assert log.messages[0] == f"session with {emulator.base_url} started"
    assert "secret" not in log.text


def test_the_package_adds_no_handler_and_sets_no_level() -> None:
    logger = logging.getLogger(NAME)
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


def test_a_program_without_logging_sees_nothing_of_it() -> None:
    """Python prints the warnings of a logger without handlers on stderr."""
    code = """
import asyncio
from kontext_async import KontextSession
from kontext_async.emulator import Emulator

async def main():
    async with Emulator(service_time=60) as emulator:
        emulator.faults.script("create", ["http-status"])
        async with KontextSession(emulator.api_key, base_url=emulator.base_url) as session:
            waits = (session.generate("a fox", timeout=0.3) for _ in range(2))
            ends = await asyncio.gather(*waits, return_exceptions=True)
            assert all(isinstance(end, Exception) for end in ends)

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert (ran.stdout, ran.stderr) == ("", "")


@pytest.mark.anyio
async def test_a_task_that_the_close_leaves_running_is_info_that_names_it(log: pytest.LogCaptureFixture) -> None:
    async with Emulator(service_time=60) as emulator, new_session(emulator) as session:
        task = await session.submit("a fox")
    assert f"task {task.id}: failed: SessionClosed: the session is closed (task {task.id})" in lines(log, logging.INFO)
    assert lines(log, logging.WARNING) == []


@pytest.mark.anyio
async def test_a_slow_request_is_a_warning_with_its_stages(clock: ManualClock, log: pytest.LogCaptureFixture) -> None:
    async with (
        Emulator(service_time=25.0, clock=clock.unix) as emulator,
        KontextSession(emulator.api_key, base_url=emulator.base_url, clock=clock, limits=ONE_SLOT) as session,
    ):
        both = asyncio.gather(session.generate("a fox"), session.generate("a hare"))
        await run_with_clock(both, clock, session)
    (line,) = lines(log, logging.WARNING)
    assert re.fullmatch(r"task \w+: slow, [\d.]+ s: queued [\d.]+ s, sent 0\.0 s, pending [\d.]+ s", line), line
    (record,) = [record for record in log.records if record.levelno == logging.WARNING and record.name == NAME]
    stages = vars(record)
    assert stages["queued"] >= 25
    assert stages["pending"] >= 25
    assert "downloading" not in stages


@pytest.mark.anyio
async def test_a_slow_request_is_reported_once_and_its_slow_download_again(log: pytest.LogCaptureFixture) -> None:
    hub = EventHub()
    SessionLog("http://h").start(hub, set())
    at = datetime(2026, 1, 1, tzinfo=UTC)
    image = GeneratedImage(url="https://h/a.png", task_id="t")
    for elapsed, downloads in ((5.0, (1.0,)), (31.0, (1.0, 45.0)), (20.0, (11.0,))):
        generation = Generation(
            task_id="t", model=None, request=None, images=(image,), usage=Usage(), created_at=None, elapsed=elapsed
        )
        hub.emit(Accepted(at=at, task_id="t", status=STATUS, queued=0.5, sent=0.5))
        hub.emit(Completed(at=at, task_id="t", generation=generation))
        for seconds in downloads:
            hub.emit(Downloaded(at=at, task_id="t", image=image, path=None, size=1, seconds=seconds))
    slow = [line.partition("slow, ")[2] for line in lines(log, logging.WARNING)]
    assert slow == [
        "32.0 s: queued 0.5 s, sent 0.5 s, pending 31.0 s",
        "78.0 s: queued 0.5 s, sent 0.5 s, pending 31.0 s, downloading 46.0 s",
        "32.0 s: queued 0.5 s, sent 0.5 s, pending 20.0 s, downloading 11.0 s",
    ]


def test_the_times_of_requests_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_times, "REMEMBERED_TASKS", 3)
    timer = RequestTimer()
    for number in range(10):
        timer.observe(Accepted(at=datetime(2026, 1, 1, tzinfo=UTC), task_id=f"t{number}", status=STATUS, queued=1.0))
    assert list(timer._times) == ["t7", "t8", "t9"]
