"""What an HTTP status and body other than success mean: PROTOCOL.md, "Errors over HTTP". No I/O in here."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
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
from kontext_async.redaction import body_excerpt, truncate

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["error_from_response", "retry_after"]

KINDS: dict[int, type[GatewayError]] = {
    401: AuthenticationFailed,
    402: PermissionDenied,
    403: PermissionDenied,
    429: RateLimited,
}
SERVER_ERRORS = 500


@frozen(kw_only=True)
class _Explanation:
    code: str | None = None
    message: str | None = None
    request_id: str | None = None


def error_from_response(
    status: int, body: bytes, *, request_id: str | None = None, task_id: str | None = None
) -> GatewayError:
    """The error that an HTTP answer other than success means.

    Args:
        status: The HTTP status.
        body: The answer's body: any of the shapes in PROTOCOL.md, HTML, or nothing.
        request_id: The request's id, if a header named it; the body's goes first.
        task_id: The task that was asked about, if it was one.
    """
    told = _explanation(body)
    kind = KINDS.get(status, GatewayUnavailable if status >= SERVER_ERRORS else RequestRejected)
    reason = told.message or body_excerpt(body, 100) or "without a reason"
    return kind(
        f"the gateway answered {status}: {truncate(reason)}",
        status=status,
        code=told.code,
        body=body_excerpt(body),
        request_id=told.request_id or request_id,
        task_id=task_id,
    )


def retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a ``Retry-After`` header asks to wait.

    Args:
        value: The header: seconds, or an HTTP date; None where there was none.
        now: The present time, for a date.

    Returns:
        Seconds, at least 0; None where there was no header, or none that can be read.
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


def _explanation(body: bytes) -> _Explanation:
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
        code=_first(inner.get("code"), payload.get("code")),
        message=_first(*candidates),
        request_id=_first(payload.get("request_id"), inner.get("request_id")),
    )


def _first(*candidates: object) -> str | None:
    """The first that is text or a number, as bounded text."""
    for value in candidates:
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return truncate(str(value))
    return None
