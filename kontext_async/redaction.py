"""Functions that make foreign values safe to show: bounded, printable, without secrets and without payloads."""

from __future__ import annotations

import re
import reprlib
from urllib.parse import urlsplit

__all__ = ["safe_repr", "strip_query", "truncate", "truncate_body"]

TRUNCATED_LENGTH = 500
"""The most characters of foreign text in an error."""

VALUE_LENGTH = 120
"""The most characters of a user's value in an error."""

VALUE_BITS = 256
"""Bits from which on only the size of an integer is shown."""

PAYLOAD = re.compile(r"[A-Za-z0-9+/=_-]{120,}")
"""A long run of base64: an image that a body echoes, never part of an explanation."""


def truncate(value: object, limit: int = TRUNCATED_LENGTH) -> str:
    """Return the start of a text, with payloads cut out.

    Args:
        value: The text; of any other value, its repr is used.
        limit: The most characters of the result.
    """
    text = value if isinstance(value, str) else repr(value)
    text = PAYLOAD.sub("…", text[: 8 * limit])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class _BoundedRepr(reprlib.Repr):
    """Creates bounded reprs without payloads. `reprlib` finds the method by the name of a value's type."""

    def __init__(self) -> None:
        super().__init__()
        self.maxother = VALUE_LENGTH

    def repr_str(self, x: str, level: int) -> str:  # noqa: ARG002 # reprlib's signature
        start = x[:80].lstrip().lower()
        if start.startswith("data:"):
            return f"<data URI, {len(x)} characters>"
        return truncate(repr(strip_query(x) if start.startswith(("http://", "https://")) else x), VALUE_LENGTH)

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:  # noqa: ARG002 # as above
        return f"<{type(x).__name__}, {len(x)} bytes>"

    repr_bytearray = repr_bytes

    def repr_memoryview(self, x: memoryview, level: int) -> str:  # noqa: ARG002 # as above
        try:
            return f"<memoryview, {x.nbytes} bytes>"
        except ValueError:
            return "<memoryview, released>"

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 # as above
        return repr(x) if x.bit_length() < VALUE_BITS else f"<int, {x.bit_length()} bits>"


BOUNDED_REPR = _BoundedRepr()


def safe_repr(value: object) -> str:
    """Return a bounded repr of a user's value for an error: only the size of bytes, and no query of a URL.

    The same holds inside lists, tuples, sets and mappings. A repr that raises is replaced.
    """
    return truncate(BOUNDED_REPR.repr(value), VALUE_LENGTH)


def truncate_body(body: bytes, limit: int = TRUNCATED_LENGTH) -> str:
    """Return the start of a response body, on one line."""
    text = body[: 8 * limit].decode("utf-8", "replace")
    return truncate(" ".join(text.split()), limit)


def strip_query(url: str) -> str:
    """Return a URL without user, query and fragment, which may contain secrets; of a data URI, only its size."""
    if url[:80].lstrip()[:5].lower() == "data:":
        return f"<data URI, {len(url)} characters>"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<an unreadable URL>"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
