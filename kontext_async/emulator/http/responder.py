"""Sends responses, and performs the faults on the wire. Decides nothing."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web
from attrs import field, frozen

from kontext_async.emulator.corruption import corrupt
from kontext_async.emulator.error_bodies import build_error_body, build_html_page, format_retry_after, get_phrase
from kontext_async.emulator.fault_kinds import ErrorShape, FaultKind
from kontext_async.emulator.http.state import ShuttingDown
from kontext_async.emulator.world import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.state import GatewayState

CONNECTION_CHECK_INTERVAL = 0.05
"""Seconds between two checks that the client of a stalled request is still connected."""

MISSING_BYTES = 64
"""The number of bytes by which a short body is shorter than its Content-Length."""

STATUS_ERRORS = {
    FaultKind.RATE_LIMITED: ("RATE_LIMIT_EXCEEDED", "too many requests"),
    FaultKind.HTTP_STATUS: ("", ""),
    FaultKind.HTTP_STATUS_AFTER_ACCEPT: ("", ""),
    FaultKind.UNAVAILABLE: ("SERVICE_UNAVAILABLE", "try again later"),
    FaultKind.BAD_GATEWAY: ("BAD_GATEWAY", "bad gateway"),
    FaultKind.GATEWAY_TIMEOUT: ("GATEWAY_TIMEOUT", "gateway timeout"),
    FaultKind.UNAUTHORIZED: ("UNAUTHORIZED", "the API key is invalid"),
    FaultKind.FORBIDDEN: ("FORBIDDEN", "no permission"),
    FaultKind.NOT_FOUND: ("NOT_FOUND", "not found"),
    FaultKind.URL_EXPIRED: ("URL_EXPIRED", "request has expired"),
}
"""The code and the message of the faults that respond with a status; empty ones follow from the status."""

CUTS = {FaultKind.CUT, FaultKind.CUT_BEFORE_BODY, FaultKind.CUT_AFTER_ACCEPT}
STALLS = {FaultKind.STALL, FaultKind.STALL_AFTER_ACCEPT}
DELAYS = {FaultKind.SLOW, FaultKind.SLOW_AFTER_ACCEPT}


@frozen(kw_only=True)
class PreparedResponse:
    """A response before it is sent: a JSON value, or text when `content_type` says so."""

    status: int = HTTPStatus.OK
    value: Any
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict)

    def encode_body(self) -> bytes:
        """Return the bytes of the body."""
        if self.content_type == "application/json":
            return json.dumps(self.value, separators=(",", ":")).encode()
        return str(self.value).encode()

    def build(self, body: bytes | None = None) -> web.Response:
        """Return the response for aiohttp, with its own body or with `body`."""
        headers = {"Content-Type": self.content_type, **self.headers}
        return web.Response(status=self.status, body=self.encode_body() if body is None else body, headers=headers)


class ClientDisconnected(Exception):
    """The client's connection was closed in place of a response."""


def disconnect(request: web.Request, how: str = "close") -> NoReturn:
    """Close the connection without a response: `close` it, or `reset` it.

    Raises:
        ClientDisconnected: Always.
    """
    transport = request.transport
    if transport is not None:
        if how == "reset":
            transport.abort()
        else:
            transport.close()
    raise ClientDisconnected


def is_connected(request: web.Request) -> bool:
    """Return whether the client is still connected."""
    transport = request.transport
    return transport is not None and not transport.is_closing()


async def stall(state: GatewayState, request: web.Request) -> NoReturn:
    """Send nothing until the client disconnects, or the emulator closes.

    Raises:
        ClientDisconnected: The client disconnected.
        ShuttingDown: The emulator is closing.
    """
    while is_connected(request):
        await state.pause(CONNECTION_CHECK_INTERVAL)
    disconnect(request)


def prepare_refusal(state: GatewayState, refusal: Refusal, fault: Fault | None = None) -> PreparedResponse:
    """Prepare the response of a refusal, in the shape of the fault, or else in the next one of the shapes in turn."""
    request_id = state.create_request_id()
    headers = {"X-Request-Id": request_id}
    if refusal.retry_after is not None:
        headers["Retry-After"] = format_retry_after(refusal.retry_after, as_date=False, now=0.0)
    if fault is not None and fault.retry_after not in ("", None):
        after = fault.retry_after
        headers["Retry-After"] = format_retry_after(after, as_date=fault.retry_after_date, now=state.clock())
    if fault is not None and fault.text is not None:
        return PreparedResponse(status=refusal.status, value=fault.text, content_type="text/plain", headers=headers)
    shape = next(state.shapes) if fault is None or fault.shape is None else fault.shape
    value, content_type = build_error_body(
        shape, status=refusal.status, code=refusal.code, message=refusal.message, request_id=request_id
    )
    return PreparedResponse(status=refusal.status, value=value, content_type=content_type, headers=headers)


async def perform_fault(state: GatewayState, request: web.Request, fault: Fault | None) -> PreparedResponse | None:
    """Perform the fault in place of the operation.

    Returns:
        The response to send; None when the operation continues, possibly after a delay.

    Raises:
        ClientDisconnected: The connection was closed.
        ShuttingDown: The emulator is closing.
    """
    if fault is None:
        return None
    if fault.kind in CUTS:
        disconnect(request, fault.variant or "close")
    if fault.kind in STALLS:
        await stall(state, request)
    if fault.kind in DELAYS:
        await state.pause(fault.seconds or 0.0)
    if fault.kind in STATUS_ERRORS:
        return _prepare_status_error(state, fault)
    if fault.kind is FaultKind.REDIRECT:
        return _prepare_redirect(state, request, fault)
    if fault.kind is FaultKind.HTML_PAGE:
        status = fault.status or HTTPStatus.OK
        text = build_html_page(status) if fault.text is None else fault.text
        return PreparedResponse(status=status, value=text, content_type="text/html")
    return None


def _prepare_status_error(state: GatewayState, fault: Fault) -> PreparedResponse:
    status = fault.status or HTTPStatus.INTERNAL_SERVER_ERROR
    code, message = STATUS_ERRORS[fault.kind]
    code = code or get_phrase(status).upper().replace(" ", "_")
    refusal = Refusal(status=status, code=code, message=message or get_phrase(status).lower())
    return prepare_refusal(state, refusal, fault)


def _prepare_redirect(state: GatewayState, request: web.Request, fault: Fault) -> PreparedResponse:
    location = fault.location
    if location is None:
        origin = state.mirror_url if fault.variant == "origin" else ""
        location = f"{origin}/moved{request.path_qs.removeprefix('/results')}"
    status = fault.status or HTTPStatus.TEMPORARY_REDIRECT
    return PreparedResponse(status=status, value="", content_type="text/plain", headers={"Location": location})


async def send(request: web.Request, prepared: PreparedResponse, fault: Fault | None) -> web.StreamResponse:
    """Send a response, whole or as the fault damages it.

    Raises:
        ClientDisconnected: The body was cut.
    """
    if fault is None:
        return prepared.build()
    if fault.kind is FaultKind.SHORT_BODY:
        return await _send_short_body(request, prepared)
    return prepared.build(corrupt(prepared.value, fault))


async def _send_short_body(request: web.Request, prepared: PreparedResponse) -> NoReturn:
    body = prepared.encode_body()
    response = web.StreamResponse(status=prepared.status, headers={"Content-Type": prepared.content_type})
    response.content_length = len(body) + MISSING_BYTES
    await response.prepare(request)
    await response.write(body)
    disconnect(request)


@web.middleware
async def handle_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """End requests without a connection quietly, and send aiohttp's own errors in the gateway's shape."""
    try:
        response = await handler(request)
    except (ClientDisconnected, ConnectionError):
        return web.Response()
    except ShuttingDown:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    except web.HTTPException as error:
        code = error.reason.upper().replace(" ", "_")
        value, content_type = build_error_body(
            ErrorShape.NESTED, status=error.status, code=code, message=error.reason, request_id=""
        )
        return PreparedResponse(status=error.status, value=value, content_type=content_type).build()
    return response
