"""The parts of serving a session that all web frameworks share; the modules beside this one translate their types.

A server that gets SIGTERM stops accepting connections, waits for its open requests, and only then lets the application
clean up. Requests that wait for a slot could keep it waiting for longer than it has. So `ServedSession` listens to
SIGTERM itself, before the server's own handler: requests that wait for a slot and new ones are refused, tasks under way
have `grace` seconds, and what is left then fails with the ID of its task. A second SIGTERM ends that at once.
"""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

import orjson
from attrs import asdict, frozen

from kontext_async.errors import ConfigurationError, InvalidRequest, KontextError, SessionClosed, SessionError
from kontext_async.integrations.problems import RequestTooLarge, problem_of
from kontext_async.models import KontextRequest
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable
    from types import FrameType, TracebackType

    from kontext_async.models import TaskStatus
    from kontext_async.request_rules import UntrustedRules
    from kontext_async.session import GenerationTask

    T = TypeVar("T")

__all__ = [
    "CLIENT_CLOSED_REQUEST",
    "GRACE",
    "ServedSession",
    "TaskMessage",
    "read_body",
    "read_request",
    "task_messages",
]

GRACE = 8.0
"""Seconds for requests under way when the server stops. Orchestrators wait 10 s before they kill a process (``docker
stop``) or longer."""

FORCE_AFTER = 1.0
"""Seconds after a second SIGTERM in which responses may still be sent; then the process ends."""

CLIENT_CLOSED_REQUEST = 499
"""The status with which access logs show a request whose client has left; nobody receives it."""


class ServedSession:
    """A session in a web server: it starts with the server, and drains before the server stops.

    Use it with ``async with``, from any tasks of the server's event loop.

    Args:
        make_session: Returns the session, not started.
        grace: Seconds for requests under way when the server stops.
        on_start: Is called with the session before it starts, for example to instrument it.

    Attributes:
        session: The session.

    Raises:
        ConfigurationError: `grace` is not a number of seconds.
    """

    def __init__(
        self,
        make_session: Callable[[], KontextSession] = KontextSession,
        *,
        grace: float = GRACE,
        on_start: Callable[[KontextSession], object] | None = None,
    ) -> None:
        if not 0 <= grace < math.inf:
            raise ConfigurationError(f"grace: {grace!r} is not allowed; it must be a finite number of at least 0")
        self.session = make_session()
        if on_start:
            on_start(self.session)
        self._grace = grace
        self._signals = _ChainedSignal(signal.SIGTERM, self._on_signal)
        self._drain: asyncio.Task[None] | None = None
        self._close: asyncio.Task[None] | None = None
        self._kill: asyncio.TimerHandle | None = None

    @property
    def is_draining(self) -> bool:
        """True once the server has begun to stop."""
        return self._drain is not None

    async def __aenter__(self) -> Self:
        await self.session.start()
        self._signals.install()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._signals.uninstall()
        for task in (self._drain, self._close):
            if task:
                task.cancel()
        if self._kill:
            self._kill.cancel()
        await self.session.aclose()

    def admit(self) -> KontextSession:
        """Return the session for a new request.

        Raises:
            SessionClosed: The server is stopping.
        """
        if self.is_draining:
            error = SessionClosed("the server is stopping; another one may respond")
            error.retryable = True
            raise error
        return self.session

    def on_server_stopping(self) -> None:
        """Begin to drain, because the server stops; a further SIGTERM is for this session alone."""
        self._signals.take_over()
        self.begin_drain()

    def begin_drain(self) -> None:
        """Refuse new requests, and give those under way `grace` seconds."""
        if self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._run_drain())

    def end_drain(self) -> None:
        """Fail what is left at once; end the process if that takes long."""
        if self._close is None:
            if self._drain:
                self._drain.cancel()
            loop = asyncio.get_running_loop()
            self._close = loop.create_task(self.session.aclose())
            self._kill = loop.call_later(FORCE_AFTER, self._signals.raise_default)

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return True if the server should get requests, and the figures that say so."""
        health = self.session.health()
        is_ready = health.is_ready and not self.is_draining
        return is_ready, {"is_ready": is_ready, **asdict(health)}

    async def _run_drain(self) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._grace + FORCE_AFTER  # those who got a result may still download it
        with suppress(SessionError):  # it crashed or was closed: nobody waits any longer
            await self.session.drain(self._grace)
        await asyncio.sleep(ends - loop.time())
        await self.session.aclose()
        if self._signals.ends_process:
            self._kill = loop.call_later(FORCE_AFTER, self._signals.raise_default)

    def _on_signal(self) -> None:
        if self._drain is None:
            self.begin_drain()
        else:
            self.end_drain()


class _ChainedSignal:
    """Calls a function on the event loop when the process gets a signal, and the earlier handler after that.

    Servers install their handler with ``signal.signal`` (uvicorn) or with the loop (aiohttp, hypercorn, gunicorn). The
    loop's own handlers run in addition to one of ``signal.signal``, because the loop reads the signals from a pipe.
    """

    def __init__(self, number: signal.Signals, callback: Callable[[], object]) -> None:
        self._number = number
        self._callback = callback
        self._loop: asyncio.AbstractEventLoop | None = None
        self._earlier: Any = None

    @property
    def ends_process(self) -> bool:
        """True if the signal ended the process before this handler was installed."""
        return self._loop is not None and self._earlier is signal.SIG_DFL

    def install(self) -> None:
        """Install the handler; outside the main thread, where Python has no signals, do nothing."""
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            self._earlier = signal.signal(self._number, self._handle)
            signal.siginterrupt(self._number, False)  # noqa: FBT003 # as asyncio does

    def take_over(self) -> None:
        """Keep further signals from a handler of the loop, once the server has begun to stop."""
        if self._loop and signal.getsignal(self._number) == self._handle:
            self._loop.remove_signal_handler(self._number)
            signal.signal(self._number, self._handle)

    def uninstall(self) -> None:
        """Restore the earlier handler, unless another one was installed since."""
        if self._loop and signal.getsignal(self._number) == self._handle:
            signal.signal(self._number, self._earlier)
        self._loop = None

    def raise_default(self) -> None:
        """End the process as the signal does without a handler."""
        if self._loop:
            signal.signal(self._number, signal.SIG_DFL)
            signal.raise_signal(self._number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._callback)
        if callable(self._earlier):
            self._earlier(number, frame)


async def read_request(chunks: AsyncIterable[bytes], length: int | None, rules: UntrustedRules) -> KontextRequest:
    """Read a request from the JSON body of a stranger, and not a byte more than the rules allow.

    Args:
        chunks: The body.
        length: The ``Content-Length``, if there is one.
        rules: What a stranger may set.

    Raises:
        RequestTooLarge: The body is too large.
        InvalidRequest: It is not JSON, or breaks the rules.
    """
    _check_length(length or 0, rules.max_body_bytes)
    body = await read_body(chunks, rules.max_body_bytes)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("request", f"{len(body)} bytes", f"it must be JSON: {error}") from None
    return KontextRequest.from_untrusted(fields, rules)


async def read_body(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """Read the body of a request.

    Raises:
        RequestTooLarge: It has more than `limit` bytes. Reading stops with the chunk that exceeds them.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        _check_length(len(body), limit)
    return bytes(body)


def _check_length(length: int, limit: int) -> None:
    if length > limit:
        raise RequestTooLarge("request", f"{length} bytes", f"at most {limit} bytes are allowed")


@frozen(kw_only=True)
class TaskMessage:
    """A server-sent event about a task.

    Attributes:
        event: Its name: the state of the task, or ``problem``.
        data: Its JSON.
        id: Its ID: the number of the message.
    """

    event: str
    data: str
    id: str


async def task_messages(task: GenerationTask, every: float | None = 1.0) -> AsyncGenerator[TaskMessage, None]:
    """Yield a message for each change of a task's status, and the last one for its end or for a problem."""
    number = 0
    try:
        async for status in task.updates(every):
            yield _message(number, status.state.value, _describe(status))
            number += 1
    except KontextError as error:
        yield _message(number, "problem", problem_of(error).to_dict())


def _message(number: int, event: str, data: dict[str, Any]) -> TaskMessage:
    return TaskMessage(event=event, data=orjson.dumps(data).decode(), id=str(number))


def _describe(status: TaskStatus) -> dict[str, Any]:
    """Return what a stranger needs to know of a task; the gateway's metadata stay here."""
    known: dict[str, Any] = {"task_id": status.task_id, "state": status.state.value, "progress": status.progress}
    if status.images:
        known["images"] = [image.url for image in status.images]
    if status.error:
        known["error"] = {"code": status.error.code, "message": status.error.message}
    return known
