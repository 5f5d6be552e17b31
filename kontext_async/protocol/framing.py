"""Responses whose framing is broken: the connection ended, or a length was wrong, but what matters came."""

from __future__ import annotations

import json
import re

from kontext_async.protocol.decoding import loads_lenient

__all__ = ["find_response", "is_whole"]

FIRST_REFUSAL = 300
STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})[ \r\n]")
DECODER = json.JSONDecoder()


def is_whole(status: int, body: bytes) -> bool:
    """Return True if a response can be read although its end is missing.

    A refusal says what matters in its status. A success does so in its body, which must be a complete JSON object.

    Args:
        status: The HTTP status.
        body: The bytes of the body that came.
    """
    if status >= FIRST_REFUSAL:
        return True
    if not body.rstrip().endswith(b"}"):
        return False
    try:
        return isinstance(loads_lenient(body), dict)
    except (ValueError, RecursionError):
        return False


def find_response(received: bytes) -> tuple[int, bytes] | None:
    """Find the status and the body in bytes that an HTTP parser refused.

    Args:
        received: A response from its first byte. Its head may have invalid lines, and its body a wrong length, chunks
            that are none, or something behind it.

    Returns:
        The status, and the first JSON object of the body; None if there is no status line, or a success has no
        complete object.
    """
    match = STATUS_LINE.match(received)
    if match is None:
        return None
    status = int(match[1])
    body = received.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
    start = max(body.find("{"), 0)
    try:
        found, end = DECODER.raw_decode(body, start)
    except (ValueError, RecursionError):
        found, end = None, 0
    if isinstance(found, dict):
        return status, body[start:end].encode()
    return (status, b"") if status >= FIRST_REFUSAL else None
