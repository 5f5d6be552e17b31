"""Sends answers, and performs on the wire what a fault asks for. Decides nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
from aiohttp import web

from kontext_async.emulator.answers import error_body, html_page, phrase, retry_after_text
from kontext_async.emulator.context import ShuttingDownError
from kontext_async.emulator.kinds import ErrorShape, FaultKind
from kontext_async.emulator.reshape import damaged
from kontext_async.emulator.world import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.emulator.context import Context
    from kontext_async.emulator.faults import Fault

_LISTEN = 0.05
"""Seconds between two looks at whether the client of a stalled request is still there."""

_MISSING_BYTES = 64

_STATUS_KINDS = {
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
_CUTS = {FaultKind.CUT, FaultKind.CUT_BEFORE_BODY, FaultKind.CUT_AFTER_ACCEPT}
_STALLS = {FaultKind.STALL, FaultKind.STALL_AFTER_ACCEPT}
_DELAYS = {FaultKind.SLOW, FaultKind.SLOW_AFTER_ACCEPT}


@attrs.frozen(kw_only=True)
class Answer:
    """An answer before it is sent: a JSON value, or text when `content_type` says so."""

    status: int = 200
    value: Any
    content_type: str = "application/json"
    headers: Mapping[str, str] = attrs.field(factory=dict)

    def body(self) -> bytes:
        """The bytes of its body."""
        if self.content_type == "application/json":
            return json.dumps(self.value, separators=(",", ":")).encode()
        return str(self.value).encode()

    def response(self, body: bytes | None = None) -> web.Response:
        """As aiohttp sends it, with its own body or another one."""
        headers = {"Content-Type": self.content_type, **self.headers}
        return web.Response(status=self.status, body=self.body() if body is None else body, headers=headers)


class HungUpError(Exception):
    """The connection was closed in place of an answer."""


def hang_up(request: web.Request, how: str = "close") -> NoReturn:
    """Close the connection without an answer: `close` it, or `reset` it.

    Raises:
        HungUpError: Always.
    """
    transport = request.transport
    if transport is not None:
        if how == "reset":
            transport.abort()
        else:
            transport.close()
    raise HungUpError


def is_connected(request: web.Request) -> bool:
    """Whether the client is still there."""
    transport = request.transport
    return transport is not None and not transport.is_closing()


async def stall(context: Context, request: web.Request) -> NoReturn:
    """Answer nothing until the client goes, or the emulator closes.

    Raises:
        HungUpError: The client went.
        ShuttingDownError: The emulator is closing.
    """
    while is_connected(request):
        await context.pause(_LISTEN)
    hang_up(request)


def refuse(context: Context, refusal: Refusal, fault: Fault | None = None) -> Answer:
    """The answer that says no, in the body shape whose turn it is, or that the fault names."""
    request_id = context.request_id()
    headers = {"X-Request-Id": request_id}
    if refusal.retry_after is not None:
        headers["Retry-After"] = retry_after_text(refusal.retry_after, as_date=False, now=0.0)
    if fault is not None and fault.retry_after not in ("", None):
        after = fault.retry_after
        headers["Retry-After"] = retry_after_text(after, as_date=fault.retry_after_date, now=context.clock())
    if fault is not None and fault.text is not None:
        return Answer(status=refusal.status, value=fault.text, content_type="text/plain", headers=headers)
    shape = next(context.shapes) if fault is None or fault.shape is None else fault.shape
    value, content_type = error_body(
        shape, status=refusal.status, code=refusal.code, message=refusal.message, request_id=request_id
    )
    return Answer(status=refusal.status, value=value, content_type=content_type, headers=headers)


async def interrupt(context: Context, request: web.Request, fault: Fault | None) -> Answer | None:
    """Do what the fault does in place of the operation; None when the operation goes on, maybe later.

    Raises:
        HungUpError: The connection was closed.
        ShuttingDownError: The emulator is closing.
    """
    if fault is None:
        return None
    if fault.kind in _CUTS:
        hang_up(request, fault.variant or "close")
    if fault.kind in _STALLS:
        await stall(context, request)
    if fault.kind in _DELAYS:
        await context.pause(fault.seconds or 0.0)
    if fault.kind in _STATUS_KINDS:
        return _status_answer(context, fault)
    if fault.kind is FaultKind.REDIRECT:
        return _redirect(context, request, fault)
    if fault.kind is FaultKind.HTML_PAGE:
        text = html_page(fault.status or 200) if fault.text is None else fault.text
        return Answer(status=fault.status or 200, value=text, content_type="text/html")
    return None


def _status_answer(context: Context, fault: Fault) -> Answer:
    status = fault.status or 500
    code, message = _STATUS_KINDS[fault.kind]
    code = code or phrase(status).upper().replace(" ", "_")
    return refuse(context, Refusal(status=status, code=code, message=message or phrase(status).lower()), fault)


def _redirect(context: Context, request: web.Request, fault: Fault) -> Answer:
    location = fault.location
    if location is None:
        origin = context.mirror_url if fault.variant == "origin" else ""
        location = f"{origin}/moved{request.path_qs.removeprefix('/results')}"
    return Answer(status=fault.status or 307, value="", content_type="text/plain", headers={"Location": location})


async def deliver(request: web.Request, answer: Answer, fault: Fault | None) -> web.StreamResponse:
    """Send an answer, whole or as the fault damages it.

    Raises:
        HungUpError: The body was cut.
    """
    if fault is None:
        return answer.response()
    if fault.kind is FaultKind.SHORT_BODY:
        return await _short(request, answer)
    return answer.response(damaged(answer.value, fault))


async def _short(request: web.Request, answer: Answer) -> NoReturn:
    body = answer.body()
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    response.content_length = len(body) + _MISSING_BYTES
    await response.prepare(request)
    await response.write(body)
    hang_up(request)


@web.middleware
async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
    """End requests quietly whose connection is gone, and answer aiohttp's own errors as the gateway would."""
    try:
        response: web.StreamResponse = await handler(request)
    except (HungUpError, ConnectionError):
        return web.Response()
    except ShuttingDownError:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    except web.HTTPException as error:
        code = error.reason.upper().replace(" ", "_")
        value, content_type = error_body(
            ErrorShape.NESTED, status=error.status, code=code, message=error.reason, request_id=""
        )
        return Answer(status=error.status, value=value, content_type=content_type).response()
    return response
