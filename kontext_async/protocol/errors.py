"""Errors from HTTP responses other than success, and the ``Retry-After`` header: PROTOCOL.md, "Errors over HTTP"."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from attrs import frozen

from kontext_async.errors import (
    AuthenticationFailed,
    GatewayError,
    GatewayUnavailable,
    PermissionDenied,
    RateLimited,
    RequestRejected,
)
from kontext_async.protocol.decoding import loads_lenient
from kontext_async.redaction import truncate, truncate_body

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["error_from_response", "retry_after"]

ERROR_CLASSES: dict[int, type[GatewayError]] = {
    HTTPStatus.UNAUTHORIZED: AuthenticationFailed,
    HTTPStatus.PAYMENT_REQUIRED: PermissionDenied,
    HTTPStatus.FORBIDDEN: PermissionDenied,
    HTTPStatus.TOO_MANY_REQUESTS: RateLimited,
}
"""The error class of a status that has its own. Others are `RequestRejected` or, from 500 on, `GatewayUnavailable`."""


@frozen(kw_only=True)
class _Explanation:
    code: str | None = None
    message: str | None = None
    request_id: str | None = None


def error_from_response(
    status: int, body: bytes, *, request_id: str | None = None, task_id: str | None = None
) -> GatewayError:
    """Return the error for an HTTP response other than success.

    Args:
        status: The HTTP status.
        body: The response body: any of the shapes in PROTOCOL.md, HTML, or nothing.
        request_id: The request ID from a header, if there was one; an ID in the body takes precedence.
        task_id: The ID of the polled task, if it was a status request.
    """
    explanation = _parse_explanation(body)
    is_server_error = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    error_class = ERROR_CLASSES.get(status, GatewayUnavailable if is_server_error else RequestRejected)
    reason = explanation.message or truncate_body(body, 100) or "no reason was given"
    return error_class(
        f"the gateway returned HTTP {status}: {truncate(reason)}",
        status=status,
        code=explanation.code,
        body=truncate_body(body),
        request_id=explanation.request_id or request_id,
        task_id=task_id,
    )


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
    error = payload.get("error")
    inner: dict[str, Any] = error if isinstance(error, dict) else {}
    candidates = (
        inner.get("message"),
        inner.get("error_message"),
        error,
        payload.get("message"),
        payload.get("error_message"),
        payload.get("detail"),
    )
    return _Explanation(
        code=_first_text(inner.get("code"), payload.get("code")),
        message=_first_text(*candidates),
        request_id=_first_text(payload.get("request_id"), inner.get("request_id")),
    )


def _first_text(*candidates: object) -> str | None:
    """Return the first candidate that is text or an integer, as bounded text."""
    for value in candidates:
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return truncate(str(value))
    return None
