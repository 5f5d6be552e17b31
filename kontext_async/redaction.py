"""What may be shown of what came from elsewhere: bounded, printable, without secrets and without payloads."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["excerpt", "shown_body", "shown_value", "without_query"]

EXCERPT_LENGTH = 500
"""Characters of foreign text that an error carries at most."""

PAYLOAD = re.compile(r"[A-Za-z0-9+/=_-]{120,}")
"""Long runs of base64: an image that a body echoes, never a word of an explanation."""


def excerpt(value: object, limit: int = EXCERPT_LENGTH) -> str:
    """A bounded piece of a text, with payloads cut out.

    Args:
        value: The text; anything else is shown by its repr.
        limit: The length of the result, in characters, at most.
    """
    text = value if isinstance(value, str) else repr(value)
    text = PAYLOAD.sub("…", text[: 8 * limit])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def shown_value(value: object) -> str:
    """What a user passed in, for an error: of bytes only the size, of a URL no query, of a text a bounded piece."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{type(value).__name__}, {memoryview(value).nbytes} bytes>"
    if isinstance(value, str):
        start = value[:8].lower()
        if start.startswith("data:"):
            return f"<data URI, {len(value)} characters>"
        if start.startswith(("http://", "https://")):
            value = without_query(value)
    return excerpt(repr(value), 120)


def shown_body(body: bytes, limit: int = EXCERPT_LENGTH) -> str:
    """A bounded piece of an answer's body, on one line."""
    text = body[: 8 * limit].decode("utf-8", "replace")
    return excerpt(" ".join(text.split()), limit)


def without_query(url: str) -> str:
    """A URL that may be shown: without user, query and fragment, which may hold a signature."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<an unreadable URL>"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
