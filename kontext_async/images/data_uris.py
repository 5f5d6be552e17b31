"""Data URIs: RFC 2397, decoded piece by piece, so that a large one is never in memory twice. No I/O."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from attrs import field, frozen

__all__ = ["Base64Payload", "decoded", "is_data_uri", "payload_of"]


@frozen(eq=False)
class Base64Payload:
    """What stands in base64 in a data URI, without percent-encoding.

    Attributes:
        size: Its bytes, decoded.
    """

    _uri: str = field(repr=False)
    _start: int
    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Decode `length` bytes at `offset`.

        Raises:
            ValueError: It is no base64.
        """
        first = offset // 3
        last = -(-min(offset + length, self.size) // 3)
        text = self._uri[self._start + 4 * first : self._start + 4 * last]
        data = _from_base64(text)
        if len(data) != min(3 * last, self.size) - 3 * first:
            raise ValueError("its base64 is invalid: it goes on after its end")
        skipped = offset - 3 * first
        return data[skipped : skipped + length] if skipped or len(data) > length else data


def is_data_uri(text: str) -> bool:
    """Whether a text is meant as a data URI."""
    return text[:5].lower() == "data:"


def payload_of(uri: str) -> Base64Payload | bytes:
    """What a data URI holds: all of it if it is percent-encoded, and else what decodes it piece by piece.

    Raises:
        ValueError: It has no comma, or no base64 where base64 is announced.
    """
    comma = uri.find(",")
    if comma < 0:
        raise ValueError("it has no comma")
    start = comma + 1
    in_base64 = uri[:comma].lower().endswith(";base64")
    if not in_base64 or uri.find("%", start) >= 0:
        raw = unquote_to_bytes(uri[start:])
        return _from_base64(raw) if in_base64 else raw
    quads, rest = divmod(len(uri) - start, 4)
    if rest:
        raise ValueError("its base64 is invalid: Incorrect padding")
    padding = len(uri[-2:]) - len(uri[-2:].rstrip("=")) if quads else 0
    return Base64Payload(uri, start, 3 * quads - padding)


def decoded(payload: Base64Payload | bytes) -> bytes:
    """All of it."""
    return payload if isinstance(payload, bytes) else payload.read_at(0, payload.size)


def _from_base64(text: str | bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is invalid: {error}") from None
    except ValueError:
        raise ValueError("its base64 is invalid: it holds what is not ASCII") from None
