"""The bodies of HTTP errors in every shape, and the Retry-After header. Pure.

Implements "Errors over HTTP" of the protocol page.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any

from kontext_async.emulator.fault_kinds import ErrorShape


def build_error_body(shape: ErrorShape, *, status: int, code: str, message: str, request_id: str) -> tuple[Any, str]:
    """Return the body of an HTTP error, which is a JSON value or text, and its content type.

    The nested shape has the text as `message` and as `error_message`, since clients read either.
    """
    if shape is ErrorShape.HTML:
        return build_html_page(status), "text/html"
    if shape is ErrorShape.EMPTY:
        return "", "text/plain"
    number = int(code) if code.isascii() and code.isdigit() else code
    bodies: dict[ErrorShape, Any] = {
        ErrorShape.NESTED: {
            "error": {"code": code, "message": message, "error_message": message},
            "request_id": request_id,
        },
        ErrorShape.MESSAGE: {"message": message},
        ErrorShape.ERROR: {"error": message},
        ErrorShape.DETAIL: {"detail": message},
        ErrorShape.DETAIL_LIST: {"detail": [{"loc": ["body"], "msg": message, "type": code.lower()}]},
        ErrorShape.STATUS: {"status": {"code": status, "message": message, "error_code": number}},
    }
    return bodies[shape], "application/json"


def build_html_page(status: int, text: str = "nginx") -> str:
    """Return a page such as a proxy generates, with a `text` at its end."""
    title = f"{status} {get_phrase(status)}"
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n<hr><center>{text}</center>\r\n</body>\r\n</html>\r\n"
    )


def get_phrase(status: int) -> str:
    """Return the reason phrase of an HTTP status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def format_retry_after(value: float | str, *, as_date: bool, now: float) -> str:
    """Return a Retry-After: text verbatim, seconds rounded up, or the HTTP date that many seconds from `now`."""
    if isinstance(value, str):
        return value
    if as_date:
        return format_datetime(datetime.fromtimestamp(math.ceil(now + value), tz=UTC), usegmt=True)
    return str(math.ceil(value))
