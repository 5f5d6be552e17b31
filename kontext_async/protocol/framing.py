"""Responses whose framing is broken: the connection ended, or a length was wrong, but what matters came."""

from __future__ import annotations

import json
import re
from typing import Any

from kontext_async.protocol.decoding import loads_lenient

__all__ = ["find_response", "is_whole", "read_cut_object"]

FIRST_REFUSAL = 300
STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})[ \r\n]")
DECODER = json.JSONDecoder()
LENIENT_DECODER = json.JSONDecoder(strict=False)
NAME = re.compile(r'\s*"([^"\\]{1,80})"\s*:\s*')
MEMBER_END = re.compile(r"\s*[,}]")


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


def read_cut_object(body: bytes) -> dict[str, Any]:
    """Return the members of a JSON object that came complete, although its end is missing.

    A number counts only with what follows it: ``4`` may be the start of ``40``.

    Args:
        body: The bytes of the body that came.
    """
    text = body.decode("utf-8", "replace").lstrip()
    members: dict[str, Any] = {}
    position = 1
    while text.startswith("{") and (name := NAME.match(text, position)):
        try:
            value, end = LENIENT_DECODER.raw_decode(text, name.end())
        except (ValueError, RecursionError):
            break
        following = MEMBER_END.match(text, end)
        if following is None and not isinstance(value, str):
            break
        members[name[1]] = value
        if following is None or following[0][-1] == "}":
            break
        position = following.end()
    return members
