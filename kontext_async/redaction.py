"""What may be shown of what came from elsewhere: bounded, printable, without secrets and without payloads."""

from __future__ import annotations

import re
import reprlib
from urllib.parse import urlsplit

__all__ = ["body_excerpt", "safe_repr", "strip_query", "truncate"]

TRUNCATED_LENGTH = 500
"""Characters of foreign text that an error carries at most."""

PAYLOAD = re.compile(r"[A-Za-z0-9+/=_-]{120,}")
"""Long runs of base64: an image that a body echoes, never a word of an explanation."""


def truncate(value: object, limit: int = TRUNCATED_LENGTH) -> str:
    """A bounded piece of a text, with payloads cut out.

    Args:
        value: The text; anything else is shown by its repr.
        limit: The length of the result, in characters, at most.
    """
    text = value if isinstance(value, str) else repr(value)
    text = PAYLOAD.sub("…", text[: 8 * limit])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def safe_repr(value: object) -> str:
    """What a user passed in, for an error: of bytes only the size, of a URL no query, of a text a bounded piece.

    The same holds inside of lists, tuples, sets and mappings. A repr that raises is left out.
    """
    return truncate(_SHOWN.repr(value), SHOWN_LENGTH)


class _Shown(reprlib.Repr):
    """Bounded reprs without payloads; `reprlib` looks for a method by the name of a value's type."""

    def __init__(self) -> None:
        super().__init__()
        self.maxother = SHOWN_LENGTH

    def repr_str(self, x: str, level: int) -> str:  # noqa: ARG002 # reprlib's signature
        start = x[:80].lstrip().lower()
        if start.startswith("data:"):
            return f"<data URI, {len(x)} characters>"
        return truncate(repr(strip_query(x) if start.startswith(("http://", "https://")) else x), SHOWN_LENGTH)

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:  # noqa: ARG002 # as above
        return f"<{type(x).__name__}, {len(x)} bytes>"

    repr_bytearray = repr_bytes

    def repr_memoryview(self, x: memoryview, level: int) -> str:  # noqa: ARG002 # as above
        try:
            return f"<memoryview, {x.nbytes} bytes>"
        except ValueError:
            return "<memoryview, released>"

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 # as above
        return repr(x) if x.bit_length() < SHOWN_BITS else f"<int, {x.bit_length()} bits>"


SHOWN_LENGTH = 120
SHOWN_BITS = 256
_SHOWN = _Shown()


def body_excerpt(body: bytes, limit: int = TRUNCATED_LENGTH) -> str:
    """A bounded piece of an answer's body, on one line."""
    text = body[: 8 * limit].decode("utf-8", "replace")
    return truncate(" ".join(text.split()), limit)


def strip_query(url: str) -> str:
    """A URL that may be shown: without user, query and fragment, which may hold a signature; of data, only the size."""
    if url[:80].lstrip()[:5].lower() == "data:":
        return f"<data URI, {len(url)} characters>"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<an unreadable URL>"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
