"""A session in aiohttp's server.

.. code-block:: python

    app = web.Application()
    setup(app)
    app.router.add_get("/healthz", healthz)


    async def image(request: web.Request) -> web.StreamResponse:
        session = get_session(request)
        wanted = await read_request(request)
        generation = await session.generate(wanted, timeout=60, abandoned=disconnected(request))
        return await send_image(request, session, generation.image)
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp_sse import sse_response

from kontext_async.errors import CallerLeft, KontextError
from kontext_async.integrations import serving
from kontext_async.integrations.problems import MEDIA_TYPE, problem_of
from kontext_async.integrations.serving import GRACE, ServedSession
from kontext_async.request_rules import UntrustedRules
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp.typedefs import Handler

    from kontext_async.models import GeneratedImage, KontextRequest
    from kontext_async.session import GenerationTask

__all__ = ["disconnected", "get_session", "healthz", "read_request", "send_events", "send_image", "setup"]

SERVED = web.AppKey("kontext", ServedSession)

DEFAULT_RULES = UntrustedRules()

LOOK_EVERY = 0.25
"""Seconds between two looks at the connection: aiohttp does not report that a client has left."""


def setup(
    app: web.Application,
    make_session: Callable[[], KontextSession] = KontextSession,
    *,
    grace: float = GRACE,
    on_start: Callable[[KontextSession], object] | None = None,
) -> None:
    """Start and close a session with the application, and respond to its errors with problem details (RFC 9457).

    Args:
        app: The application.
        make_session: Returns the session, not started.
        grace: Seconds for requests under way when the server stops.
        on_start: Is called with the session before it starts, for example to instrument it.
    """

    async def run(app: web.Application) -> AsyncIterator[None]:
        async with ServedSession(make_session, grace=grace, on_start=on_start) as app[SERVED]:
            yield

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(_on_shutdown)
    app.middlewares.append(_respond_with_problems)


async def _on_shutdown(app: web.Application) -> None:  # aiohttp's signature
    app[SERVED].on_server_stopping()


@web.middleware
async def _respond_with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except CallerLeft:
        return web.Response(status=serving.CLIENT_CLOSED_REQUEST)
    except KontextError as error:
        problem = problem_of(error)
        return web.Response(body=problem.body, status=problem.status, headers=problem.headers, content_type=MEDIA_TYPE)


def get_session(request: web.Request) -> KontextSession:
    """Return the session.

    Raises:
        SessionClosed: The server is stopping.
    """
    return request.config_dict[SERVED].admit()


async def healthz(request: web.Request) -> web.Response:  # aiohttp's signature
    """Respond 200 if this server should get requests, and 503 if not, with the reasons in JSON."""
    is_ready, reasons = request.config_dict[SERVED].health()
    return web.json_response(reasons, status=200 if is_ready else 503, headers={"Cache-Control": "no-store"})


async def read_request(request: web.Request, rules: UntrustedRules = DEFAULT_RULES) -> KontextRequest:
    """Read a request from a JSON body: `KontextRequest.from_untrusted`, with a bound on the size of the body.

    The rules bound the body; ``client_max_size`` of the application does not.

    Raises:
        InvalidRequest: It is too large, is not JSON, or breaks the rules.
    """
    return await serving.read_request(request.content.iter_any(), request.content_length, rules)


async def disconnected(request: web.Request) -> None:
    """Return when the client has left: ``session.generate(…, abandoned=disconnected(request))``."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 # there is no event
        await asyncio.sleep(LOOK_EVERY)


async def send_image(
    request: web.Request,
    session: KontextSession,
    image: GeneratedImage,
    *,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Stream an image through to the client while it is downloaded, without storing it.

    Raises:
        DownloadFailed: The image cannot be downloaded.
    """
    async with session.stream(image) as pieces:
        response = web.StreamResponse(headers=headers)
        response.content_type = pieces.media_type
        response.content_length = pieces.size
        await response.prepare(request)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    return response


async def send_events(request: web.Request, task: GenerationTask, *, every: float | None = 1.0) -> web.StreamResponse:
    """Send the changes of a task's status as server-sent events; the last one is its end, or a problem.

    Args:
        request: The request.
        task: The task, from `KontextSession.submit` or `KontextSession.attach`.
        every: As in `GenerationTask.updates`.
    """
    async with sse_response(request) as response, aclosing(serving.task_messages(task, every)) as messages:
        async for message in messages:
            await response.send(message.data, event=message.event, id=message.id)
    return response
