"""The parts of serving a session that all web frameworks share, without a server."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from session_support import new_session, until

from kontext_async import ConfigurationError, InvalidRequest, KontextSession, SessionClosed, UntrustedRules
from kontext_async.integrations import serving
from kontext_async.integrations.problems import RequestTooLarge
from kontext_async.integrations.serving import (
    ServedSession,
    read_request,
    task_messages,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kontext_async.emulator import Emulator

pytest_plugins = ["kontext_async.testing.plugin"]
pytestmark = pytest.mark.anyio

RULES = UntrustedRules(max_images=0, max_prompt_length=100)


@pytest.fixture
def service_time() -> float:
    """Seconds of a task."""
    return 0.01


@pytest.fixture
def emulator_options(service_time: float) -> dict[str, Any]:
    return {"service_time": service_time, "pixels": 64 * 64}


@pytest.fixture
def served(emulator: Emulator) -> ServedSession:
    return ServedSession(lambda: new_session(emulator), grace=0.05)


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The SIGTERMs that the server's own handler gets."""
    monkeypatch.setattr(serving, "FORCE_AFTER", 60.0)
    seen: list[int] = []
    earlier = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, earlier)


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class TestABody:
    async def test_is_read_in_chunks(self) -> None:
        request = await read_request(chunks_of(b'{"prompt": ', b'"a fox"}'), None, RULES)
        assert request.prompt == "a fox"

    async def test_that_announces_too_much_is_not_read(self) -> None:
        chunks = chunks_of(b"{}")
        with pytest.raises(RequestTooLarge, match="at most"):
            await read_request(chunks, RULES.max_body_bytes + 1, RULES)
        assert await anext(chunks) == b"{}"

    async def test_that_is_too_large_is_not_read_to_its_end(self) -> None:
        chunks = chunks_of(*[b" " * 1000] * 1000)
        with pytest.raises(RequestTooLarge):
            await read_request(chunks, None, RULES)
        assert await anext(chunks)

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b'{"prompt": "\\ud800"}', b"[]", b'"a fox"'])
    async def test_that_is_no_json_object_is_invalid(self, body: bytes) -> None:
        with pytest.raises(InvalidRequest):
            await read_request(chunks_of(body), len(body), RULES)


class TestASigterm:
    @pytest.mark.parametrize("service_time", [60.0])
    async def test_begins_the_drain_and_reaches_the_server_too(
        self, served: ServedSession, signals: list[int], emulator: Emulator
    ) -> None:
        async with served:
            waiting = asyncio.create_task(served.admit().generate("a fox"))
            await until(lambda: emulator.ledger.accepted)
            signal.raise_signal(signal.SIGTERM)
            assert signals == [signal.SIGTERM]
            await until(lambda: served.is_draining)
            with pytest.raises(SessionClosed) as refused:
                served.admit()
            assert refused.value.retryable
            assert served.health()[0] is False
            with pytest.raises(SessionClosed) as caught:
                await waiting
            assert caught.value.task_id == emulator.ledger.task_ids[0]

    @pytest.mark.parametrize("service_time", [60.0])
    async def test_ends_the_drain_at_once_if_it_is_the_second(self, emulator: Emulator, signals: list[int]) -> None:
        async with ServedSession(lambda: new_session(emulator), grace=600) as served:
            waiting = asyncio.create_task(served.admit().generate("a fox"))
            await until(lambda: emulator.ledger.accepted)
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: served.is_draining)
            assert not waiting.done()
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(SessionClosed):
                await asyncio.wait_for(waiting, 5)
            signal.raise_signal(signal.SIGTERM)
            assert signals == [signal.SIGTERM] * 3

    async def test_reaches_only_the_server_once_the_session_has_ended(
        self, served: ServedSession, signals: list[int]
    ) -> None:
        server_handler = signal.getsignal(signal.SIGTERM)
        async with served:
            assert signal.getsignal(signal.SIGTERM) != server_handler
        assert signal.getsignal(signal.SIGTERM) == server_handler

    async def test_reaches_a_handler_that_was_installed_later(self, served: ServedSession, signals: list[int]) -> None:
        async with served:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_a_session_is_served_in_a_thread_where_python_has_no_signals(
    kontext_emulator: Emulator, signals: list[int]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    found: list[object] = []

    async def serve() -> None:
        async with ServedSession(lambda: new_session(kontext_emulator)) as served:
            found.append((await served.admit().generate("a fox")).images)
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    thread.join()
    assert found[0]
    assert found[1] == handler


async def test_a_served_session_is_ready_while_it_runs(served: ServedSession) -> None:
    assert served.health()[0] is False
    async with served:
        is_ready, reasons = served.health()
        assert is_ready
        assert reasons["is_ready"] is True
    assert served.health()[0] is False


async def test_a_session_can_be_instrumented_before_it_starts(emulator: Emulator) -> None:
    started: list[KontextSession] = []
    async with ServedSession(lambda: new_session(emulator), on_start=started.append) as served:
        assert started == [served.session]


@pytest.mark.parametrize("grace", [-1, float("inf"), float("nan")])
def test_a_grace_that_is_no_time_is_refused(grace: float) -> None:
    with pytest.raises(ConfigurationError, match="grace"):
        ServedSession(grace=grace)


async def test_the_events_of_a_task_end_with_its_end(session: KontextSession) -> None:
    task = await session.submit("a fox")
    messages = [message async for message in task_messages(task, 0.01)]
    assert [message.event for message in messages][-1] == "completed"
    assert [message.id for message in messages] == [str(number) for number in range(len(messages))]
    last = json.loads(messages[-1].data)
    assert last["task_id"] == task.id
    assert last["images"]
    assert set(last) <= {"task_id", "state", "progress", "images"}


async def test_the_events_of_a_failed_task_end_with_its_error(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", ["task-fails"])
    messages = [message async for message in task_messages(await session.submit("a fox"), 0.01)]
    assert messages[-1].event == "failed"
    assert set(json.loads(messages[-1].data)["error"]) == {"code", "message"}


async def test_the_events_of_an_unknown_task_end_with_a_problem(session: KontextSession) -> None:
    messages = [message async for message in task_messages(session.attach("unknownunknown"), 0.01)]
    assert [message.event for message in messages] == ["problem"]
    assert json.loads(messages[0].data)["status"] == 404
