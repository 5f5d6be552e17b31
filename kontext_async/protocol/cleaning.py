"""A response body without the key and without invisible characters.

The gateway may echo the key or send control characters in any text. A body is cleaned once, before anything is read
from it, so that statuses, events, errors, prices and metadata are safe. Nearly every body is clean, which costs a few
scans in C to find out: half a microsecond, one percent of a status request.
"""

from __future__ import annotations

import json
import re
from itertools import islice

import orjson
from attrs import define

from kontext_async.redaction import HEAD_LENGTH, clean_text, clean_url, contains_secret

__all__ = ["clean_body"]

CLOSER_LOOK = {*range(0x20), *range(0x7F, 0x100), *b"\\%&"} - {*b"\t\r\n"}

PLAIN = bytes((code + 1) % 0x100 if code in CLOSER_LOOK else code for code in range(0x100))
"""A translation that changes every byte that needs a closer look: what is no visible ASCII, and what begins an escape.

Line breaks and tabs are plain: strict JSON has them only between its values."""

ENDS = (b"}", b"\n", b"")
"""The last byte of a body that was not cut off within a text."""

TEXT_BYTES = 64 * 1024
"""Bytes that are kept of a body that is not JSON. Only the start of it is ever shown."""

LARGE_BODY = 256 * 1024
"""Bytes of a body from which on its containers are cut, because cleaning all of it would block the event loop."""

MAX_VALUES = 10_000
"""Values that are kept of a large body."""

MAX_ITEMS = 200
"""Items that are kept of each list or object of a large body. No field of the protocol has that many."""

MAX_DEPTH = 100
"""Levels that are kept of a body."""

URL_START = re.compile(r"\s*https?://", re.IGNORECASE)


def clean_body(body: bytes, secret: str) -> bytes:
    """Clean every string of a JSON body, keys included, or the text of a body that is not JSON.

    Args:
        body: The response body. A clean one is returned as it is.
        secret: The API key.

    Returns:
        The cleaned body in UTF-8. Of a body that is not JSON, only the start.
    """
    if body.translate(PLAIN) is body and body[-1:] in ENDS and secret[:HEAD_LENGTH] not in body.decode():
        return body
    return _clean_closely(body, secret)


def _clean_closely(body: bytes, secret: str) -> bytes:
    is_large = len(body) > LARGE_BODY
    if not is_large and body.isascii() and b"\\" not in body:  # such as a body with a URL that has a query
        text = body.decode().strip(" \t\r\n")  # the white space of JSON: others may be control characters
        if text.isprintable() and text[-1:] == "}" and not contains_secret(text, secret):
            return body
    try:
        document = _parse(body)
        walk = _Walk(secret, MAX_ITEMS, MAX_VALUES) if is_large else _Walk(secret, LARGE_BODY, LARGE_BODY)
        return _encode(walk.clean(document, 0))
    except ValueError:
        prefix = ""
    except RecursionError:  # a reader with more room on the stack must not parse what could not be cleaned
        prefix = "nested too deeply: "
    return clean_text(prefix + _decode(body[:TEXT_BYTES]), secret, is_cut=True).encode()


def _parse(body: bytes) -> object:
    """Parse a body; control characters inside text and broken UTF-8 are no reason to lose a paid task.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(_decode(body), strict=False)


def _decode(body: bytes) -> str:
    return body.decode(json.detect_encoding(body), "replace").removeprefix("\ufeff")


def _encode(document: object) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # an integer of more than 64 bits
        return json.dumps(document, ensure_ascii=False).encode()


@define
class _Walk:
    """One walk through a document, which cleans its strings and ends when there are too many values."""

    secret: str
    items: int
    values: int

    def clean(self, value: object, depth: int) -> object:
        """Return the value with all strings cleaned, without what is too deep or too much."""
        self.values -= 1
        if isinstance(value, str):
            return clean_url(value, self.secret) if URL_START.match(value) else clean_text(value, self.secret)
        if not isinstance(value, dict | list):
            return value
        if depth == MAX_DEPTH:
            return "nested too deeply"
        if isinstance(value, list):
            return [self.clean(item, depth + 1) for item in islice(value, self.items) if self.values > 0]
        return {
            clean_text(key, self.secret): self.clean(item, depth + 1)
            for key, item in islice(value.items(), self.items)
            if self.values > 0
        }
