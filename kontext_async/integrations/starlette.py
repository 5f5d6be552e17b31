"""A session in Starlette, and so in FastAPI; the responses work in Litestar too.

.. code-block:: python

    app = FastAPI(lifespan=lifespan(), exception_handlers=EXCEPTION_HANDLERS)
    app.add_route("/healthz", healthz)


    @app.post("/images")
    async def image(request: Request, session: Annotated[KontextSession, Depends(get_session)]) -> Response:
        wanted = await read_request(request)
        generation = await session.generate(wanted, timeout=60, abandoned=disconnected(request))
        return ImageResponse(session, generation.image)
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import HTTPConnection, Request  # noqa: TC002 # FastAPI resolves them
from starlette.responses import JSONResponse, Response, StreamingResponse

from kontext_async.errors import CallerLeft, KontextError
from kontext_async.integrations import serving
from kontext_async.integrations.problems import MEDIA_TYPE, problem_of
from kontext_async.integrations.serving import GRACE, ServedSession
from kontext_async.models import KontextRequest  # noqa: TC001 # as above
from kontext_async.request_rules import UntrustedRules
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from starlette.types import Receive, Scope, Send

    from kontext_async.models import GeneratedImage
    from kontext_async.session import GenerationTask

__all__ = [
    "EXCEPTION_HANDLERS",
    "ImageResponse",
    "disconnected",
    "event_response",
    "get_session",
    "healthz",
    "lifespan",
    "problem_response",
    "read_request",
    "request_reader",
]


class Receiver(Protocol):
    """A request of an ASGI framework."""

    @property
    def receive(self) -> Callable[[], Awaitable[Any]]:
        """ASGI's ``receive``."""
        ...


STATE = "kontext"
"""The name of the `ServedSession` in the state that the lifespan yields."""

DEFAULT_RULES = UntrustedRules()


def lifespan(
    make_session: Callable[[], KontextSession] = KontextSession,
    *,
    grace: float = GRACE,
    on_start: Callable[[KontextSession], object] | None = None,
) -> Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan for ``Starlette(lifespan=…)`` or ``FastAPI(lifespan=…)`` that starts and closes the session.

    A lifespan of your own enters it: ``async with lifespan()(app) as state: yield {**state, …}``.

    Args:
        make_session: Returns the session, not started.
        grace: Seconds for requests under way when the server stops.
        on_start: Is called with the session before it starts, for example to instrument it.
    """

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Mapping[str, Any]]:  # noqa: ARG001 # Starlette's signature
        async with ServedSession(make_session, grace=grace, on_start=on_start) as served:
            yield {STATE: served}

    return run


def get_session(connection: HTTPConnection) -> KontextSession:
    """Return the session; for FastAPI as ``Depends(get_session)``.

    Raises:
        SessionClosed: The server is stopping.
    """
    return _served(connection).admit()


def _served(connection: HTTPConnection) -> ServedSession:
    served: ServedSession = getattr(connection.state, STATE)
    return served


async def problem_response(request: Request, error: Exception) -> Response:  # noqa: ARG001 # Starlette's signature
    """Respond to an error of this library with problem details (RFC 9457); a client that has left gets nothing."""
    if isinstance(error, CallerLeft) or not isinstance(error, KontextError):
        return Response(status_code=serving.CLIENT_CLOSED_REQUEST)
    problem = problem_of(error)
    return Response(problem.body, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


EXCEPTION_HANDLERS: dict[Any, Any] = {KontextError: problem_response}
"""For ``Starlette(exception_handlers=…)`` or ``FastAPI(exception_handlers=…)``."""


async def healthz(request: Request) -> Response:  # Starlette's signature
    """Respond 200 if this server should get requests, and 503 if not, with the reasons in JSON."""
    is_ready, reasons = _served(request).health()
    return JSONResponse(reasons, status_code=200 if is_ready else 503, headers={"Cache-Control": "no-store"})


async def read_request(request: Request, rules: UntrustedRules = DEFAULT_RULES) -> KontextRequest:
    """Read a request from a JSON body: `KontextRequest.from_untrusted`, with a bound on the size of the body.

    Raises:
        InvalidRequest: It is too large, is not JSON, or breaks the rules.
    """
    length = request.headers.get("content-length", "")
    return await serving.read_request(request.stream(), int(length) if length.isdecimal() else None, rules)


def request_reader(rules: UntrustedRules = DEFAULT_RULES) -> Callable[[Request], Awaitable[KontextRequest]]:
    """Return `read_request` with rules, for FastAPI as ``Depends(request_reader(rules))``."""

    async def read(request: Request) -> KontextRequest:
        return await read_request(request, rules)

    return read


async def disconnected(request: Receiver) -> None:
    """Return when the client has left: ``session.generate(…, abandoned=disconnected(request))``.

    The body of the request must have been read before.
    """
    while (await request.receive())["type"] != "http.disconnect":
        pass


class ImageResponse(Response):
    """Streams an image through to the client while it is downloaded, without storing it.

    Args:
        session: The session.
        image: The image.
        headers: Headers of the response beside its media type and length.
    """

    def __init__(
        self, session: KontextSession, image: GeneratedImage, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(headers=headers)
        self._session = session
        self._image = image
        self._given = dict(headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with self._session.stream(self._image) as pieces:
            headers = self._given | ({} if pieces.size is None else {"Content-Length": str(pieces.size)})
            response = StreamingResponse(pieces, headers=headers, media_type=pieces.media_type)
            await response(scope, receive, send)


def event_response(task: GenerationTask, *, every: float | None = 1.0, grace: float = GRACE) -> EventSourceResponse:
    """Send the changes of a task's status as server-sent events; the last one is its end, or a problem.

    Args:
        task: The task, from `KontextSession.submit` or `KontextSession.attach`.
        every: As in `GenerationTask.updates`.
        grace: Seconds for which events are still sent when the server stops.
    """
    return EventSourceResponse(
        _events(task, every), shutdown_event=anyio.Event(), shutdown_grace_period=grace + 2 * serving.FORCE_AFTER
    )


async def _events(task: GenerationTask, every: float | None) -> AsyncIterator[ServerSentEvent]:
    async for message in serving.task_messages(task, every):
        yield ServerSentEvent(data=message.data, event=message.event, id=message.id)
