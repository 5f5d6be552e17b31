"""Errors from HTTP responses other than success, and the ``Retry-After`` header: PROTOCOL.md, "Errors over HTTP"."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from attrs import frozen

from kontext_async.errors import (
    BALANCE_CODES,
    AuthenticationFailed,
    GatewayError,
    GatewayUnavailable,
    PermissionDenied,
    RateLimited,
    RequestRejected,
)
from kontext_async.protocol.decoding import loads_lenient
from kontext_async.protocol.values import read_integer
from kontext_async.redaction import clean_text, strip_query, truncate, truncate_body

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["error_from_response", "refusal_despite_success", "retry_after"]

ERROR_CLASSES: dict[int, type[GatewayError]] = {
    HTTPStatus.UNAUTHORIZED: AuthenticationFailed,
    HTTPStatus.PAYMENT_REQUIRED: PermissionDenied,
    HTTPStatus.FORBIDDEN: PermissionDenied,
    HTTPStatus.TOO_MANY_REQUESTS: RateLimited,
}
"""The error class of a status that has its own. Others are `RequestRejected` or, from 500 on, `GatewayUnavailable`."""


CLIENT_ERRORS = range(400, 500)

MAX_DETAILS = 5
"""The most items of a ``detail`` list that an error's text has."""


@frozen(kw_only=True)
class _Explanation:
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    status: int | None = None

    @property
    def is_own(self) -> bool:
        """True if the gateway explained itself."""
        return self.code is not None or self.message is not None


def error_from_response(
    status: int,
    body: bytes,
    *,
    request_id: str | None = None,
    task_id: str | None = None,
    location: str | None = None,
    error_class: type[GatewayError] | None = None,
) -> GatewayError:
    """Return the error for an HTTP response other than success.

    Args:
        status: The HTTP status.
        body: The response body: any of the shapes in PROTOCOL.md, HTML, or nothing.
        request_id: The request ID from a header, if there was one; an ID in the body takes precedence.
        task_id: The ID of the polled task, if it was a status request.
        location: The target of a redirect. The text of the error has it without its query.
        error_class: The class of the error; None if the status and the body decide it.
    """
    error = _make_error(status, body, _parse_explanation(body), location, error_class)
    error.request_id = error.request_id or request_id
    error.task_id = task_id
    return error


def refusal_despite_success(status: int, body: bytes) -> GatewayError | None:
    """Return the error that a response with a 2xx status is nevertheless; None if it is not certainly a refusal.

    The vendor's envelope ``{"status": {"code": 403, …}}`` can come with any HTTP status.
    """
    explanation = _parse_explanation(body)
    if explanation.code in BALANCE_CODES:
        return _make_error(explanation.status or status, body, explanation)
    if explanation.status is not None and explanation.status in CLIENT_ERRORS:
        return _make_error(explanation.status, body, explanation)
    return None  # such as a failure of the gateway, which may have accepted the request all the same


def _make_error(
    status: int,
    body: bytes,
    explanation: _Explanation,
    location: str | None = None,
    error_class: type[GatewayError] | None = None,
) -> GatewayError:
    reason = explanation.message or truncate_body(body, 100) or "no reason was given"
    if location:
        reason = f"it redirects to {truncate(strip_query(location))}, which is not followed: check the base URL"
    return (error_class or _class_of(status, explanation))(
        f"the gateway returned HTTP {status}: {truncate(reason)}",
        status=status,
        code=explanation.code,
        body=truncate_body(body),
        from_gateway=explanation.is_own,
        request_id=explanation.request_id,
    )


def _class_of(status: int, explanation: _Explanation) -> type[GatewayError]:
    if explanation.code in BALANCE_CODES:
        return PermissionDenied
    is_server_error = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return ERROR_CLASSES.get(status, GatewayUnavailable if is_server_error else RequestRejected)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the wait that a ``Retry-After`` header asks for, in seconds.

    Args:
        value: The header: seconds, or an HTTP date; None if there was no header.
        now: The present time, for a date.

    Returns:
        Seconds, at least 0; None if there was no header, or it is invalid.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date if date.tzinfo else date.replace(tzinfo=now.tzinfo)).timestamp() - now.timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def _parse_explanation(body: bytes) -> _Explanation:
    try:
        payload = loads_lenient(body)
    except (ValueError, RecursionError):
        return _Explanation()
    if not isinstance(payload, dict):
        return _Explanation()
    error = _get_object(payload, "error")
    envelope = _get_object(payload, "status")
    return _Explanation(
        code=_first_text(
            envelope.get("error_code"),
            error.get("error_code"),
            payload.get("error_code"),
            error.get("code"),
            payload.get("code"),
            envelope.get("code"),
        ),
        message=_first_text(
            error.get("message"),
            error.get("error_message"),
            payload.get("error"),
            envelope.get("message"),
            payload.get("message"),
            payload.get("error_message"),
            _describe_detail(payload.get("detail")),
        ),
        request_id=_first_text(
            payload.get("request_id"), error.get("request_id"), envelope.get("request_id"), envelope.get("requestId")
        ),
        status=read_integer(envelope.get("code")),
    )


def _get_object(payload: dict[str, Any], key: str) -> dict[str, Any]:
    value = payload.get(key)
    return value if isinstance(value, dict) else {}


def _describe_detail(detail: object) -> object:
    """Return the text of a ``detail``: a text, one object, or a list of what is wrong and where it is."""
    if not isinstance(detail, dict | list):
        return detail
    items = detail if isinstance(detail, list) else [detail]
    return "; ".join(text for text in map(_describe_item, items[:MAX_DETAILS]) if text)


def _describe_item(item: object) -> str | None:
    if not isinstance(item, dict):
        return _first_text(item)
    place = item.get("loc")
    parts = place if isinstance(place, list) else [place]
    where = ".".join(text for text in map(_first_text, parts[:MAX_DETAILS]) if text)
    reason = _first_text(item.get("msg"), item.get("message"), item.get("type")) or ""
    return f"{where}: {reason}" if where else reason


def _first_text(*candidates: object) -> str | None:
    """Return the first candidate that is text or an integer, as bounded text."""
    for value in candidates:
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return truncate(clean_text(_to_text(value)))
    return None


def _to_text(value: str | int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python converts
        return "a number that is too long"
