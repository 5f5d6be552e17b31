"""Handles what goes wrong with a request: aiohttp's errors in the gateway's shape, and one line for the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from kontext_async.emulator.error_bodies import build_error_body
from kontext_async.emulator.fault_kinds import ErrorShape
from kontext_async.emulator.http.responder import ClientDisconnected, PreparedResponse
from kontext_async.emulator.http.state import ShuttingDown

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from kontext_async.emulator.http.state import GatewayState

LOGGER = logging.getLogger("kontext_async.emulator")


def shorten_record(record: logging.LogRecord) -> bool:
    """Reduce a client's error to one line, at level INFO and without the request; leave other records as they are."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError):
        record.msg, record.args = "the request is no HTTP: %s", (type(error).__name__,)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


LOGGER.addFilter(shorten_record)


def create_error_handler(state: GatewayState) -> Middleware:
    """Return a middleware that ends requests without a connection quietly, and gives aiohttp's errors our shape."""

    @web.middleware
    async def handle_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (ClientDisconnected, ConnectionError):
            return web.Response()
        except ShuttingDown:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        except web.HTTPException as error:
            return prepare_http_error(state, error).build()

    return handle_errors


def prepare_http_error(state: GatewayState, error: web.HTTPException) -> PreparedResponse:
    """Prepare the response of one of aiohttp's own errors, such as 404 or 405."""
    request_id = state.create_request_id()
    headers = {"X-Request-Id": request_id}
    if "Allow" in error.headers:
        headers["Allow"] = error.headers["Allow"]
    code = error.reason.upper().replace(" ", "_")
    value, content_type = build_error_body(
        ErrorShape.NESTED, status=error.status, code=code, message=error.reason, request_id=request_id
    )
    return PreparedResponse(status=error.status, value=value, content_type=content_type, headers=headers)
