"""Sends responses, and performs the faults on the wire. Decides nothing."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import HttpVersion11, web
from attrs import evolve, field, frozen

from kontext_async.emulator.corruption import corrupt
from kontext_async.emulator.error_bodies import build_error_body, build_html_page, format_retry_after, get_phrase
from kontext_async.emulator.fault_kinds import FaultKind
from kontext_async.emulator.foreign_texts import KEY_PLACE, build_control_message, build_key_message, escape_key
from kontext_async.emulator.world import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.state import GatewayState

CONNECTION_CHECK_INTERVAL = 0.05
"""Seconds between two checks that the client of a stalled request is still connected."""

LARGE_HEADER_BYTES = 9 * 1024
MANY_HEADERS = 130

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
    FaultKind.BALANCE_TOO_LOW: ("", "the balance is too low"),
    FaultKind.CONTROL_CHARACTERS: ("INVALID_PARAMETER", ""),
    FaultKind.RANGE_REFUSED: ("RANGE_REFUSED", "ranges are not supported"),
    FaultKind.URL_EXPIRED: ("URL_EXPIRED", "request has expired"),
}
"""The code and the message of the faults that respond with a status; empty ones follow from the status."""

KEY_PLACE_IN_JSON = json.dumps(KEY_PLACE).strip('"').encode()

CUTS = {FaultKind.CUT, FaultKind.CUT_BEFORE_BODY, FaultKind.CUT_AFTER_ACCEPT}
STALLS = {FaultKind.STALL, FaultKind.STALL_AFTER_ACCEPT}
DELAYS = {FaultKind.SLOW, FaultKind.SLOW_AFTER_ACCEPT}


@frozen(kw_only=True)
class PreparedResponse:
    """A response before it is sent: a JSON value, text when `content_type` says so, or the bytes of `body`."""

    status: int = HTTPStatus.OK
    value: Any
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict)

    def encode_body(self) -> bytes:
        """Return the bytes of the body."""
        if self.body is not None:
            return self.body
        if self.content_type == "application/json":
            return json.dumps(self.value, separators=(",", ":")).encode()
        return str(self.value).encode(errors="surrogateescape")

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
    if fault.kind is FaultKind.ECHOED_HEAD:
        _echo_head(request)
    if fault.kind in STATUS_ERRORS:
        return prepare_status_error(state, fault)
    prepare = REPLACEMENTS.get(fault.kind)
    return None if prepare is None else prepare(state, request, fault)


def prepare_status_error(state: GatewayState, fault: Fault) -> PreparedResponse:
    """Prepare the response of a fault that is an HTTP error."""
    status = fault.status or HTTPStatus.INTERNAL_SERVER_ERROR
    code, message = STATUS_ERRORS[fault.kind]
    if fault.kind is FaultKind.BALANCE_TOO_LOW:
        code = fault.variant or ""
    if fault.kind is FaultKind.CONTROL_CHARACTERS:
        message = build_control_message(fault.variant or "")
    code = fault.code or code or get_phrase(status).upper().replace(" ", "_")
    message = fault.message or message or get_phrase(status).lower()
    return prepare_refusal(state, Refusal(status=status, code=code, message=message), fault)


def _echo_head(request: web.Request) -> NoReturn:
    """Send the request's head in place of a response, and close the connection."""
    lines = [f"{request.method} {request.raw_path} HTTP/1.1".encode(errors="surrogateescape")]
    lines += [name + b": " + value for name, value in request.raw_headers]
    if request.transport is not None:
        request.transport.write(b"\r\n".join([*lines, b"", b""]))
    disconnect(request)


def _prepare_key_echo(state: GatewayState, request: web.Request, fault: Fault) -> PreparedResponse:
    """Prepare an error that repeats the API key."""
    header = request.headers.get("Authorization", "") or request.headers.get("x-key", "")
    variant = fault.variant or ""
    if variant == "page":
        fault = evolve(fault, text=build_html_page(fault.status or 0, build_key_message(header, variant)))

    def prepare(message: str) -> PreparedResponse:
        refusal = Refusal(status=fault.status or HTTPStatus.BAD_REQUEST, code="INVALID_PARAMETER", message=message)
        return prepare_refusal(state, refusal, fault)

    prefix = prepare(KEY_PLACE).encode_body().find(KEY_PLACE_IN_JSON) if variant == "straddling-body" else 0
    prepared = prepare(build_key_message(header, variant, max(0, prefix)))
    if variant == "json-escaped":
        return evolve(prepared, body=escape_key(prepared.encode_body(), header))
    if variant == "page":
        return evolve(prepared, content_type="text/html")
    if variant == "request-id":
        return evolve(prepared, headers={**prepared.headers, "X-Request-Id": header})
    return prepared


def _prepare_redirect(state: GatewayState, request: web.Request, fault: Fault) -> PreparedResponse:
    location = fault.location
    if location is None:
        origin = state.mirror_url if fault.variant == "origin" else ""
        location = f"{origin}/moved{request.path_qs.removeprefix('/results')}"
    status = fault.status or HTTPStatus.TEMPORARY_REDIRECT
    return PreparedResponse(status=status, value="", content_type="text/plain", headers={"Location": location})


def _prepare_page(_: GatewayState, __: web.Request, fault: Fault) -> PreparedResponse:
    status = fault.status or HTTPStatus.OK
    text = build_html_page(status) if fault.text is None else fault.text
    return PreparedResponse(status=status, value=text, content_type="text/html")


def _prepare_errors(_: GatewayState, __: web.Request, fault: Fault) -> PreparedResponse:
    return PreparedResponse(value={"errors": [fault.message or "the request is not acceptable"]})


REPLACEMENTS = {
    FaultKind.ECHOED_KEY: _prepare_key_echo,
    FaultKind.ERRORS_IN_SUCCESS: _prepare_errors,
    FaultKind.REDIRECT: _prepare_redirect,
    FaultKind.HTML_PAGE: _prepare_page,
}
"""The faults with a response of their own."""


async def send(request: web.Request, prepared: PreparedResponse, fault: Fault | None) -> web.StreamResponse:
    """Send a response, whole or as the fault damages it.

    Raises:
        ClientDisconnected: The body was cut, or framed wrongly.
    """
    if fault is None:
        return prepared.build()
    prepared = evolve(prepared, headers={**prepared.headers, **build_extra_headers(fault)})
    body = prepared.encode_body()
    match fault.kind:
        case FaultKind.SHORT_BODY:
            return await send_wrongly(request, prepared.build(body[: len(body) // 2]), length=len(body))
        case FaultKind.LENGTH_TOO_LONG:
            return await send_wrongly(request, prepared.build(), length=len(body) + 1)
        case FaultKind.MISSING_LAST_CHUNK:
            return await send_wrongly(request, prepared.build(), length=None)
        case _:
            return prepared.build(corrupt(prepared.value, fault))


def build_extra_headers(fault: Fault | None) -> dict[str, str]:
    """Return the headers by which a fault enlarges a response."""
    if fault is not None and fault.kind is FaultKind.LARGE_HEADER:
        return {"X-Trace": "x" * LARGE_HEADER_BYTES}
    if fault is not None and fault.kind is FaultKind.MANY_HEADERS:
        return {f"X-Trace-{number}": "x" for number in range(MANY_HEADERS)}
    return {}


async def send_wrongly(request: web.Request, whole: web.Response, *, length: int | None) -> NoReturn:
    """Send a response whose framing is not true, and close the connection.

    Args:
        request: The request.
        whole: The response: its status, its headers and its body.
        length: The Content-Length to announce; None for chunks without the last one.

    Raises:
        ClientDisconnected: Always.
    """
    response = web.StreamResponse(status=whole.status, headers=whole.headers)
    if length is not None:
        response.content_length = length
    else:
        response.headers.pop("Content-Length", None)
        if request.version >= HttpVersion11:
            response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(whole.body if isinstance(whole.body, bytes) else b"")
    disconnect(request)
